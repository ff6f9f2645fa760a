"""The edge to providers: transports that carry an adapter's requests over HTTP and bring the answers back."""

from gw.upstream.head import RESERVED_HEADERS
from gw.upstream.httpx_transport import HTTPXTransport
from gw.upstream.pool import HTTPTransport

__all__ = ["RESERVED_HEADERS", "HTTPTransport", "HTTPXTransport"]
