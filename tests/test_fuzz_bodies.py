"""Any JSON at all, for every adapter: a clear 4xx or a request that can be sent, and nothing of it leaves its place.

`GW_FUZZ_EXAMPLES` sets how many bodies are tried; the default takes a few seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gw import chat_checks
from gw.errors import InvalidRequest
from gw.schema import decode_chat
from tests.chat_bodies import RIGHT
from tests.running import running

EXAMPLES = int(os.environ.get("GW_FUZZ_EXAMPLES", "40"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

# One backend for each way of writing a request, and the only addresses that they may ever name.
BACKENDS: dict[str, dict[str, Any]] = {
    "generic": {"adapter": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"},
    "openai": {"adapter": "openai", "base_url": "http://127.0.0.1:9/v1", "dialect": "openai", "model": "gpt-5"},
    "azure": {"adapter": "openai", "base_url": "http://127.0.0.1:9", "dialect": "azure", "model": "m"},
    "groq": {"adapter": "openai", "base_url": "http://127.0.0.1:9/v1", "dialect": "groq", "model": "m"},
    "mistral": {"adapter": "openai", "base_url": "http://127.0.0.1:9/v1", "dialect": "mistral", "model": "m"},
    "deepseek": {"adapter": "openai", "base_url": "http://127.0.0.1:9/v1", "dialect": "deepseek", "model": "m"},
    "openrouter": {"adapter": "openrouter", "base_url": "http://127.0.0.1:9/v1", "api_key": "k-or-0001"},
    "anthropic": {"adapter": "anthropic", "base_url": "http://127.0.0.1:9/v1", "api_key": "k-an-0001"},
    "gemini": {"adapter": "gemini", "base_url": "http://127.0.0.1:9/v1beta", "api_key": "k-ge-0001"},
    "ollama": {"adapter": "ollama", "base_url": "http://127.0.0.1:9"},
    "echo": {"adapter": "echo"},
}
URLS = re.compile(
    r"http://127\.0\.0\.1:9(/v1/chat/completions|/v1/messages|/api/chat"
    r"|/openai/deployments/[^/?#\s]+/chat/completions(\?api-version=[\w-]+)?|/openai/v1/chat/completions|/chat/completions"
    r"|/v1beta/(models|tunedModels)/[^/?#\s]+:(generateContent|streamGenerateContent\?alt=sse))"
)


class Gateway:
    """A connection to a gateway in this process."""

    def __init__(self, port: int) -> None:
        # A machine may be busy for long; what counts as a hang is the time that this process spends.
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def close(self) -> None:
        self._client.close()

    def ask(self, path: str, body: bytes) -> tuple[int, Any]:
        """The answer to a POST: its status, and its JSON where it is no stream."""
        began = time.process_time()
        self._client.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._client.getresponse()
        content = answer.read()
        assert time.process_time() - began < 2, "a hang"
        return answer.status, None if answer.headers["content-type"][:4] == "text" else orjson.loads(content)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    tables: dict[str, Any] = {"rate_limit": {"enabled": False}, "log": {"enabled": False}}
    with running() as gw:
        gw.start({"server": {"port": 0, "log_level": "error"}, "backends": BACKENDS, "middleware": tables})
        with closing(Gateway(gw.gateway.port)) as gateway:
            yield gateway


def judge(gateway: Gateway, body: bytes) -> bool:
    """The body is refused as the client's error (False), or becomes a request that may be sent."""
    status, page = gateway.ask("/route", body)
    assert status in (200, 400, 403, 404), page
    if status != 200:
        error = page["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] in ("invalid_json", "invalid_value", "unsupported_parameter", "backend_not_found"), error
        return False
    wire = page.get("request")
    if wire is None:
        assert page["status"] in (400, 403, 404, 503), page
    elif "error" in wire:
        assert 400 <= wire["status"] < 500, wire
        assert wire["error"]["message"]
    elif "url" in wire:
        assert URLS.fullmatch(wire["url"]), wire["url"]
        for name, value in wire["headers"].items():
            assert re.fullmatch(r"[\x20-\x7e]*", value), (name, value)
        assert isinstance(wire["body"], dict | str)
    return True


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 200),
    st.integers(),
    st.sampled_from([2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30, 0.0, -0.0, 1e308, 5e-324, 1.5]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        (
            *("", "\0", "a\r\nX-Evil: 1", "../../x", "/etc/passwd", "-p", "--help", "http://127.0.0.1:9/", "file:///x"),
            *("data:image/png;base64,AAAA", "data:image/png;base64,@", "data:,x", "data:", "{}", "[]", "null", "{"),
            *(
                "%0d%0a",
                "${x}",
                "{{x}}",
                "' OR 1=1 --",
                "<script>",
                "a" * 600,
                "os:system",
                "./x.py:X",
                "\u2028",
                "\x7f",
            ),
            "é模\U0001f600",
        )
    ),
)
NAMES = st.sampled_from(
    """type text role content name function id tool_calls arguments image_url url file file_data file_id
    filename input_audio data format detail parameters description strict schema json_schema properties items
    enum anyOf allOf oneOf $ref $defs required additionalProperties title default pattern const minimum
    nullable definitions custom input tool_call_id refusal cache_control reasoning_content reasoning_details
    thinking signature index mode tools betas system effort max_tokens enabled extra_content google
    thought_signature video_url annotations api_base""".split()  # noqa: SIM905
)
WORDS = st.sampled_from(
    """function custom text image_url file input_audio user assistant tool system developer auto none required
    object array string integer number boolean json_schema json_object high low ephemeral thinking
    redacted_thinking refusal reasoning.text reasoning.encrypted #/$defs/a #/definitions/x #""".split()  # noqa: SIM905
)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=5),
    max_leaves=14,
)
PARTS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image_url", "file", "input_audio", "refusal", "thinking", "video_url"])},
        optional={
            "text": VALUES,
            "image_url": VALUES | st.fixed_dictionaries({"url": SCALARS}),
            "file": VALUES
            | st.fixed_dictionaries({}, optional={"file_data": SCALARS, "file_id": SCALARS, "filename": SCALARS}),
            "input_audio": VALUES | st.fixed_dictionaries({"data": SCALARS, "format": SCALARS}),
            "refusal": VALUES,
            "thinking": VALUES,
            "video_url": VALUES,
            "cache_control": VALUES,
        },
    ),
)
CALLS = VALUES | st.lists(
    st.fixed_dictionaries(
        {"id": SCALARS, "type": WORDS, "function": st.fixed_dictionaries({"name": SCALARS, "arguments": SCALARS})},
        optional={"index": VALUES, "extra_content": VALUES},
    ),
    max_size=2,
)
MESSAGES = st.one_of(
    VALUES,
    st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])},
            optional={
                "content": VALUES | st.lists(PARTS, max_size=3) | st.text(max_size=5),
                "name": VALUES,
                "tool_calls": CALLS,
                "tool_call_id": VALUES,
                "function_call": VALUES,
                "refusal": VALUES,
                "audio": VALUES,
                "reasoning": VALUES,
                "reasoning_content": VALUES,
                "reasoning_details": VALUES | st.lists(VALUES, max_size=2),
                "annotations": VALUES,
                "images": VALUES,
            },
        ),
        min_size=1,
        max_size=4,
    ),
)
GOOD = [{"role": "user", "content": "Hi"}]
TOOLS = st.lists(
    st.fixed_dictionaries(
        {
            "type": WORDS,
            "function": st.fixed_dictionaries({"name": SCALARS}, optional={"parameters": VALUES, "strict": VALUES}),
        }
    ),
    max_size=2,
)
FIELDS = sorted(chat_checks._FIELDS)
OTHERS = [
    "anthropic",
    "gemini",
    "ollama",
    "google",
    "extra_body",
    "provider",
    "models",
    "route",
    "thinking",
    "plugins",
    "api_base",
    "think",
    "options",
]
STRANGE = st.builds(
    lambda messages, fields, tools: {"messages": messages, **fields, **tools},
    st.just(GOOD) | MESSAGES,
    st.dictionaries(
        st.sampled_from([name for name in FIELDS + OTHERS if name != "messages"]) | st.text(max_size=5),
        VALUES,
        max_size=4,
    ),
    st.fixed_dictionaries({}, optional={"tools": TOOLS | VALUES, "model": SCALARS}),
)


