"""One gateway under attack: raw sockets that judge every answer strictly, a bystander, and a provider that counts."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gw.server import Limits
from tests.fakes import LoopbackProvider, answers, completion
from tests.running import Running, running, settings

PATIENCE = 20.0  # seconds before a read counts as hanging
FRESH = 0.5  # seconds: a connection that rested longer may be closed by the server while it is asked on
KEY = "attack-caller-key-5d41402abc"
BYSTANDER = b'{"model":"m","messages":[{"role":"user","content":"bystander"}]}'
CANARY = "qz7Canary"  # stands in attacks; it must never come back in a header

# Every header field that an answer may have, and what its value looks like. Nothing else of ours is ever sent.
FIELDS: dict[str, str] = {
    "date": r"\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT",
    "content-type": r"application/json|text/plain; version=0\.0\.4; charset=utf-8|text/event-stream; charset=utf-8",
    "content-length": r"\d+",
    "transfer-encoding": r"chunked",
    "connection": r"close",
    "cache-control": r"no-store|no-cache",
    "x-accel-buffering": r"no",
    "x-request-id": r"[A-Za-z0-9._-]{1,128}",
    "allow": r"[A-Z, ]+",
    "retry-after": r"\d+",
    "www-authenticate": r"Bearer",
    "vary": r"Origin",
    "server-timing": r"total;dur=[\d.]+, upstream;dur=[\d.]+",
    "x-gateway-backend": r"[a-z]+",
    "x-gateway-degraded": r"true|false",
    "x-gateway-attempts": r"\d+",
    "x-gateway-dropped": r"[ -~]*",
    "x-gateway-changed": r"[ -~]*",
    "x-ratelimit-limit": r"\d+",
    "x-ratelimit-remaining": r"\d+",
    "x-ratelimit-reset": r"\d+",
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The code of an error in OpenAI's shape, all four keys of which must be there; None for any other body."""
        error = orjson.loads(self.body).get("error") if self.body[:1] == b"{" else None
        if error is None:
            return None
        assert set(error) == {"message", "type", "param", "code"}, error
        return str(error["code"])


