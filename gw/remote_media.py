"""Images and files at web addresses, fetched for providers that cannot: from allowed hosts and public addresses only.

Off unless a backend has `fetch = { hosts = [...] }`. A host is resolved here, its address is checked, and that very
address is connected to, again for every redirect: no name that changes its mind can lead to an inner network.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from gw.chat_parts import Media, refusal, sniff_image
from gw.document import Document
from gw.errors import InvalidRequest
from gw.message import Request
from gw.option_kinds import Size

if TYPE_CHECKING:
    import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last four bytes
_TYPES = ("image/", "audio/", "video/", "text/", "application/pdf", "application/json")
_HEADERS = {"accept": "image/*, application/pdf, */*;q=0.5", "accept-encoding": "identity", "user-agent": "gw"}


@dataclass(frozen=True, slots=True)
class Fetch:
    """`fetch` of a backend: what the gateway may fetch where the provider cannot follow an address itself.

    `hosts` are names, `"images.example"` or `"*.example"` for all below it, on the usual ports unless one is added
    (`"images.example:8443"`); `"*"` is every host. `max_bytes` is for all of one request together, `timeout` (seconds)
    for all of it too.
    """

    hosts: tuple[str, ...] = ()
    max_bytes: Size = 20 * 1024 * 1024
    timeout: float = 10.0


def is_public(address: Address) -> bool:
    """Whether an address is somewhere in the internet, with the IPv4 address inside an IPv6 one looked at too."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local:  # fec0::/10, which Python counts as global
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and (address in _NAT64 or not any(address.packed[:12])):
            inner = ipaddress.IPv4Address(address.packed[12:])
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system tells them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class MediaFetcher:
    """Fetches under one set of rules. `resolver` and `is_allowed` are for tests: by default DNS and public addresses.

    Raises ValueError for rules that cannot be meant.
    """

    def __init__(
        self, rules: Fetch, *, resolver: Resolver = resolve, is_allowed: Callable[[Address], bool] = is_public
    ) -> None:
        if not rules.hosts:
            raise ValueError('fetch.hosts names no host: list those that may be fetched from, or "*" for all')
        if rules.max_bytes < 1 or rules.timeout <= 0:
            raise ValueError("fetch.max_bytes and fetch.timeout must be above zero")
        self._rules = rules
        self._hosts = tuple(host.lower().rstrip(".") for host in rules.hosts)
        self._resolve = resolver
        self._is_allowed = is_allowed
        self._tls: ssl.SSLContext | None = None

    async def inline(self, request: Request, leave: Callable[[str], bool] = lambda url: False) -> Request:
        """The same request with what stands at http(s) addresses inside it, as data URIs; the original is not changed.

        `leave` says which addresses the provider follows itself. Raises InvalidRequest, naming the field, for whatever
        cannot be had.
        """
        if request.document is None:
            return request
        chat = request.document.peek()
        places = [place for place in remote_places(chat) if not leave(place[1])]
        if not places:
            return request
        budget = _Budget(self._rules.max_bytes)
        wanted = {url: pointer for pointer, url, _ in reversed(places)}
        try:
            async with asyncio.timeout(self._rules.timeout), asyncio.TaskGroup() as tasks:
                fetching = {
                    url: tasks.create_task(self._fetch(url, pointer, budget)) for url, pointer in wanted.items()
                }
        except TimeoutError:
            raise _cannot(places[0][0], f"not fetched within {self._rules.timeout:g} s") from None
        except ExceptionGroup as group:
            raise _first_refusal(group) from None
        found = {}
        for pointer, url, is_image in places:
            media = fetching[url].result()
            if is_image and not media.media_type.startswith("image/"):
                raise _cannot(pointer, f"there is no image there but {media.media_type}")
            found[pointer] = f"data:{media.media_type};base64,{media.data}"
        return request.replace(document=Document(value=_with_data(chat, found)))

    async def _fetch(self, url: str, pointer: str, budget: _Budget) -> Media:
        import httpx  # not on the hot path, and slow to import

        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        try:
            # No pool is kept, no proxy asked, no redirect followed by itself: every hop is checked here.
            async with httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=self._rules.timeout) as client:
                for _ in range(MAX_REDIRECTS + 1):
                    target = _url(url, pointer)
                    ask = await self._request(client, target, pointer)
                    response = await client.send(ask, stream=True)
                    try:
                        if response.status_code not in _REDIRECTS:
                            return await _read(response, pointer, budget)
                        onward = urljoin(url, response.headers.get("location", ""))
                    finally:
                        await response.aclose()
                    if target.scheme == "https" and not onward.lower().startswith("https:"):
                        raise _cannot(pointer, "it is redirected to an address without TLS")
                    url = onward
        except (httpx.HTTPError, OSError, ssl.SSLError) as error:
            raise _cannot(pointer, f"not reached: {type(error).__name__}") from error
        raise _cannot(pointer, f"more than {MAX_REDIRECTS} redirects")

    async def _request(self, client: httpx.AsyncClient, url: httpx.URL, pointer: str) -> httpx.Request:
        """The request to the very address that was checked; TLS and Host still go by the name."""
        host = url.host.lower().rstrip(".")
        port = url.port or _PORTS[url.scheme]
        if not self._is_listed(host, port, is_usual=url.port is None):
            raise _cannot(pointer, f'the host "{host}" (port {port}) is not in fetch.hosts')
        try:
            addresses = [ipaddress.ip_address(found) for found in await self._resolve(host, port)]
        except (OSError, ValueError, UnicodeError):
            raise _cannot(pointer, f'the host "{host}" is unknown') from None
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise _cannot(pointer, f'the host "{host}" has no public address')
        return client.build_request(
            "GET",
            url.copy_with(host=str(addresses[0]), port=url.port),
            headers={**_HEADERS, "host": url.netloc.decode("ascii")},
            extensions={"sni_hostname": host},
        )

    def _is_listed(self, host: str, port: int, *, is_usual: bool) -> bool:
        for listed in self._hosts:
            name, _, wanted = listed.partition(":")
            is_port = str(port) == wanted if wanted else is_usual
            if is_port and (name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))):
                return True
        return False