def changed(value: Any, path: list[int], new: Any) -> Any:
    """A copy of JSON with the value at a place replaced; the path is followed as far as there is a way."""
    if path and isinstance(value, dict) and value:
        name = list(value)[path[0] % len(value)]
        return {**value, name: changed(value[name], path[1:], new)}
    if path and isinstance(value, list) and value:
        at = path[0] % len(value)
        return [*value[:at], changed(value[at], path[1:], new), *value[at + 1 :]]
    return new


def spoilt(bodies: list[dict[str, Any]], changes: list[tuple[list[int], Any]]) -> dict[str, Any]:
    """Right requests laid over each other, and a few of their values changed."""
    body: Any = {name: value for each in bodies for name, value in each.items() if name != "backend"}
    for path, new in changes:
        body = changed(body, path, new)
    return dict(body)


PATHS = st.lists(st.integers(0, 20), min_size=1, max_size=7)
BODIES = STRANGE | st.builds(
    spoilt,
    st.lists(st.sampled_from(RIGHT), min_size=1, max_size=3),
    st.lists(st.tuples(PATHS, SCALARS | VALUES), max_size=2),
)


@FUZZ
@given(BODIES)
def test_any_json_is_refused_as_the_clients_error_or_can_be_sent_by_every_adapter(
    gateway: Gateway, body: dict[str, Any]
) -> None:
    if judge(gateway, json.dumps(body).encode()):
        for backend in BACKENDS:
            judge(gateway, json.dumps({**body, "backend": backend}).encode())


