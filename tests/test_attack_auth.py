"""Whoever has no key gets one constant answer, whatever else they send; where nobody has one, web pages get nothing."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from gw.errors import ConfigError
from gw.gateway import GatewayServer
from tests.attack_world import KEY, World, chat, get, post, world

CI = "attack-ci-key-98f13708"
OLD = "attack-old-key-3c59dc04"
UMLAUT = "schlüssel-äöü-7216"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    keys = {
        "ci": {"token_env": "CI_KEY", "models": ["m", "gpt-4"], "backends": ["a"]},
        "old": {"token_env": "OLD_KEY", "expires": "2020-01-31"},
        "umlaut": {"token_env": "UMLAUT_KEY"},
    }
    environ = {"CI_KEY": CI, "OLD_KEY": OLD, "UMLAUT_KEY": UMLAUT}
    folder = tmp_path_factory.mktemp("auth")
    with world(
        folder, environ=environ, backends=lambda url: {"b": {"adapter": "echo"}}, middleware={"auth": {"keys": keys}}
    ) as attacked:
        yield attacked


# --- no key ------------------------------------------------------------------------------------------------------

HEX = KEY.encode().hex()
NO_KEY: list[list[str]] = [
    [],
    *([f"Authorization: {value}"] for value in (
        "", "Bearer", "Bearer ", "Bearer  ", "bearer", KEY, f"Basic {KEY}", f"Digest {KEY}", f"Token {KEY}",
        f"ApiKey {KEY}", f"Bearer{KEY}",
        f"Bearer\t{KEY}", f"Bearer:{KEY}", f"Bearer={KEY}", f"Bearer: {KEY}", f"Bearer, {KEY}", f'Bearer "{KEY}"',
        f"Bearer '{KEY}'", f"Bearer <{KEY}>",
        f"Bearer {KEY}x", f"Bearer x{KEY}", f"Bearer {KEY[:-1]}", f"Bearer {KEY[1:]}", f"Bearer {KEY.upper()}",
        f"Bearer {KEY} {KEY}", f"Bearer {KEY},",
        f"Bearer {KEY},{KEY}", f"Bearer {KEY};", f"Bearer {KEY}%00", f"Bearer {KEY}%20", f"Bearer {HEX}", "Bearer *",
        "Bearer %", "Bearer null",
        "Bearer undefined", "Bearer None", "Bearer true", "Bearer 0", "Bearer []", "Bearer {}", "Bearer not-needed",
        "Bearer anonymous", "Bearer default",
        "Bearer ci", f"Bearer {OLD}", "Bearer ' OR '1'='1", "Bearer ' OR 1=1 --", 'Bearer " OR ""="',
        "Bearer x'; DROP TABLE requests; --",
        "Bearer {{7*7}}", "Bearer ${jndi:ldap://x/a}", "Bearer ../../etc/passwd", "Bearer " + "x" * 4000,
        "Bearer " + "é" * 50, "Bearer \xff\xfe\x80",
        "Bearer \xa0" + KEY, f"Bearer {KEY}\xa0", f"Basic {KEY}:", f"Negotiate {KEY}", f"Bearer Bearer {KEY}",
        f"Key {KEY}", f"OAuth {KEY}",
    )),
    *([f"{name}: {value}"] for name in ("X-API-Key", "Api-Key") for value in ("", " ", "x", f"{KEY}x", KEY[:-1],
    f"Bearer {KEY}", "é" * 10, OLD, "null", f"{KEY},{KEY}")),
    *([f"{name}: {KEY}"] for name in (
        "X-Api-Token", "X-Auth-Token", "Token", "Key", "Cookie", "Proxy-Authorization", "X-Authorization",
        "Authentication", "X-Forwarded-Authorization",
        "X-Goog-Api-Key", "OpenAI-Api-Key", "Authorization_", "X_API_Key", "X-Remote-User", "Sec-WebSocket-Protocol",
        "Referer", "User-Agent", "From",
    )),
    ["Proxy-Authorization: Bearer " + KEY],
    ["Cookie: Authorization=Bearer " + KEY],
    ["X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1"],
    ["X-Original-URL: /health", "X-Rewrite-URL: /health"],
    ["X-HTTP-Method-Override: OPTIONS"],
    ["X-Forwarded-User: default", "X-Remote-User: default", "X-Gateway-Key: default", "X-Gateway-Principal: default"],
    ["Authorization: Bearer wrong", f"X-API-Key: {KEY}"],
    ["X-API-Key: wrong", f"Api-Key: {KEY}"],
    # Of several fields one would be taken here and another one by whoever stands before: nobody is meant.
    ["Authorization: Bearer wrong", f"Authorization: Bearer {KEY}"],
    [f"Authorization: Bearer {KEY}", "Authorization: Bearer wrong"],
    [f"Authorization: Bearer {KEY}", f"Authorization: Bearer {KEY}"],
    ["Authorization: Basic eDp5", f"Authorization: Bearer {KEY}"],
    [f"X-API-Key: {KEY}", "X-API-Key: wrong"],
    ["X-API-Key: wrong", f"X-API-Key: {KEY}"],
    [f"Api-Key: {KEY}", "Api-Key: wrong"],
]  # fmt: skip
TEXTS: set[bytes] = set()


@pytest.mark.parametrize("lines", NO_KEY, ids=lambda lines: " + ".join(lines)[:60].encode("ascii", "replace").decode())
def test_what_is_no_key_is_one_constant_401(attacked: World, lines: list[str]) -> None:
    before = len(attacked.reached)
    answer = attacked.attack(post(chat(), *lines, key=None), [401], kept=True)[0]
    assert answer.code == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    TEXTS.add(answer.body)
    assert len(TEXTS) == 1
    assert len(attacked.reached) == before


HOLDERS: list[tuple[list[str], str]] = [
    ([f"Authorization: Bearer {KEY}"], "default"),
    ([f"authorization: bearer   {KEY}  "], "default"),
    ([f"X-API-Key: {KEY}"], "default"),
    ([f"api-key: {CI}"], "ci"),
    ([f"Authorization: Bearer {CI}"], "ci"),
    ([f"Authorization: Bearer {CI}", f"X-API-Key: {KEY}"], "ci"),
    (["Authorization: Basic eDp5", f"X-API-Key: {KEY}"], "default"),
]


@pytest.mark.parametrize(("lines", "name"), HOLDERS, ids=lambda value: str(value)[:50])
def test_a_key_is_taken_where_clients_put_it(attacked: World, lines: list[str], name: str) -> None:
    answer = attacked.attack(post(chat(), *lines, key=None, path="/route"), [200], kept=True)[0]
    assert orjson.loads(answer.body)["key"] == name


def test_a_key_beyond_ascii_is_compared_as_its_bytes(attacked: World) -> None:
    for line, status in ((f"X-API-Key: {UMLAUT}", 200), (f"X-API-Key: {UMLAUT[:-1]}", 401)):
        data = post(chat(), key=None, path="/route").replace(b"\r\n\r\n", b"\r\n" + line.encode() + b"\r\n\r\n", 1)
        attacked.attack(data, [status], kept=True)


@pytest.mark.parametrize(
    "query", [f"key={KEY}", f"api_key={KEY}", f"token={KEY}", f"access_token={KEY}", f"authorization=Bearer%20{KEY}"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/health/../metrics"])
def test_a_key_in_the_url_is_none(attacked: World, path: str, query: str) -> None:
    attacked.attack(get(f"{path}?{query}", key=None), [401], kept=True)


def test_a_key_in_a_trailer_is_none(attacked: World) -> None:
    for name in ("Authorization: Bearer ", "X-API-Key: ", "Api-Key: "):
        body = chat()
        data = post(b"", "Transfer-Encoding: chunked", "Trailer: Authorization", length=False, key=None)
        data += b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, f"{name}{KEY}".encode())
        attacked.attack(data, [401], kept=True)


def test_a_key_in_the_body_is_none(attacked: World) -> None:
    for name in ("api_key", "key", "authorization", "Authorization", "token", "user"):
        attacked.attack(post(chat(**{name: KEY}), key=None), [401], kept=True)


# --- what a key does not open ------------------------------------------------------------------------------------

BEYOND: list[tuple[bytes, int, str]] = [
    (chat(model="other"), 404, "model_not_found"),
    (chat(model="b/m"), 403, "forbidden_backend"),
    (chat(model="a/other"), 404, "model_not_found"),
    (chat(backend="b"), 403, "forbidden_backend"),
    (chat(models=["other"]), 403, "forbidden_backend"),  # OpenRouter would fall back on these
    (chat(models=["m", "other"]), 403, "forbidden_backend"),
    (chat(models="other"), 403, "forbidden_backend"),
    (chat(models=[{"model": "other"}]), 403, "forbidden_backend"),
    (chat(model="M"), 404, "model_not_found"),
    (chat(model="m "), 404, "model_not_found"),
    (b'{"model":"m","model":"other","messages":[{"role":"user","content":"x"}]}', 404, "model_not_found"),
    (b'{"mod\\u0065l":"other","messages":[{"role":"user","content":"x"}]}', 404, "model_not_found"),
    (b'{"model":"m","Model":"other","messages":[{"role":"user","content":"x"}]}', 400, "invalid_value"),
]


@pytest.mark.parametrize(("body", "status", "code"), BEYOND, ids=lambda value: repr(value)[:40])
def test_a_key_opens_only_what_it_names(attacked: World, body: bytes, status: int, code: str) -> None:
    before = len(attacked.reached)
    found = attacked.ask(post(body, key=CI))
    assert found.status in (status, 403), found
    if found.status != 403:
        assert found.code == code
    assert len(attacked.reached) == before


def test_a_key_sees_only_the_models_that_it_may_use(attacked: World) -> None:
    everything = {entry["id"] for entry in orjson.loads(attacked.ask(get("/v1/models"), "GET").body)["data"]}
    own = {entry["id"] for entry in orjson.loads(attacked.ask(get("/v1/models", key=CI), "GET").body)["data"]}
    assert own <= {"m", "gpt-4"}
    assert own < everything
    for name in everything - own:
        assert attacked.ask(get(f"/v1/models/{name}", key=CI), "GET").status == 404


def test_a_key_that_the_url_names_a_foreign_backend_for_is_refused(attacked: World) -> None:
    for path in ("/v1/b/chat/completions", "/v1/%62/chat/completions"):
        assert attacked.ask(post(chat(), key=CI, path=path)).status == 403
    assert attacked.ask(post(chat(), key=CI, path="/v1/nobody/chat/completions")).status == 404


# --- web pages ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway without a key: for programs on this machine."""
    with world(tmp_path_factory.mktemp("open"), environ={"API_AUTH_TOKEN": ""}) as attacked:
        yield attacked