class _Budget:
    """What one request may still fetch, in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit

    def spend(self, count: int, pointer: str) -> None:
        self.left -= count
        if self.left < 0:
            raise _cannot(pointer, f"more than fetch.max_bytes = {self.limit} bytes")


async def _read(response: httpx.Response, pointer: str, budget: _Budget) -> Media:
    if response.status_code != 200:
        raise _cannot(pointer, f"answered with status {response.status_code}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _cannot(pointer, "it is sent compressed although that was not asked for")
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > budget.left:
        budget.spend(int(length), pointer)
    content = bytearray()
    async for piece in response.aiter_raw():
        budget.spend(len(piece), pointer)
        content += piece
    if not content:
        raise _cannot(pointer, "answered with nothing")
    data = base64.b64encode(content).decode("ascii")
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    media_type = sniff_image(data) or media_type
    if not media_type.startswith(_TYPES):
        raise _cannot(pointer, f"its type is {media_type or 'not told'}, which is neither media nor text")
    return Media(media_type, data)


def _url(url: str, pointer: str) -> httpx.URL:
    import httpx

    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        raise _cannot(pointer, "it is no valid address") from None
    if target.scheme not in _PORTS or not target.host:
        raise _cannot(pointer, "only http and https are fetched")
    if target.userinfo:
        raise _cannot(pointer, "an address with a password is not fetched")
    return target


def _cannot(pointer: str, why: str) -> InvalidRequest:
    return refusal(pointer, f"this address cannot be fetched: {why}", code="invalid_image_url")


def _first_refusal(group: ExceptionGroup[Exception]) -> BaseException:
    for error in group.exceptions:
        if isinstance(error, InvalidRequest):
            return error
    return group


# --- where they stand -------------------------------------------------------------------------------------------


def remote_places(chat: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """(JSON pointer, http(s) address, whether it must be an image) of all media in a chat that are not inside it."""
    for index, message in enumerate(chat.get("messages") or ()):
        content = message.get("content") if isinstance(message, Mapping) else None
        for at, part in enumerate(content if isinstance(content, list) else ()):
            for key, name in _HOLDERS:
                held = part.get(key) if isinstance(part, Mapping) else None
                url = held.get(name) if isinstance(held, Mapping) else held
                if isinstance(url, str) and url[:8].lower().startswith(("http://", "https://")):
                    yield f"/messages/{index}/content/{at}/{key}/{name}", url.strip(), key == "image_url"


_HOLDERS = (("image_url", "url"), ("file", "file_data"), ("file", "url"))


def _with_data(chat: Mapping[str, Any], found: Mapping[str, str]) -> dict[str, Any]:
    """A copy of the chat with data URIs at these pointers; what is not changed is shared with the original."""
    messages = list(chat["messages"])
    copied: set[str] = set()
    for pointer, uri in found.items():
        _, _, index, _, at, key, name = pointer.split("/")
        if index not in copied:
            copied.add(index)
            messages[int(index)] = {**messages[int(index)], "content": list(messages[int(index)]["content"])}
        content = messages[int(index)]["content"]
        held = content[int(at)][key]
        inner = {**held} if isinstance(held, Mapping) else {}
        with suppress(KeyError):
            del inner[name]
        content[int(at)] = {**content[int(at)], key: {**inner, "url" if key == "image_url" else "file_data": uri}}
    return {**chat, "messages": messages}
