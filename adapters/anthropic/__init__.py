"""Claude in Anthropic's own dialect, the Messages API, translated both ways without loss where it can be."""

from gw.adapters.anthropic.adapter import Anthropic
from gw.adapters.anthropic.codec import AnthropicCodec

__all__ = ["Anthropic", "AnthropicCodec"]
