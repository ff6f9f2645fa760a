"""Every provider's error gets one class and one fault, and keeps the provider's words without its secrets."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.errors import UpstreamError, UpstreamProtocolError, UpstreamRefused, UpstreamTimeout, can_fall_back, can_retry
from gw.message import Headers
from gw.provider_errors import from_answer, from_object, quote, retry_after, scrub
from gw.retry_after import duration
from gw.secret import Secret
from tests.recordings import Case, cases

RECORDED = [
    case
    for dialect in ("openai-chat", "anthropic-messages", "gemini", "openai-responses", "embeddings", "ollama-chat")
    for case in cases(dialect)
    if case.is_error
]


def headers(**fields: str) -> Headers:
    return Headers([(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()])


def failed(status: int, body: Any, **fields: str) -> UpstreamError:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return from_answer(status, headers(**fields), content, backend="b", now=0.0)


def error(message: str = "boom", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


@pytest.mark.parametrize("case", RECORDED, ids=repr)
def test_a_recorded_error_keeps_the_words_of_the_provider(case: Case) -> None:
    found = from_answer(case.status, case.headers, case.body, backend="b")
    assert case.expect["message_contains"] in found.message
    assert found.upstream_status == case.status
    assert found.status < 500 or found.fault == "dead_key"


@pytest.mark.parametrize(
    ("status", "body", "fault", "answered", "code"),
    [
        (400, error(type="invalid_request_error", code="invalid_value"), "refused", 400, "invalid_value"),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "boom"}]}, "refused", 422, None),
        (404, error(code="model_not_found"), "refused", 404, "model_not_found"),
        (404, error("boom: model x not found"), "refused", 404, "model_not_found"),
        (413, error(), "refused", 413, None),
        (400, {"object": "error", "message": "boom", "code": 400, "type": "BadRequestError"}, "refused", 400, None),
        (
            400,
            {"message": "boom", "type": "x", "param": "n", "code": "wrong_api_format"},
            "refused",
            400,
            "wrong_api_format",
        ),
        (400, {"code": "Client specified an invalid argument", "error": "boom"}, "refused", 400, None),
        (404, {"error": "model 'boom' not found"}, "refused", 404, "model_not_found"),
        (401, {"detail": "boom"}, "dead_key", 502, "upstream_auth_error"),
        (401, error(code="401"), "dead_key", 502, "upstream_auth_error"),
        (403, error(), "dead_key", 502, "upstream_auth_error"),
        (400, error(details=[{"reason": "API_KEY_INVALID"}]), "dead_key", 502, "upstream_auth_error"),
        (402, error(), "quota", 429, "insufficient_quota"),
        (429, error(code="insufficient_quota"), "quota", 429, "insufficient_quota"),
        (429, error("boom: You exceeded your current quota"), "quota", 429, "insufficient_quota"),
        (400, error("boom: Your credit balance is too low"), "quota", 429, "insufficient_quota"),
        (
            429,
            error("boom: You exceeded your current quota. Please retry in 9s"),
            "rate_limit",
            429,
            "rate_limit_exceeded",
        ),
        (429, error(type="rate_limit_error"), "rate_limit", 429, "rate_limit_exceeded"),
        (429, b"slow down, boom", "rate_limit", 429, "rate_limit_exceeded"),
        (429, b"<html>boom</html>", "rate_limit", 429, "rate_limit_exceeded"),
        (413, error("boom: tokens per minute", code="rate_limit_exceeded"), "rate_limit", 429, "rate_limit_exceeded"),
        (503, error(), "overload", 502, "upstream_error"),
        (529, error(type="overloaded_error"), "overload", 502, "upstream_error"),
        (500, error(), "server", 502, "upstream_error"),
        (502, b"<html><title>boom</title></html>", "server", 502, "upstream_error"),
        (409, error(), "server", 502, "upstream_error"),
        (408, error(), "timeout", 504, "upstream_timeout"),
        (524, error(), "timeout", 504, "upstream_timeout"),
        (400, error("boom: maximum context length is 5 tokens"), "context_length", 400, "context_length_exceeded"),
        (
            400,
            error("boom: prompt is too long: 9 tokens > 5 maximum"),
            "context_length",
            400,
            "context_length_exceeded",
        ),
        (400, error(type="exceed_context_size_error", code=400), "context_length", 400, "context_length_exceeded"),
        (500, error("boom: available context size exceeded"), "context_length", 400, "context_length_exceeded"),
        (400, error(code="content_filter"), "content_filter", 400, "content_policy_violation"),
        (
            400,
            error(innererror={"code": "ResponsibleAIPolicyViolation"}),
            "content_filter",
            400,
            "content_policy_violation",
        ),
        (403, error("boom: your input was flagged"), "content_filter", 400, "content_policy_violation"),
        (404, b"<html>boom</html>", "protocol", 502, "upstream_protocol_error"),
        (404, b"404 boom not found", "protocol", 502, "upstream_protocol_error"),
        (400, b"<html>boom</html>", "protocol", 502, "upstream_protocol_error"),
        (302, b"boom", "protocol", 502, "upstream_protocol_error"),
        (400, b"boom", "refused", 400, None),
    ],
)
def test_a_failure_is_judged_by_whose_fault_it_is(
    status: int, body: Any, fault: str, answered: int, code: str | None
) -> None:
    found = failed(status, body)
    assert (found.fault, found.status, found.code) == (fault, answered, code)
    assert "boom" in found.message
    assert found.upstream_status == status
    assert found.body()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "content", [b"", b"   ", b"{}", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"error":{}}', b'{"error":']
)
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_error_without_words_is_still_an_error(status: int, content: bytes) -> None:
    found = failed(status, content)
    assert found.message
    assert found.status >= 400


def test_the_class_says_the_same_as_the_fault() -> None:
    assert isinstance(failed(400, error()), UpstreamRefused)
    assert isinstance(failed(504, error()), UpstreamTimeout)
    assert isinstance(failed(404, b"<p>"), UpstreamProtocolError)


def test_a_refused_request_keeps_type_code_param_and_words() -> None:
    came = error("Invalid 'messages[3]'.", type="invalid_request_error", param="messages[3]", code="invalid_value")
    assert failed(400, came).body() == came
    assert failed(400, error(type="INVALID_ARGUMENT")).type == "invalid_request_error"


def test_only_faults_of_the_provider_go_to_another_backend() -> None:
    assert not can_fall_back(failed(400, error()))
    assert not can_fall_back(failed(404, error(code="model_not_found")))
    assert can_fall_back(failed(401, error()))
    assert not can_retry(failed(401, error()))
    assert can_fall_back(failed(402, error()))
    assert not can_retry(failed(402, error()))
    assert can_retry(failed(529, error()))


def test_the_provider_behind_openrouter_is_heard() -> None:
    raw = orjson.dumps(error("prompt is too long: 9 > 5", type="invalid_request_error")).decode()
    found = failed(400, error("Provider returned error", code=400, metadata={"provider_name": "Acme", "raw": raw}))
    assert found.message == "Provider returned error: Acme: prompt is too long: 9 > 5"
    assert found.fault == "context_length"
    assert "plain words" in failed(502, error("Provider returned error", metadata={"raw": "plain words"})).message


@pytest.mark.parametrize(
    ("value", "fault", "status"),
    [
        ({"error": {"message": "boom", "code": 503, "status": "UNAVAILABLE"}}, "overload", 503),
        ({"error": {"message": "boom", "type": "overloaded_error"}}, "overload", 529),
        ({"error": {"message": "boom", "type": "api_error"}}, "server", 500),
        ({"error": {"message": "boom", "type": "invalid_request_error"}}, "refused", 400),
        ({"error": {"message": "boom", "status_code": 400, "code": "tool_use_failed"}}, "refused", 400),
        ({"error": {"message": "boom", "code": "429"}}, "rate_limit", 429),
        ({"error": "boom"}, "server", None),
        ({"message": "boom", "type": "timeout_error"}, "timeout", 504),
        ("boom", "server", None),
        ({"what": "boom"}, "server", None),
    ],
)
def test_an_error_inside_an_answer_finds_its_status_itself(value: Any, fault: str, status: int | None) -> None:
    found = from_object(value, backend="b")
    assert (found.fault, found.upstream_status) == (fault, status)
    assert "boom" in found.message


_words = st.sampled_from(
    [
        "error",
        "message",
        "type",
        "code",
        "param",
        "status",
        "status_code",
        "details",
        "metadata",
        "raw",
        "provider_name",
        "innererror",
        "reason",
        "retryDelay",
        "detail",
        "msg",
        "loc",
        "choices",
        "error_type",
        "object",
    ]
)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 600)
    | st.text(max_size=5)
    | _words
    | st.sampled_from(["429", "²", '{"error":1}']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=12,
)


@given(status=st.integers(300, 599), value=_values)
def test_no_shape_of_an_error_is_too_odd(status: int, value: Any) -> None:
    found = failed(status, value)
    assert 400 <= found.status < 600
    assert found.message
    assert isinstance(found.code, str | None)
    assert from_object(value, backend="b").message


# --- how long to wait -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text", "seconds"),
    [
        ({"retry_after": "7"}, "", 7.0),
        ({"retry_after": "1", "retry_after_ms": "0"}, "", 1.0),
        ({"retry_after": "9", "retry_after_ms": "1500"}, "", 1.5),
        ({"retry_after_ms": "0"}, "", 0.0),
        ({"retry_after": "Thu, 01 Jan 1970 00:01:00 GMT"}, "", 60.0),
        ({"retry_after": "Thu, 01 Jan 1970 00:01:00 GMT", "date": "Thu, 01 Jan 1970 00:00:50 GMT"}, "", 10.0),
        ({"retry_after": "Wed, 31 Dec 1969 00:00:00 GMT"}, "", 0.0),
        ({"retry_after": "99999999"}, "", 86_400.0),
        ({"retry_after": "soon"}, "", None),
        ({"retry_after": "-3"}, "", None),
        ({}, "Please retry in 48.9s", 48.9),
        ({}, "Rate limit reached. Please try again in 1m2.5s. Visit", 62.5),
        ({}, "Please try again in 20ms.", 0.02),
        ({}, "try again in 6 minutes", 360.0),
        ({"x_ratelimit_reset_requests": "2ms", "x_ratelimit_remaining_requests": "5"}, "", None),
        ({"x_ratelimit_reset_tokens": "1h3m", "x_ratelimit_remaining_tokens": "0"}, "", 3780.0),
        ({"x_ratelimit_reset": "30000"}, "", 30000.0),
        ({"x_ratelimit_reset": "1700000030000"}, "", 86_400.0),
        ({"anthropic_ratelimit_requests_reset": "1970-01-01T00:00:30Z"}, "", 30.0),
        ({"retry_after": "3", "x_ratelimit_reset": "99"}, "retry in 5s", 3.0),
        ({}, "", None),
    ],
)
def test_the_wait_is_read_in_every_spelling(fields: dict[str, str], text: str, seconds: float | None) -> None:
    assert retry_after(headers(**fields), text, now=0.0) == seconds


def test_googles_delay_is_read_from_its_details() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}]
    found = failed(429, [error(status="RESOURCE_EXHAUSTED", code=429, details=details)])
    assert (found.fault, found.retry_after) == ("rate_limit", 34.4)


def test_a_wait_belongs_to_failures_that_pass() -> None:
    assert failed(503, error(), retry_after="4").retry_after == 4.0
    assert failed(400, error(), retry_after="4").retry_after is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("2ms", 0.002), ("7.66s", 7.66), ("6m0s", 360.0), ("1_0", None), ("٣", None)]
)
def test_durations_are_read_as_providers_write_them(text: str, seconds: float | None) -> None:
    assert duration(text) == seconds


# --- what is shown ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "leak",
    [
        "sk-proj-abcDEF1234567890",
        "gsk_abc123def456",
        "AIzaSyA1234567890abcdefg",
        "Bearer abcdefghijklmnop1234",
        "https://x.example/v1?key=abcdef123",
        "ya29.a0AfH6SMBx-123",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "postgres://user:hunter2@db.example/x",
        "http://10.0.0.7:8080/internal/path",
        "http://llm.cluster.svc:80/x",
        "the-configured-key",
    ],
)
def test_no_key_and_no_internal_address_is_shown(leak: str) -> None:
    known = [Secret("the-configured-key")]
    shown = scrub(f"before {leak} after", known)
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    secret = leak.removeprefix("Bearer ").partition("key=")[2] or leak.removeprefix("Bearer ")
    assert secret not in shown
    assert "hunter2" not in shown
    found = from_answer(400, headers(), orjson.dumps(error(f"before {leak} after")), backend="b", secrets=known)
    assert secret not in found.message


def test_ordinary_words_are_left_as_they_are() -> None:
    text = "The model `gpt-4` at https://platform.openai.com/docs takes key-value pairs: max_tokens, sk-learn, hf_hub"
    assert scrub(text) == text


def test_a_quote_is_short_and_of_one_line() -> None:
    page = b"<html><style>p{}</style><body>\n<h1>502</h1> Bad\tGateway" + b" x" * 5000 + b"</body></html>"
    shown = quote(page)
    assert shown.startswith('a web page "502 Bad Gateway x')
    assert len(shown) < 250
    assert quote(b" \n") == "an empty body"
    assert "\x1b" not in quote(b"\x1b[31mred")


def test_a_huge_error_body_is_not_parsed() -> None:
    found = failed(500, b'{"error":{"message":"' + b"x" * 2_000_000 + b'"}}')
    assert (found.fault, found.status) == ("server", 502)
    assert len(found.message) < 400


def test_a_long_message_is_cut_and_not_lost() -> None:
    message = failed(400, error("y" * 10_000)).message
    assert 160 <= len(message) <= 2000
