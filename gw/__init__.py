"""gw: an OpenAI-compatible gateway to language models, and the middleware pipeline it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gw.adapter import Adapter, Codec, Provider, WireHandler, WireRequest, WireResponse
    from gw.client import AsyncGatewayClient, GatewayClient
    from gw.document import Chunk, Completion
    from gw.errors import ConfigError, GatewayError
    from gw.gateway import GatewayServer
    from gw.message import Headers, Request, Response
    from gw.pipeline import Handler, Middleware, compose
    from gw.registry import DefaultBackendRegistry, register_custom_backend
    from gw.stream import Stream

# The public names, each imported when it is first asked for: `from gw import Request` must not load an HTTP client.
_HOMES = {
    "gw.adapter": ("Adapter", "Codec", "Provider", "WireHandler", "WireRequest", "WireResponse"),
    "gw.client": ("AsyncGatewayClient", "GatewayClient"),
    "gw.document": ("Chunk", "Completion"),
    "gw.errors": ("ConfigError", "GatewayError"),
    "gw.gateway": ("GatewayServer",),
    "gw.message": ("Headers", "Request", "Response"),
    "gw.pipeline": ("Handler", "Middleware", "compose"),
    "gw.registry": ("DefaultBackendRegistry", "register_custom_backend"),
    "gw.stream": ("Stream",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Adapter",
    "AsyncGatewayClient",
    "Chunk",
    "Codec",
    "Completion",
    "ConfigError",
    "DefaultBackendRegistry",
    "GatewayClient",
    "GatewayError",
    "GatewayServer",
    "Handler",
    "Headers",
    "Middleware",
    "Provider",
    "Request",
    "Response",
    "Stream",
    "WireHandler",
    "WireRequest",
    "WireResponse",
    "compose",
    "register_custom_backend",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gw' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
