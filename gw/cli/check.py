"""`gw check`: what a valid configuration comes to, and which backends are ready, without asking anybody."""

from __future__ import annotations

import sys

from gw.banner import backend_lines
from gw.config import Config, build


def check(config: Config) -> int:
    """Print the configuration in short; 0, since a configuration that could be read can stand."""
    backends = build(config).backends
    print(f"{config.path or 'the built-in defaults'}: ok")
    print(f"  address   {address(config)}")
    print(f"  pipeline  {' -> '.join(config.pipeline)}")
    print("\n".join(backend_lines(backends)))
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def address(config: Config) -> str:
    """Where it will serve: `http://127.0.0.1:3456`."""
    server = config.server
    host = f"[{server.host}]" if ":" in server.host and not server.host.startswith("[") else server.host
    return f"{'https' if server.tls_cert else 'http'}://{host}:{server.port}"
