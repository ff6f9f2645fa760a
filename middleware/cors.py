"""Which web pages may use the gateway from a browser: nobody's, until their origins are named.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re

from gw.message import Headers, Request, Response
from gw.pipeline import ALL, Handler

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")

_METHODS = "GET, POST, DELETE, OPTIONS"

# What clients in browsers send; OpenAI's own for JavaScript adds the X-Stainless ones.
_HEADERS = (
    "Accept, Authorization, Content-Type, API-Key, X-API-Key, X-Request-ID, Idempotency-Key, "
    "OpenAI-Beta, OpenAI-Organization, OpenAI-Project, "
    "Anthropic-Beta, Anthropic-Version, Anthropic-Dangerous-Direct-Browser-Access, "
    "X-Stainless-Arch, X-Stainless-Async, X-Stainless-Custom-Poll-Interval, X-Stainless-Helper-Method, "
    "X-Stainless-Lang, X-Stainless-OS, X-Stainless-Package-Version, X-Stainless-Poll-Helper, "
    "X-Stainless-Retry-Count, X-Stainless-Runtime, X-Stainless-Runtime-Version, X-Stainless-Timeout"
)

_EXPOSED = (
    "X-Request-ID, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
    "X-Gateway-Backend, X-Gateway-Degraded, X-Gateway-Attempts, X-Gateway-Dropped, "
    "X-Gateway-Changed, Server-Timing"
)


class CORS:
    """Answers preflights and marks every answer, refusals too, for the origins that are named.

    `origins` are scheme://host[:port], or "*" for every page of the web; `max_age`, for which a browser may
    keep a preflight's answer, is in seconds; `methods` and `headers` are what pages may use (default: what the clients
    of OpenAI and Anthropic send). Raises ValueError
    for an origin that no browser sends and for "*" with credentials, which browsers refuse. An origin that is allowed
    is noted as `gw.origin_allowed` in the exchange's attributes, so that auth's local safety lets it through.
    """

    head_only = True
    operations = ALL

    def __init__(
        self,
        *,
        origins: list[str] = [],  # noqa: B006 (only read)
        credentials: bool = False,
        max_age: int = 600,
        methods: list[str] | None = None,
        headers: list[str] | None = None,
    ) -> None:
        if credentials and "*" in origins:
            raise ValueError(
                'origins = ["*"] with credentials = true is refused by every browser: name the origins that may send '
                "credentials, or set credentials = false"
            )
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: write {_repaired(origin)!r}")
        self.is_idle = not origins  # the app leaves it out of the chain then
        self._any = "*" in origins
        self._origins = {origin.encode("ascii"): origin for origin in origins if origin != "*"}
        self._answer = {"Access-Control-Expose-Headers": _EXPOSED}
        if credentials:
            self._answer["Access-Control-Allow-Credentials"] = "true"
        self._preflight = {
            "Access-Control-Allow-Methods": _METHODS if methods is None else ", ".join(methods),
            "Access-Control-Allow-Headers": _HEADERS if headers is None else ", ".join(headers),
            "Access-Control-Max-Age": str(max_age),
            **{name: value for name, value in self._answer.items() if name != "Access-Control-Expose-Headers"},
        }

    async def __call__(self, request: Request, call_next: Handler, /) -> Response:
        if self.is_idle:
            return await call_next(request)
        origin, asks = request.headers.about(_asked)
        allowed = None if origin is None else self._allowed(origin)
        if allowed is not None:
            request.exchange.attributes["gw.origin_allowed"] = True
            if asks and request.method == "OPTIONS":
                headers = {"Access-Control-Allow-Origin": allowed, **self._preflight}
                return Response(status=204, headers=headers if self._any else {**headers, "Vary": "Origin"})
        response = await call_next(request)
        if allowed is not None:
            response.headers["Access-Control-Allow-Origin"] = allowed
            response.headers.update(self._answer)
        if not self._any:
            # Also where the origin was not allowed or not sent: a cache must not give that answer to an origin that is.
            vary = response.headers.get("Vary")
            response.headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
        return response

    def _allowed(self, origin: bytes) -> str | None:
        return "*" if self._any else self._origins.get(origin)


def _asked(headers: Headers) -> tuple[bytes | None, bool]:
    """The origin that asks, and whether it asks for permission (a preflight). Two origins name nobody."""
    origins = [value for name, value in headers.pairs if name == b"origin"]
    return origins[0] if len(origins) == 1 else None, "access-control-request-method" in headers


def _repaired(origin: str) -> str:
    """The nearest right spelling, for the message."""
    if origin == "null":  # every sandboxed frame and local file is "null"
        return "https://app.example"
    match = _ORIGIN.match(origin.lower() if "://" in origin else f"https://{origin.lower()}")
    return match[0] if match else "https://app.example"
