"""A key is asked for as soon as there is one; without any, no web page can drive the gateway."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any, Literal

import pytest

from gw.environ import Environ
from gw.errors import AuthenticationError, ConfigError, Forbidden, GatewayError
from gw.message import ANONYMOUS, Headers, Principal, Request, Response
from gw.middleware.auth import Auth, Key, Rate
from gw.middleware.cors import CORS
from gw.pipeline import ALL, compose
from gw.secret import Secret
from tests.lint import Lint

TOKEN = "canary-0123456789"
Pairs = list[tuple[str, str]]


class Asked:
    """What became of one request: let through with a principal, or refused."""

    def __init__(self, auth: Auth, pairs: Pairs, operation: str = "chat", method: str = "POST", *outer: Any) -> None:
        self.seen: Request | None = None
        self.error: GatewayError | None = None
        headers = Headers([(name.lower().encode(), value.encode("utf-8")) for name, value in pairs])
        self.request = Request(method=method, path="/v1/chat/completions", headers=headers)
        self.request.operation = operation

        async def inner(request: Request) -> Response:
            self.seen = request
            return Response(b"{}")

        lints = Lint("outside", head_only=True), Lint("inside", head_only=True)

        async def send() -> Response:
            response: Response = await compose([lints[0], *outer, auth, lints[1]], inner)(self.request)
            return response

        try:
            asyncio.run(send())
        except GatewayError as error:
            self.error = error
        assert (self.seen is None) == (self.error is not None)

    @property
    def principal(self) -> Principal:
        assert self.seen is not None
        assert self.seen.principal is self.request.exchange.principal
        return self.seen.principal


def auth(mode: Literal["auto", "always", "off"] = "auto", now: float = 0.0, **fields: Any) -> Auth:
    environ = Environ(fields.pop("environ", {}))
    return Auth(mode=mode, environ=environ, clock=lambda: now, **fields)


def with_token() -> Auth:
    return auth(environ={"API_AUTH_TOKEN": TOKEN})


def refused(auth: Auth, *pairs: tuple[str, str], operation: str = "chat", method: str = "POST") -> GatewayError:
    error = Asked(auth, list(pairs), operation, method).error
    assert error is not None
    return error


def test_it_decides_on_the_head_of_every_operation() -> None:
    assert Auth.head_only
    assert Auth.operations == ALL


# --- keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pair",
    [
        ("Authorization", f"Bearer {TOKEN}"),
        ("authorization", f"bearer {TOKEN}"),
        ("Authorization", f"BEARER   {TOKEN} "),
        ("X-API-Key", TOKEN),
        ("api-key", TOKEN),
    ],
)
def test_a_key_is_taken_from_each_header_that_clients_use(pair: tuple[str, str]) -> None:
    assert Asked(with_token(), [pair]).principal == Principal("default")


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", TOKEN)],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Authorization", f"Bearer {TOKEN.upper()}")],
        [("Authorization", "Bearer \u00e9\u00e8")],
        [("Authorization", f"Bearer wrong {TOKEN}")],
        [("Authorization", "Bearer wrong"), ("X-API-Key", TOKEN)],
        [("X-API-Key", "")],
        [("X-API-Key", "wrong"), ("Api-Key", TOKEN)],
        [("Cookie", TOKEN)],
        [("Authorization", "Bearer ' OR 1=1 --")],
        [("Authorization", "Bearer " + "x" * 10_000)],
    ],
)
def test_a_missing_or_wrong_key_is_refused_with_one_constant_text(pairs: Pairs) -> None:
    for operation in ("chat", "models", "metrics", "queue", "unknown", ""):
        error = refused(with_token(), *pairs, operation=operation)
        assert isinstance(error, AuthenticationError)
        assert (error.status, error.type, error.code) == (401, "authentication_error", "invalid_api_key")
        assert error.message == refused(with_token()).message
        assert error.headers == {"WWW-Authenticate": "Bearer"}


def test_a_key_beyond_ascii_is_compared_as_bytes() -> None:
    key = "schl\u00fcssel-\u9470"
    assert (
        Asked(auth(environ={"API_AUTH_TOKEN": key}), [("Authorization", f"Bearer {key}")]).principal.name == "default"
    )


def test_named_keys_carry_what_they_may_use() -> None:
    keys = {
        "ci": Key(token_env="CI", backends=["a", "b"], models=["gpt-4"], rate=Rate(600, 30)),
        "all": Key(token=Secret("inline-key")),
        "none": Key(token_env="NONE", backends=[]),
    }
    guard = auth(keys=keys, environ={"CI": " ci-key\n", "NONE": "none-key"})
    assert Asked(guard, [("X-API-Key", "ci-key")]).principal == Principal(
        "ci", frozenset({"a", "b"}), frozenset({"gpt-4"}), (600, 30.0)
    )
    assert Asked(guard, [("X-API-Key", "inline-key")]).principal == Principal("all")
    assert Asked(guard, [("X-API-Key", "none-key")]).principal.backends == frozenset()  # nothing, not everything
    assert isinstance(refused(guard), AuthenticationError)
    assert not guard.is_open


@pytest.mark.parametrize(
    ("expires", "last"),
    [
        (date(2027, 1, 31), datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime(2027, 1, 31, 12, 0, 1, tzinfo=UTC), datetime(2027, 1, 31, 12, 0, tzinfo=UTC)),
    ],
)
def test_a_key_is_valid_until_it_expires_and_then_is_unknown(expires: date, last: datetime) -> None:
    keys = {"old": Key(token_env="OLD", expires=expires)}
    pair = ("Authorization", f"Bearer {TOKEN}")
    valid = auth(now=last.timestamp(), keys=keys, environ={"OLD": TOKEN})
    assert Asked(valid, [pair]).principal.name == "old"
    expired = auth(now=last.timestamp() + 1, keys=keys, environ={"OLD": TOKEN})
    error = refused(expired, pair)
    assert error.message == refused(with_token()).message
    assert not expired.is_open  # an expired key does not open the gateway


def test_health_needs_no_key_and_is_marked_to_show_only_its_status() -> None:
    for pairs in ([], [("Authorization", "Bearer wrong")]):
        asked = Asked(with_token(), pairs, "health", "GET")
        assert asked.principal is ANONYMOUS
        assert asked.request.exchange.attributes["gw.public"] is True
    asked = Asked(with_token(), [("X-API-Key", TOKEN)], "health", "GET")
    assert asked.principal.name == "default"
    assert "gw.public" not in asked.request.exchange.attributes


def test_with_a_key_any_host_and_origin_may_ask() -> None:
    pairs = [("Host", "gw.example"), ("Origin", "https://app.example"), ("X-API-Key", TOKEN)]
    assert Asked(with_token(), pairs).principal.name == "default"


def test_a_key_is_never_shown() -> None:
    guard = auth(keys={"ci": Key(token=Secret(TOKEN))})
    error = refused(guard, ("Authorization", "Bearer canary-of-the-client"))
    shown = f"{guard!r} {vars(guard)!r} {Key(token=Secret(TOKEN))!r} {error!r} {error.body()} {error.headers}"
    assert "canary" not in shown


# --- configuration ----------------------------------------------------------------------------------------------


def test_every_problem_of_the_keys_is_told_at_once_with_its_cure() -> None:
    keys = {
        "unset": Key(token_env="GATEWAY_KEY_CI"),
        "nothing": Key(),
        "both": Key(token_env="X", token=Secret("y")),
        "twin": Key(token_env="TWIN"),
        "anonymous": Key(token_env="OTHER"),
        "empty": Key(token=Secret("")),
    }
    with pytest.raises(ConfigError) as caught:
        auth(keys=keys, environ={"API_AUTH_TOKEN": TOKEN, "TWIN": TOKEN, "OTHER": "other"})
    assert caught.value.problems == [
        "keys.unset has no token: set GATEWAY_KEY_CI",
        "keys.nothing: set token_env, the name of the variable that holds its token",
        "keys.both: set token_env, the name of the variable that holds its token",
        "keys.twin has the same token as default: make another",
        "keys.anonymous: this name is taken; call the key something else",
        "keys.empty has no token: set token_env",
    ]
    assert TOKEN not in str(caught.value)


def test_always_wants_a_key_and_off_wants_none() -> None:
    with pytest.raises(ConfigError, match=r'mode = "always", and there is no key: set API_AUTH_TOKEN, or add'):
        auth("always")
    assert not auth("always", environ={"API_AUTH_TOKEN": TOKEN}).is_open
    with pytest.raises(ConfigError, match=r'mode = "off" would leave default unused'):
        auth("off", environ={"API_AUTH_TOKEN": TOKEN})
    assert auth("off").is_open
    assert auth().is_open
    assert auth(environ={"API_AUTH_TOKEN": "  "}).is_open
    assert not auth(token_env="MINE", environ={"MINE": TOKEN}).is_open


@pytest.mark.parametrize(("most", "window"), [(0, 60), (-1, 60), (100_001, 60), (1, 0), (1, -1), (1, float("inf"))])
def test_a_rate_out_of_range_is_refused(most: int, window: float) -> None:
    with pytest.raises(ValueError, match="rate: max is from 1 to 100,000"):
        Rate(most, window)


# --- without a key: a hostile web page --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "localhost:3456",
            "LOCALHOST:80",
            "localhost.",
            "gw.localhost:3456",
            "127.0.0.1",
            "127.0.0.1:3456",
        ),
        *("127.8.9.10:1", "[::1]", "[::1]:3456", "[0:0:0:0:0:0:0:1]:1", "[::ffff:127.0.0.1]:1"),
    ],
)
def test_without_a_key_programs_on_this_machine_are_served(host: str) -> None:
    assert Asked(auth(), [("Host", host)]).principal is ANONYMOUS
    for origin in (f"http://{host}", f"https://{host}"):
        assert Asked(auth(), [("Host", host), ("Origin", origin), ("Sec-Fetch-Site", "same-origin")]).error is None


def test_a_client_of_http_1_0_without_a_host_is_served() -> None:
    assert Asked(auth(), []).principal is ANONYMOUS


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:3456", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io"),
        *("localhostevil", "evil-localhost", ".localhost.evil", "0.0.0.0:3456", "192.168.0.1", "10.0.0.1:3456"),
        *(
            "[::]:3456",
            "[fe80::1]",
            "[::ffff:10.0.0.1]",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "127.0.0.1x",
        ),
        *(
            "localhost:3456@evil.example",
            "localhost evil",
            "localhost,evil.example",
            "localhost:3456:1",
            "local\u04bbost",
        ),
        *("169.254.169.254", "host.docker.internal", "[::1", "::1", "localhost/", "127.0.0.1:999999", "-", "."),
    ],
)
@pytest.mark.parametrize("operation", ["chat", "models", "health", "metrics", "unknown"])
def test_dns_rebinding_is_refused_on_every_page(host: str, operation: str) -> None:
    """The page's own name resolves to 127.0.0.1: to the browser it is the same origin, and nothing else stops it."""
    error = refused(auth(), ("Host", host), ("Origin", f"http://{host}"), operation=operation)
    assert isinstance(error, Forbidden)
    assert (error.status, error.code) == (403, "forbidden_origin")
    assert "set API_AUTH_TOKEN" in error.message
    assert "evil" not in error.message
    refused(auth(), ("Host", host), operation=operation, method="GET")  # a same-origin GET sends no Origin


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://evil.example:3456", "null", "http://localhost:8000", "http://localhost"),
        *("http://127.0.0.1:3456", "http://localhost:3456.evil.example", "http://localhost:34567", "file://", "x"),
        *(
            "chrome-extension://abc",
            "ftp://localhost:3456",
            "localhost:3456",
            "://localhost:3456",
            "http:// localhost:3456",
        ),
    ],
)
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    """A form or a `fetch` with mode no-cors and text/plain needs no preflight, but a browser tells its origin."""
    error = refused(auth(), ("Host", "localhost:3456"), ("Origin", origin), ("Content-Type", "text/plain"))
    assert error.code == "forbidden_origin"
    assert "name its origin in [middleware.cors] origins" in error.message
    refused(auth(), ("Host", "localhost:3456"), ("Origin", origin), method="OPTIONS")