PATHS = ("/v1/models", "/metrics", "/health", "/queue/status", "/nothing")
FOREIGN_HOSTS = (
    "evil.example", "evil.example:3456", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost",
    "localhost.", "xlocalhost",
    "192.168.0.1", "10.0.0.1", "0.0.0.0", "169.254.169.254", "127.0.0.1.", "127.1", "0x7f000001", "2130706433",
    "017700000001", "[::]", "[::ffff:10.0.0.1]",
    "[fe80::1]", "127.0.0.256", "localhost_x", "1.127.0.0.1",
)  # fmt: skip
SERVED_ANYWAY = {"localhost."}  # a name with its root dot is the same name


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_name_made_to_point_here_gets_nothing(open_gateway: World, host: str) -> None:
    status = 200 if host in SERVED_ANYWAY else 403
    before = len(open_gateway.reached)
    for path in PATHS:
        found = open_gateway.ask(get(path, key=None, host=host), "GET")
        assert found.status == (status if path != "/nothing" or status == 403 else 404), (path, found)
    data = post(chat(), key=None).replace(b"Host: localhost", b"Host: " + host.encode())
    assert open_gateway.ask(data).status == status
    absolute = post(chat(), key=None, path=f"http://{host}/v1/chat/completions")
    assert open_gateway.ask(absolute).status == status
    assert len(open_gateway.reached) == before + 2 * (status == 200)


