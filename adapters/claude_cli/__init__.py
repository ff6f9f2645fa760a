"""Claude through its own command line program: a pool of processes that chat, use tools on files and stream."""

from gw.adapters.claude_cli.provider import ClaudeCLI

__all__ = ["ClaudeCLI"]