@pytest.mark.parametrize("site", ["cross-site", "Cross-Site", " cross-site "])
def test_an_image_or_a_link_of_another_site_is_refused_by_sec_fetch_site(site: str) -> None:
    error = refused(auth(), ("Host", "localhost:3456"), ("Sec-Fetch-Site", site), method="GET", operation="metrics")
    assert error.code == "forbidden_origin"


@pytest.mark.parametrize("site", ["same-origin", "same-site", "none"])
def test_what_the_user_opens_by_hand_is_served(site: str) -> None:
    asked = Asked(auth(), [("Host", "localhost:3456"), ("Sec-Fetch-Site", site)], "health", "GET")
    assert asked.error is None
    assert "gw.public" not in asked.request.exchange.attributes


def test_an_origin_that_cors_allows_is_served_but_only_by_a_loopback_name() -> None:
    cors = CORS(origins=["https://app.example"])
    page = [("Origin", "https://app.example"), ("Sec-Fetch-Site", "cross-site")]
    assert Asked(auth(), [("Host", "localhost:3456"), *page], "chat", "POST", cors).error is None
    assert Asked(auth(), [("Host", "evil.example"), *page], "chat", "POST", cors).error is not None
    other = [("Host", "localhost:3456"), ("Origin", "https://evil.example")]
    assert Asked(auth(), other, "chat", "POST", cors).error is not None


def test_mode_off_checks_nothing() -> None:
    pairs = [("Host", "gw.example"), ("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")]
    assert Asked(auth("off"), pairs).principal is ANONYMOUS
