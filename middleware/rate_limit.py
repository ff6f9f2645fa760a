"""So many requests in so many seconds for each caller: an exact sliding window, and headers that tell the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from gw.errors import GatewayError, RateLimited
from gw.message import Request, Response
from gw.pipeline import Handler
from gw.shared import LocalShared, Shared
from gw.sliding_window import MAX_LIMIT

_HOPS = 32  # of X-Forwarded-For that are looked at; a chain of trusted proxies is shorter


class RateLimit:
    """Counts requests per key where the caller has one, else per address (IPv6: per /64, which is one customer's).

    `max` requests in `window` seconds; a key's own rate goes before. The address is the socket's; X-Forwarded-For is
    believed only as far as it was written by `trusted_proxies` (networks such as "10.0.0.0/8"). `shared` is where
    several workers count together; without it this object counts alone. Raises RateLimited with the seconds until the
    next request will be taken; a refused request counts for nothing.
    """

    head_only = True

    def __init__(
        self,
        *,
        max: int = 60,
        window: float = 60,
        trusted_proxies: list[str] = [],  # noqa: B006 (only read)
        shared: Shared | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= max <= MAX_LIMIT:
            raise ValueError(f"max = {max} is out of range: from 1 to {MAX_LIMIT:,} requests in a window")
        if not 0 < window < math.inf:
            raise ValueError(f"window = {window} is out of range: seconds, more than 0")
        self._max = max
        self._window = float(window)
        self._proxies = [_network(proxy) for proxy in trusted_proxies]
        self._admit = (shared if shared is not None else LocalShared()).admit
        self._clock = clock

    async def __call__(self, request: Request, call_next: Handler, /) -> Response:
        principal = request.principal
        limit, window = self._max, self._window
        if principal.name == "anonymous":
            key = _caller(self._forwarded_for(request) if self._proxies else request.client)
        else:
            key = b"key " + principal.name.encode()
            if principal.rate is not None:
                limit, window = principal.rate
        allowed, remaining, reset = self._admit(key, limit, window, self._clock())
        seconds = math.ceil(reset)
        headers: dict[str, str] = {}  # of whatever comes back
        try:
            if not allowed:
                raise RateLimited(
                    f"more than {limit} requests in {window:g} seconds: try again in {seconds} seconds",
                    retry_after=seconds,
                )
            response = await call_next(request)
            headers = response.headers
            return response
        except GatewayError as error:
            headers = error.headers
            raise
        finally:
            headers["X-RateLimit-Limit"] = _texts[limit]
            headers["X-RateLimit-Remaining"] = str(remaining)
            headers["X-RateLimit-Reset"] = _texts[seconds]

    def _forwarded_for(self, request: Request) -> str:
        """The address that the outermost trusted proxy saw; the socket's own where that is no trusted proxy."""
        client = request.client
        if not self._is_proxy(client):
            return client
        for hop in reversed(",".join(request.headers.get_all("x-forwarded-for")).split(",")[-_HOPS:]):
            address = _parsed(hop)
            if address is None:
                break  # what a trusted proxy wrote is an address; anything else is not believed, nor what precedes it
            client = str(address)
            if not self._is_proxy(client):
                break
        return client

    def _is_proxy(self, client: str) -> bool:
        address = _parsed(client)
        return address is not None and any(address in network for network in self._proxies)


class _Texts(dict[int, str]):
    """Whole numbers as text, those that come again and again: the few limits, and what the seconds count down."""

    def __missing__(self, number: int) -> str:
        text = str(number)
        if len(self) < 1024:
            self[number] = text
        return text


_texts = _Texts()


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"trusted_proxies: {error}: write a network such as 10.0.0.0/8, or one address") from None


@lru_cache(4096)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: bare, in quotes, with a port, or in brackets. IPv4 in IPv6 is IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


@lru_cache(4096)
def _caller(client: str) -> bytes:
    """The key of one caller: an IPv4 address, or the /64 of an IPv6 one."""
    address = _parsed(client)
    if isinstance(address, IPv6Address):
        return b"address %b" % str(IPv6Network((int(address) >> 64 << 64, 64))).encode()
    return b"address %b" % (client if address is None else str(address)).encode()