@FUZZ
@given(BODIES, st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=3)), max_size=4))
def test_any_bytes_that_were_json_are_refused_or_taken(
    gateway: Gateway, body: dict[str, Any], changes: list[tuple[int, bytes]]
) -> None:
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for where, piece in changes:
        at = where % (len(raw) + 1)
        raw = raw[:at] + piece + raw[at + len(piece) // 2 :]
    judge(gateway, raw)


# One field at a time, with every kind of value: what is refused is told by its name.
KINDS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**63, 2**64, -(2**70), 1.5, -0.0, 1e308, "", "x", "\0", "a\r\nb", "x" * 5000, [],
    [[]], [None],
    ["x"], [1], [{}], {}, {"a": 1}, {"type": "x"}, {"type": None}, {"": ""}, [[[]]], {"a": {"b": []}}, "true", "1",
    "null",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_any_kind_is_taken_or_refused_by_its_name(gateway: Gateway, field: str) -> None:
    for value in KINDS:
        body = json.dumps({"messages": GOOD, field: value}).encode()
        for path in ("/route", "/v1/echo/chat/completions"):
            status, page = gateway.ask(path, body)
            assert status in (200, 400, 403, 404, 503), (value, page)
            if status == 400:
                error = page["error"]
                assert error["param"] is not None, (value, error)
                assert error["param"].startswith(field) or path != "/route", (value, error)


@pytest.mark.parametrize("field", [*FIELDS, *OTHERS])
def test_no_adapter_stumbles_over_a_field(gateway: Gateway, field: str) -> None:
    for value in KINDS:
        with suppress(InvalidRequest):
            decode_chat(json.dumps({"messages": GOOD, field: value}).encode())
            for backend in BACKENDS:
                judge(gateway, json.dumps({"messages": GOOD, "backend": backend, field: value}).encode())
