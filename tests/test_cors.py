"""Browsers may use the gateway from the origins that are named, and from no other."""

from __future__ import annotations

import asyncio

import pytest

from gw.message import Headers, Request, Response
from gw.middleware.cors import CORS
from gw.pipeline import ALL, compose
from tests.lint import Lint

APP = "https://app.example"


def ask(
    cors: CORS, method: str = "POST", answer: Response | None = None, **headers: str
) -> tuple[Response, Request, int]:
    """The answer, the request, and how many requests went through. Underscores in names stand for dashes."""
    pairs = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    request = Request(method=method, path="/v1/chat/completions", headers=Headers(pairs))

    async def inner(request: Request) -> Response:
        return answer if answer is not None else Response(b"{}")

    outside, inside = Lint("outside", head_only=True), Lint("inside", head_only=True)

    async def send() -> Response:
        return await compose([outside, cors, inside], inner)(request)

    return asyncio.run(send()), request, inside.calls


def preflight(cors: CORS, origin: str = APP) -> tuple[Response, Request, int]:
    return ask(cors, "OPTIONS", Origin=origin, Access_Control_Request_Method="POST")


def test_it_decides_on_the_head_of_every_operation() -> None:
    assert CORS.head_only
    assert CORS.operations == ALL


def test_without_origins_nothing_is_answered_or_added() -> None:
    for response, request, calls in (ask(CORS(), Origin=APP), preflight(CORS())):
        assert response.headers == {}
        assert calls == 1
        assert "gw.origin_allowed" not in request.exchange.attributes


def test_a_preflight_of_a_listed_origin_is_answered_here() -> None:
    response, request, calls = preflight(CORS(origins=[APP], max_age=77))
    assert calls == 0
    assert response.status == 204
    assert response.content == b""
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert response.headers["Vary"] == "Origin"
    assert response.headers["Access-Control-Max-Age"] == "77"
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    for header in ("Authorization", "Content-Type", "X-Stainless-Lang", "X-API-Key"):
        assert header in response.headers["Access-Control-Allow-Headers"].split(", ")
    assert "Access-Control-Allow-Credentials" not in response.headers
    assert request.exchange.attributes["gw.origin_allowed"] is True


def test_what_pages_may_use_can_be_set() -> None:
    response, _, _ = preflight(CORS(origins=[APP], methods=["POST"], headers=["X-Mine"], credentials=True))
    assert response.headers["Access-Control-Allow-Methods"] == "POST"
    assert response.headers["Access-Control-Allow-Headers"] == "X-Mine"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"


@pytest.mark.parametrize("status", [200, 401, 429, 503])
def test_every_answer_to_a_listed_origin_can_be_read_errors_too(status: int) -> None:
    response, request, calls = ask(CORS(origins=[APP], credentials=True), answer=Response(status=status), Origin=APP)
    assert calls == 1
    assert response.status == status
    assert response.headers["Access-Control-Allow-Origin"] == APP
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert response.headers["Vary"] == "Origin"
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"X-Request-ID", "Retry-After", "X-RateLimit-Remaining", "X-Gateway-Backend"} <= set(exposed)
    assert request.exchange.attributes["gw.origin_allowed"] is True


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.evil.example",
        "https://app.example:8443",
        "http://app.example",
        "https://APP.example",
        "null",
        "",
        "https://app.example https://evil.example",
    ],
)
def test_another_origin_gets_no_permission_but_the_answer_varies(origin: str) -> None:
    cors = CORS(origins=[APP])
    for response, request, calls in (ask(cors, Origin=origin), preflight(cors, origin)):
        assert calls == 1
        assert response.headers == {"Vary": "Origin"}
        assert "gw.origin_allowed" not in request.exchange.attributes


def test_an_answer_without_an_origin_varies_too() -> None:
    response, _, _ = ask(CORS(origins=[APP]), answer=Response(headers={"Vary": "Accept"}))
    assert response.headers == {"Vary": "Accept, Origin"}


def test_a_star_is_for_every_page_and_names_none() -> None:
    cors = CORS(origins=["*"])
    response, request, _ = ask(cors, Origin="https://any.example")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Vary" not in response.headers
    assert request.exchange.attributes["gw.origin_allowed"] is True
    response, _, calls = preflight(cors, "https://any.example")
    assert calls == 0
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    response, request, _ = ask(cors)
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "gw.origin_allowed" not in request.exchange.attributes


def test_options_without_a_preflights_headers_is_no_preflight() -> None:
    response, _, calls = ask(CORS(origins=[APP]), "OPTIONS", Origin=APP)
    assert calls == 1
    assert response.status == 200
    _, _, calls = ask(CORS(origins=[APP]), "POST", Origin=APP, Access_Control_Request_Method="POST")
    assert calls == 1


def test_two_origins_name_nobody() -> None:
    request = Request(
        method="POST", path="/", headers=Headers([(b"origin", b"https://evil.example"), (b"origin", APP.encode())])
    )

    async def inner(request: Request) -> Response:
        return Response()

    response = asyncio.run(CORS(origins=[APP])(request, inner))
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "gw.origin_allowed" not in request.exchange.attributes


def test_nothing_of_a_request_comes_back_in_a_header() -> None:
    response, _, _ = ask(
        CORS(origins=["*"]),
        "OPTIONS",
        Origin="https://canary.example",
        Access_Control_Request_Method="CANARY",
        Access_Control_Request_Headers="X-Canary",
    )
    assert "canary" not in str(response.headers).lower()


def test_a_star_with_credentials_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match="set credentials = false"):
        CORS(origins=["*"], credentials=True)
    with pytest.raises(ValueError, match="name the origins"):
        CORS(origins=[APP, "*"], credentials=True)


@pytest.mark.parametrize(
    ("origin", "cure"),
    [
        ("https://app.example/", "'https://app.example'"),
        ("app.example", "'https://app.example'"),
        ("HTTP://App.example:8080/x", "'http://app.example:8080'"),
        ("null", "'https://app.example'"),
        ("https://*.app.example", "'https://app.example'"),
        ("", "'https://app.example'"),
        ("https://ä.example", "'https://app.example'"),
    ],
)
def test_what_no_browser_sends_as_an_origin_is_refused_with_the_cure(origin: str, cure: str) -> None:
    with pytest.raises(ValueError, match="is no origin") as caught:
        CORS(origins=[origin])
    assert cure in str(caught.value)


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "http://[::1]:80", "chrome-extension://abcdef", "tauri://localhost"]
)
def test_origins_of_apps_and_of_this_machine_can_be_named(origin: str) -> None:
    response, _, _ = ask(CORS(origins=[origin]), Origin=origin)
    assert response.headers["Access-Control-Allow-Origin"] == origin
