"""https: what is served, with which certificate, and a new one by reload; files that cannot be used are told."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gw.config import read
from gw.errors import ConfigError
from gw.transports import Transports
from gw.upstream.tls import Contexts
from tests.running import Running, running, settings
from tests.tls_world import Authority, TLSProvider

CHAT = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "Hi"}]})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(name="gw")
def _gw() -> Iterator[Running]:
    with running() as gw:
        yield gw


def certificate(authority: Authority, name: str, **how: Any) -> dict[str, str]:
    authority.server(name, **how)
    return {"tls_cert": str(authority.folder / f"{name}.crt"), "tls_key": str(authority.folder / f"{name}.key")}


def client(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def connect(gw: Running, context: ssl.SSLContext, *, name: str | None = "localhost") -> ssl.SSLSocket:
    if name is None:
        context.check_hostname = False  # and no name is sent
    plain = socket.create_connection(("127.0.0.1", gw.gateway.port), timeout=30)
    return context.wrap_socket(plain, server_hostname=name)


def serial(sock: ssl.SSLSocket) -> str:
    found = sock.getpeercert()
    assert found is not None
    return str(found["serialNumber"])


def chat(sock: ssl.SSLSocket) -> int:
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = sock
    connection.request("POST", "/v1/chat/completions", CHAT, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_https_is_served_with_http_1_1_and_tls_1_2_or_newer(gw: Running, authority: Authority, tmp_path: Path) -> None:
    url = gw.start(settings(tmp_path, server=certificate(authority, "good")))
    assert url.startswith("https://")
    with connect(gw, client(authority)) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
        assert sock.version() in ("TLSv1.2", "TLSv1.3")
        assert chat(sock) == 200
        assert chat(sock) == 200


def test_older_tls_and_plain_http_are_not_spoken(gw: Running, authority: Authority, tmp_path: Path) -> None:
    gw.start(settings(tmp_path, server=certificate(authority, "good")))
    old = client(authority)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.options &= ~(ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(gw, old)
    with socket.create_connection(("127.0.0.1", gw.gateway.port), timeout=30) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            said = plain.recv(100)
        except ConnectionError:
            said = b""
        assert not said.startswith(b"HTTP/1.1 200")
    with connect(gw, client(authority)) as sock:
        assert chat(sock) == 200


@pytest.mark.parametrize("name", ["localhost", None])
def test_a_reload_gives_the_new_certificate_to_new_connections(
    gw: Running, authority: Authority, tmp_path: Path, name: str | None
) -> None:
    gw.start(settings(tmp_path, server=certificate(authority, "good")))
    with connect(gw, client(authority), name=name) as before:
        first = serial(before)
        gw.run(gw.gateway.reload(settings(tmp_path, server=certificate(authority, "renewed"))))
        assert chat(before) == 200, "a connection that stands goes on"
        with connect(gw, client(authority), name=name) as after:
            assert serial(after) != first
            assert after.selected_alpn_protocol() == "http/1.1"
            assert chat(after) == 200


def test_a_certificate_that_was_renewed_in_place_is_taken_by_the_same_configuration(
    gw: Running, authority: Authority, tmp_path: Path
) -> None:
    good, renewed = certificate(authority, "good"), certificate(authority, "renewed")
    own = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    for option, path in own.items():
        path.write_bytes(Path(good[option]).read_bytes())
    table = settings(tmp_path, server={option: str(path) for option, path in own.items()})
    gw.start(table)
    with connect(gw, client(authority)) as sock:
        first = serial(sock)
    for option, path in own.items():
        path.write_bytes(Path(renewed[option]).read_bytes())
    gw.run(gw.gateway.reload(table))
    with connect(gw, client(authority)) as sock:
        assert serial(sock) != first


def _no_file(good: dict[str, str], folder: Path, authority: Authority) -> dict[str, str]:
    return good | {"tls_cert": str(folder / "nowhere.pem")}


def _other_key(good: dict[str, str], folder: Path, authority: Authority) -> dict[str, str]:
    return good | {"tls_key": certificate(authority, "renewed")["tls_key"]}


def _swapped(good: dict[str, str], folder: Path, authority: Authority) -> dict[str, str]:
    return {"tls_cert": good["tls_key"], "tls_key": good["tls_cert"]}


def _locked(good: dict[str, str], folder: Path, authority: Authority) -> dict[str, str]:
    locked = folder / "locked.key"
    authority.openssl("pkcs8", "-topk8", "-in", good["tls_key"], "-out", str(locked), "-passout", "pass:secret")
    return good | {"tls_key": str(locked)}


Spoil = Callable[[dict[str, str], Path, Authority], dict[str, str]]
SPOILT = pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_no_file, r"server\.tls_cert: .*nowhere\.pem. cannot be read \(No such file"),
        (_other_key, r"server\.tls_key: .* is not the key of the certificate"),
        (_swapped, r"server\.tls_cert: .* holds no certificate"),
        (_locked, r"server\.tls_key: .* is locked with a password"),
    ],
)


@SPOILT
def test_a_certificate_that_cannot_be_used_is_told_before_a_socket_opens(
    authority: Authority, tmp_path: Path, spoil: Spoil, says: str
) -> None:
    server = spoil(certificate(authority, "good"), tmp_path, authority)
    with pytest.raises(ConfigError, match=says):
        read(settings(tmp_path, server=server), environ={})


@SPOILT
def test_a_reload_with_such_a_certificate_keeps_the_old_one(
    gw: Running, authority: Authority, tmp_path: Path, spoil: Spoil, says: str
) -> None:
    good = certificate(authority, "good")
    gw.start(settings(tmp_path, server=good))
    with connect(gw, client(authority)) as sock:
        first = serial(sock)
    with pytest.raises(ConfigError, match=says):
        gw.run(gw.gateway.reload(settings(tmp_path, server=spoil(good, tmp_path, authority))))
    with connect(gw, client(authority)) as sock:
        assert serial(sock) == first
        assert chat(sock) == 200


def test_https_begins_and_ends_with_a_restart(gw: Running, authority: Authority, tmp_path: Path) -> None:
    gw.start(settings(tmp_path, server=certificate(authority, "good")))
    told = gw.run(gw.gateway.reload(settings(tmp_path)))
    assert told == ["server.tls_cert: https is spoken until a restart"]
    with connect(gw, client(authority)) as sock:
        assert chat(sock) == 200


# --- towards providers ------------------------------------------------------------------------------------------


class Providers:
    """TLS providers in the gateway's loop."""

    def __init__(self, gw: Running) -> None:
        self._gw = gw

    def add(self, context: ssl.SSLContext) -> str:
        answer = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}]})
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"

        async def start() -> int:
            provider = TLSProvider((head + answer).encode())

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    while True:
                        asked = await reader.readuntil(b"\r\n\r\n")
                        length = int(asked.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
                        await reader.readexactly(length)
                        writer.write(provider.answer)
                except (asyncio.IncompleteReadError, ConnectionError):
                    writer.transport.abort()

            server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
            self._gw._stack.callback(server.close)
            return int(server.sockets[0].getsockname()[1])

        return f"https://127.0.0.1:{self._gw.run(start())}/v1"


def ask(gw: Running, backend: str = "a") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", gw.gateway.port, timeout=20)
    connection.request("POST", f"/v1/{backend}/chat/completions", CHAT, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def with_backend(folder: Path, url: str, **options: Any) -> dict[str, Any]:
    backend = {"adapter": "openai", "base_url": url, "model": "m", **options}
    return settings(folder, backends={"a": backend}, middleware={"fallback": {"retries": 0}})


@pytest.mark.parametrize("transport", ["own", "httpx"])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("expired", {"is_expired": True}),
        ("elsewhere", {"host": "DNS:elsewhere.example"}),
        ("unknown", {"issuer": "stranger"}),
    ],
)
def test_a_certificate_that_does_not_verify_is_never_accepted(
    gw: Running, authority: Authority, tmp_path: Path, name: str, how: dict[str, Any], transport: str
) -> None:
    url = Providers(gw).add(authority.server(name, **how))
    gw.start(with_backend(tmp_path, url, ca_file=str(authority.file), transport=transport))
    status, text = ask(gw)
    assert status == 502
    assert "certificate" in text
    assert "Hello" not in text