FOREIGN: list[list[str]] = [
    *([f"Origin: {origin}"] for origin in (
        "https://evil.example", "null", "http://127.0.0.1.evil.example", "http://localhost.evil.example",
        "http://localhost:1", "https://localhost:1",
        "file://", "chrome-extension://abc", "http://evil.example:80", "http://localhost@evil.example",
        "http://127.0.0.1:1", "http://[::1]:1", "x", "http://",
        "http://localhost, https://evil.example", "ftp://localhost", "javascript:localhost", "http://localhost/",
        "http://localhost#x",
    )),
    ["Sec-Fetch-Site: cross-site"],
    ["Sec-Fetch-Site: CROSS-SITE "],
    ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"],
    ["Origin: http://localhost", "Origin: https://evil.example"],
]  # fmt: skip


@pytest.mark.parametrize("lines", FOREIGN, ids=str)
def test_a_page_of_another_origin_gets_nothing_and_no_permission(open_gateway: World, lines: list[str]) -> None:
    before = len(open_gateway.reached)
    for data in (post(chat(), *lines, key=None), *(get(path, *lines, key=None) for path in PATHS)):
        found = open_gateway.ask(data)
        assert (found.status, found.code) == (403, "forbidden_origin")
        assert not any(name.startswith("access-control") for name in found.headers)
    preflight = get("/v1/chat/completions", *lines, "Access-Control-Request-Method: POST", method="OPTIONS", key=None)
    assert open_gateway.ask(preflight).status == 403
    assert len(open_gateway.reached) == before


@pytest.mark.parametrize("line", ["Origin: http://localhost", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"])
def test_what_the_user_does_himself_is_served(open_gateway: World, line: str) -> None:
    assert open_gateway.ask(post(chat(), line, key=None)).status == 200


def test_every_origin_with_credentials_is_refused_before_the_start() -> None:
    cors = {"middleware": {"cors": {"origins": ["*"], "credentials": True}}}
    with pytest.raises(ConfigError, match="credentials"):
        GatewayServer({"server": {"port": 0}, **cors}, environ={})