class Raw:
    """A socket whose answers are read as strictly as they can be."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def send(self, data: bytes) -> None:
        """Send everything, unless the other side has had enough."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def end(self) -> None:
        """Send no more."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer | None:
        """The next answer, interim ones skipped; None at the end of the connection."""
        while True:
            head, found, rest = self._left.partition(b"\r\n\r\n")
            if found:
                break
            if not self._more():
                assert self._left == b"", f"half an answer: {self._left[:80]!r}"
                return None
        self._left = rest
        status, headers = read_head(head)
        if status == 100:
            return self.answer(method)
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b"")
        if "transfer-encoding" in headers:
            return Answer(status, headers, self._chunks())
        return Answer(status, headers, self._exactly(int(headers["content-length"])))

    def rest(self) -> bytes:
        """What comes until the other side closes or resets."""
        while self._more():
            pass
        return self._left

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._left:
                assert self._more(), "a stream without its last chunk"
            size, _, self._left = self._left.partition(b"\r\n")
            piece = self._exactly(int(size, 16) + 2)
            if piece == b"\r\n":
                return body
            body += piece[:-2]

    def _exactly(self, size: int) -> bytes:
        while len(self._left) < size:
            assert self._more(), "an answer that is cut short"
        data, self._left = self._left[:size], self._left[size:]
        return data

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._left += data
        return bool(data)


def read_head(head: bytes) -> tuple[int, dict[str, str]]:
    """A status and its fields, each of which must be one that gw sends, with a value of the shape that gw sends."""
    first, *lines = head.decode("ascii").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 ([1-5]\d\d) [A-Za-z '-]*", first)
    assert match is not None, f"not a status line: {first!r}"
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        shape = FIELDS.get(name.lower())
        assert shape is not None, f"a field that gw does not send: {line!r}"
        assert name.lower() not in headers, f"{name} twice"
        assert re.fullmatch(shape, value), f"an odd value: {line!r}"
        assert CANARY not in value, f"an echo of the request: {line!r}"
        headers[name.lower()] = value
    return int(match[1]), headers


def chat(text: str = "attack", **fields: Any) -> bytes:
    """The body of a chat request."""
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **fields})


def post(
    body: bytes = b"", *lines: str, path: str = "/v1/chat/completions", key: str | None = KEY, length: bool = True
) -> bytes:
    """A POST of a chat body; `lines` are more header fields."""
    fields = ["Host: localhost", "Content-Type: application/json", *lines]
    if key is not None:
        fields.append(f"Authorization: Bearer {key}")
    if length:
        fields.append(f"Content-Length: {len(body)}")
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{field}\r\n" for field in fields) + "\r\n"
    return head.encode("latin-1") + body


def get(path: str, *lines: str, method: str = "GET", key: str | None = KEY, host: str = "localhost") -> bytes:
    """A request without a body."""
    fields = [f"Host: {host}", *lines, *([] if key is None else [f"Authorization: Bearer {key}"])]
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{field}\r\n" for field in fields) + "\r\n"
    return head.encode("latin-1")


class Bystander:
    """A client that asks every 50 ms on its own connections, whatever else goes on, and must always be served.

    `worst` are the seconds of work that this process did, at the most, while one answer was waited for: how long it was
    held up itself, by a busy machine, is not among them.
    """

    def __init__(self, port: int) -> None:
        self.statuses: list[int] = []
        self.problems: list[str] = []
        self.worst = 0.0
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)) as client:
            asked = time.monotonic()
            while not self._over.wait(0.05):
                if time.monotonic() - asked > FRESH:
                    client.close()
                began = time.process_time()
                try:
                    client.request("POST", "/v1/chat/completions", BYSTANDER, headers)
                    answer = client.getresponse()
                    answer.read()
                    self.statuses.append(answer.status)
                except (OSError, http.client.HTTPException) as error:
                    self.problems.append(repr(error))
                    client.close()
                asked = time.monotonic()
                self.worst = max(self.worst, time.process_time() - began)


class World:
    """A running gateway, its provider, and a listener that nobody may ever contact."""

    def __init__(self, gw: Running, provider: LoopbackProvider, forbidden: socket.socket) -> None:
        self.gw = gw
        self.provider = provider
        self._forbidden = forbidden
        self.port = gw.gateway.port

    @property
    def forbidden(self) -> str:
        """host:port of the listener that must never be contacted."""
        host, port = self._forbidden.getsockname()
        return f"{host}:{port}"

    def was_contacted(self) -> bool:
        """Whether somebody came to the forbidden place."""
        try:
            self._forbidden.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    @property
    def reached(self) -> list[bytes]:
        """The bodies that reached the provider, without the bystander's."""
        return [asked.body for asked in self.provider.asked if b"bystander" not in asked.body]

    def ask(self, data: bytes, method: str = "POST") -> Answer:
        """One request, one answer."""
        client = Raw(self.port)
        with closing(client.socket):
            client.send(data)
            answer = client.answer(method)
            assert answer is not None, "no answer"
            return answer

    def attack(
        self,
        data: bytes,
        statuses: Sequence[int],
        *,
        kept: bool,
        methods: Sequence[str] = (),
        end: bool = False,
        along: bool = True,
    ) -> list[Answer]:
        """Send bytes and judge: exactly these answers, and then a connection that is kept, or closed and silent.

        Kept means that a request behind is answered as itself; closed, that one which was sent (`along` with the
        bytes, or when the answers have come) is not. `end`: the client sends nothing else, and ends its sending.
        """
        client = Raw(self.port)
        with closing(client.socket):
            client.send(data if kept or end or not along else data + INTRUDER)
            if end:
                client.end()
            found: list[Answer] = []
            for index, status in enumerate(statuses):
                answer = client.answer(methods[index] if index < len(methods) else "POST")
                assert answer is not None, f"closed after {len(found)} answers, {len(statuses)} were due"
                assert answer.status == status, (answer.status, answer.body)
                is_last = not kept and index == len(statuses) - 1
                # Where the client ends its sending, the answer may be on its way already.
                assert ("connection" in answer.headers) is is_last or (is_last and end), answer.headers
                found.append(answer)
            if kept:
                client.send(get("/health/live", "X-Request-ID: probe-behind"))
                probe = client.answer()
                assert probe is not None, "the connection was not kept"
                assert (probe.status, probe.headers["x-request-id"]) == (200, "probe-behind")
            else:
                client.send(INTRUDER)
                assert client.rest() == b"", "a second answer"
            return found


INTRUDER = post(chat("intruder"), f"X-Request-ID: {CANARY}-intruder")


@contextmanager
def world(
    folder: Path,
    *,
    limits: Limits | None = None,
    backends: Callable[[str], Mapping[str, Any]] = lambda url: {},
    environ: Mapping[str, str] | None = None,
    **tables: Any,
) -> Iterator[World]:
    """A gateway with a key, one backend `a` that serves every model, and a bystander who must have been served.

    `backends` gives more of them for the provider's address.
    """
    with running() as gw, closing(socket.create_server(("127.0.0.1", 0))) as forbidden:
        forbidden.setblocking(False)
        provider = gw.add_provider(answers(orjson.dumps(completion())))
        backend = {"adapter": "openai", "base_url": provider.url + "/v1", "model": "m"}
        middleware = {"rate_limit": {"enabled": False}} | tables.pop("middleware", {})
        gw.start(
            settings(folder, backends={"a": backend, **backends(provider.url)}, middleware=middleware, **tables),
            environ={"API_AUTH_TOKEN": KEY, **(environ or {})},
            limits=limits or Limits(),
        )
        under_attack = World(gw, provider, forbidden)
        with Bystander(under_attack.port) as bystander:
            yield under_attack
        assert bystander.problems == []
        assert set(bystander.statuses) <= {200}
        assert bystander.worst < 2.0, f"the bystander waited for {bystander.worst:.2f} s of work"
        assert not any(b"intruder" in asked.body for asked in provider.asked), "bytes behind the end were served"
        assert not under_attack.was_contacted(), "a request named an address, and somebody went there"
