"""Access tokens: fetched once for all who wait, renewed early, borne with while good, thrown away when refused."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from gw.errors import ConfigError, UpstreamConnectionError, UpstreamError, UpstreamTimeout
from gw.oauth import (
    COMMAND_LIFETIME,
    EARLY,
    PAUSE,
    YOUNG,
    CachedToken,
    EnvironmentToken,
    Grant,
    google_tokens,
    token_of_command,
    token_of_file,
)
from gw.secret import Secret
from tests.fakes import FakeClock


class Issuer:
    """Hands out t1, t2, ...; waits for `gate` where it has one, and fails while `failure` is set."""

    def __init__(self, lifetime: float = 3600.0) -> None:
        self.count = 0
        self.lifetime = lifetime
        self.failure: UpstreamError | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> Grant:
        self.count += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Grant(Secret(f"t{self.count}"), self.lifetime)


def run(scenario: Callable[[Issuer, FakeClock, CachedToken], Awaitable[None]]) -> None:
    issuer, clock = Issuer(), FakeClock()

    async def main() -> None:
        await scenario(issuer, clock, CachedToken(issuer, clock=clock))

    asyncio.run(main())


async def read(tokens: CachedToken) -> str:
    return (await tokens.token()).reveal()


def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    async def scenario(issuer: Issuer, clock: FakeClock, tokens: CachedToken) -> None:
        assert await read(tokens) == "t1"
        clock.now += 3600 - EARLY - 1
        assert await read(tokens) == "t1"
        clock.now += 1
        assert await read(tokens) == "t2"

    run(scenario)


def test_all_who_wait_share_one_renewal() -> None:
    async def scenario(issuer: Issuer, clock: FakeClock, tokens: CachedToken) -> None:
        issuer.gate = asyncio.Event()
        waiting = [asyncio.create_task(read(tokens)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        issuer.gate.set()
        assert await asyncio.gather(*waiting) == ["t1"] * 5
        assert issuer.count == 1

    run(scenario)


def test_one_who_gives_up_does_not_take_the_renewal_from_the_others() -> None:
    async def scenario(issuer: Issuer, clock: FakeClock, tokens: CachedToken) -> None:
        issuer.gate = asyncio.Event()
        first, second = (asyncio.create_task(read(tokens)) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        issuer.gate.set()
        assert await second == "t1"
        assert issuer.count == 1

    run(scenario)


def test_a_failed_renewal_is_borne_with_while_the_token_is_good() -> None:
    async def scenario(issuer: Issuer, clock: FakeClock, tokens: CachedToken) -> None:
        await tokens.token()
        issuer.failure = UpstreamConnectionError("down")
        clock.now += 3600 - EARLY
        assert await read(tokens) == "t1"
        assert await read(tokens) == "t1"
        assert issuer.count == 2
        clock.now += PAUSE
        assert await read(tokens) == "t1"
        assert issuer.count == 3
        clock.now += EARLY
        with pytest.raises(UpstreamConnectionError, match="down"):
            await tokens.token()
        issuer.failure = None
        assert await read(tokens) == "t5"

    run(scenario)


def test_a_refused_token_is_replaced() -> None:
    async def scenario(issuer: Issuer, clock: FakeClock, tokens: CachedToken) -> None:
        token = await tokens.token()
        clock.now += YOUNG
        tokens.refuse(Secret("another"))
        assert await read(tokens) == "t1"
        tokens.refuse(token)
        assert await read(tokens) == "t2"
        tokens.refuse(token)  # somebody who was slower with the same refusal
        assert await read(tokens) == "t2"

    run(scenario)


def test_a_token_that_is_refused_as_soon_as_it_is_made_is_not_asked_for_again_and_again() -> None:
    async def scenario(issuer: Issuer, clock: FakeClock, tokens: CachedToken) -> None:
        for _ in range(5):
            tokens.refuse(await tokens.token())
        assert issuer.count == 1

    run(scenario)


def test_a_short_lived_token_is_used_for_half_its_life() -> None:
    async def scenario(issuer: Issuer, clock: FakeClock, tokens: CachedToken) -> None:
        issuer.lifetime = 60
        await tokens.token()
        clock.now += 29
        assert await read(tokens) == "t1"
        clock.now += 1
        assert await read(tokens) == "t2"

    run(scenario)


# --- commands -----------------------------------------------------------------------------------------------------


def command(code: str, timeout: float = 30.0) -> Grant:
    async def fetch() -> Grant:
        return await token_of_command([sys.executable, "-c", code], timeout=timeout)()

    return asyncio.run(fetch())


def test_a_command_prints_a_token_or_json() -> None:
    assert command("print('ya29.a')") == Grant(Secret("ya29.a"), COMMAND_LIFETIME)
    assert command("""print('{"access_token": "ya29.b", "expires_in": 99}')""") == Grant(Secret("ya29.b"), 99.0)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('not logged in')", "status 1: not logged in"),
        ("pass", "printed no token"),
        ("print('two words')", "printed no token"),
        ("print('{oops')", "printed no token"),
        ("print('tök')", "printed no token"),
    ],
)
def test_a_command_that_brings_no_token_says_why(code: str, says: str) -> None:
    with pytest.raises(UpstreamError, match=says) as caught:
        command(code)
    assert (caught.value.fault, caught.value.code) == ("dead_key", "upstream_auth_error")


def test_a_command_that_hangs_is_killed() -> None:
    with pytest.raises(UpstreamTimeout, match="did not end within"):
        command("import time; time.sleep(60)", timeout=0.2)


def test_a_command_that_is_not_there_says_so() -> None:
    with pytest.raises(UpstreamError, match="cannot be run: No such file"):
        asyncio.run(CachedToken(token_of_command(["no-such-program-anywhere"])).token())


# --- files --------------------------------------------------------------------------------------------------------


class TokenServer(HTTPServer):
    """Google's token endpoint on loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.forms: list[dict[str, list[str]]] = []
        self.answer: tuple[int, dict[str, Any]] = (200, {"access_token": "ya29.file", "expires_in": 3599})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/token"