@pytest.mark.parametrize("transport", ["own", "httpx"])
def test_a_private_authority_is_taken_up_changed_and_taken_away_by_reload(
    gw: Running, authority: Authority, tmp_path: Path, transport: str
) -> None:
    url = Providers(gw).add(authority.server("good"))
    own = tmp_path / "ca.pem"
    own.write_bytes((authority.folder / "stranger.crt").read_bytes())
    with_ca = with_backend(tmp_path, url, ca_file=str(own), transport=transport)
    gw.start(with_ca)
    assert ask(gw)[0] == 502
    own.write_bytes(authority.file.read_bytes())
    gw.run(gw.gateway.reload(with_ca))  # the same table: the file is another one
    assert ask(gw)[0] == 200
    gw.run(gw.gateway.reload(with_backend(tmp_path, url, transport=transport)))
    assert ask(gw)[0] == 502


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_is_told_before_a_socket_opens(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"backends\.a\.ca_file: .*ca\.pem. cannot be used"):
        read(with_backend(tmp_path, "https://127.0.0.1:1/v1", ca_file=str(file)), environ={})


def test_authorities_are_read_before_the_first_request_in_another_thread(authority: Authority, tmp_path: Path) -> None:
    threads: list[int] = []

    class Noting(Contexts):
        def load(self, ca_files: Iterable[str | None]) -> None:
            threads.append(threading.get_ident())
            super().load(ca_files)

    config = read(with_backend(tmp_path, "https://127.0.0.1:1/v1", ca_file=str(authority.file)), environ={})
    contexts = Noting()
    asyncio.run(Transports(config, contexts=contexts).prepare())
    assert threads
    assert threading.get_ident() not in threads
    assert contexts.known() == {str(authority.file)}