class _TokenHandler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        self.server.forms.append(parse_qs(self.rfile.read(int(self.headers["content-length"])).decode()))
        status, body = self.server.answer
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def private_key() -> str:
    pytest.importorskip("google.auth", reason="google-auth is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def account_file(folder: Path, private_key: str, token_uri: str) -> Path:
    path = folder / "account.json"
    account = {
        "type": "service_account",
        "client_email": "gw@project.iam.gserviceaccount.com",
        "private_key_id": "k1",
        "private_key": private_key,
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(account))
    return path


def fetched(path: Path) -> Grant:
    async def fetch() -> Grant:
        return await token_of_file(path)()

    return asyncio.run(fetch())


def test_a_service_account_is_exchanged_for_a_token(tmp_path: Path, private_key: str, server: TokenServer) -> None:
    grant = fetched(account_file(tmp_path, private_key, server.url))
    assert grant.token == Secret("ya29.file")
    assert 3500 < grant.lifetime <= 3600
    form = server.forms[0]
    assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert form["assertion"][0].count(".") == 2


def test_a_service_account_that_google_refuses_is_a_dead_key(
    tmp_path: Path, private_key: str, server: TokenServer
) -> None:
    server.answer = (400, {"error": "invalid_grant", "error_description": "account not found"})
    with pytest.raises(UpstreamError, match="account not found") as caught:
        fetched(account_file(tmp_path, private_key, server.url))
    assert caught.value.fault == "dead_key"
    assert "PRIVATE KEY" not in caught.value.message


def test_a_token_endpoint_that_is_away_is_a_lost_connection(
    tmp_path: Path, private_key: str, server: TokenServer
) -> None:
    path = account_file(tmp_path, private_key, "http://127.0.0.1:1/token")
    with pytest.raises(UpstreamConnectionError):
        fetched(path)


@pytest.mark.usefixtures("private_key")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        ("{oops", "is not JSON"),
        ("[]", "of type None"),
        ('{"type": "external_account"}', "of type 'external_account'"),
        ('{"type": "service_account"}', "is not a usable key"),
    ],
)
def test_a_file_that_is_no_key_says_why(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UpstreamError, match=says):
        fetched(path)


# --- the choice ---------------------------------------------------------------------------------------------------


def test_one_source_at_most() -> None:
    with pytest.raises(ConfigError, match="token_env and token_command are both given"):
        google_tokens(token_env="A", token_command=["b"])


def test_without_any_source_there_is_googles_own_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_key: str
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    assert google_tokens() is None
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert isinstance(google_tokens(), CachedToken)


def test_a_variable_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GW_TEST_TOKEN", raising=False)
    tokens = EnvironmentToken("GW_TEST_TOKEN")
    with pytest.raises(UpstreamError, match="set GW_TEST_TOKEN"):
        asyncio.run(tokens.token())
    monkeypatch.setenv("GW_TEST_TOKEN", " ya29.x\n")
    assert asyncio.run(tokens.token()) == Secret("ya29.x")
