"""What a caller reads is judged as a strict client would: whole, one clean error, or broken and why."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from gw.adapters.faulty.dialects import ANSWER, TOKENS
from gw.cli.drill.reading import read
from tests.fakes import chunk, completion, sse

ERROR = {"error": {"message": "boom", "type": "api_error", "param": None, "code": "upstream_error"}}
HALF = "".join(TOKENS[:40])
BEGUN = [chunk({"role": "assistant", "content": ""}), chunk({"content": HALF})]
WHOLE = [*BEGUN, chunk({"content": ANSWER[len(HALF) :]}), chunk({}, "stop")]
CALL = chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]})


def stream(*values: Any, done: bool = True) -> Any:
    return judged(sse(*values, done=done), "text/event-stream", stream=True)


def judged(content: bytes, kind: str = "application/json", *, stream: bool = False, status: int = 200) -> Any:
    response = httpx.Response(status, headers={"content-type": kind})
    found = read(response, content, stream=stream)
    return found.kind, found.about, found.is_partial


def test_a_whole_answer_is_one_with_its_whole_text_and_its_one_end() -> None:
    assert stream(*WHOLE) == ("answer", "", False)
    assert judged(orjson.dumps(completion(ANSWER))) == ("answer", "", False)


def test_a_clean_error_is_openais_object_or_the_last_event() -> None:
    assert stream(*BEGUN, ERROR, done=False) == ("error", "error event, upstream_error", True)
    assert stream(ERROR, done=False) == ("error", "error event, upstream_error", False)
    assert judged(orjson.dumps(ERROR), status=502) == ("error", "502 upstream_error", False)
    assert stream(*BEGUN, CALL, ERROR, done=False)[0] == "error"


@pytest.mark.parametrize(
    ("values", "done", "about"),
    [
        (BEGUN, True, "a truncated answer, told as whole (40 of 60 tokens, None)"),
        ([*BEGUN, chunk({}, "stop")], True, "a truncated answer, told as whole (40 of 60 tokens, 'stop')"),
        (BEGUN, False, "a stream that just ends, after 40 of 60 tokens"),
        (WHOLE, False, "a stream that just ends, after 60 of 60 tokens"),
        ([*BEGUN, ERROR], True, "an error event that is not the end"),
        ([*BEGUN, ERROR, *WHOLE[2:]], False, "an error event that is not the end"),
        ([*BEGUN, ERROR, ERROR], False, "an error event that is not the end"),
        ([*WHOLE, chunk({}, "stop")], True, "an answer that ends twice"),
        ([*WHOLE, chunk({"content": "more"})], True, "text behind the end"),
        ([*BEGUN, *WHOLE], True, "two answers in one stream"),
        ([*BEGUN, chunk({"content": "x"}) | {"id": "other"}], True, "two answers in one stream"),
        ([*WHOLE[:-1], CALL, chunk({}, "stop")], True, "half of a tool call, told as whole"),
        ([*WHOLE[:-1], chunk({}, "length")], True, "a whole answer that ends in 'length'"),
        ([chunk({"content": "POISON"}), chunk({}, "stop")], True, "not the answer that was given"),
        ([{"object": "chat.completion.chunk"}], True, "a chunk that is not OpenAI's"),
    ],
)
def test_a_stream_that_is_neither_is_broken(values: list[Any], done: bool, about: str) -> None:
    assert stream(*values, done=done) == ("broken", about, False)


@pytest.mark.parametrize(
    ("content", "status", "about"),
    [
        (b"<html>", 200, "not JSON: b'<html>'"),
        (b"<html>", 502, "not JSON: b'<html>'"),
        (b"[]", 200, "not a JSON object: b'[]'"),
        (orjson.dumps(ERROR), 200, "200 without an answer in it"),
        (orjson.dumps(completion(HALF)), 200, "a truncated answer, told as whole (40 of 60 tokens, 'stop')"),
        (b'{"error": "boom"}', 502, "an error that is not OpenAI's {message, type, param, code}"),
        (orjson.dumps(ERROR).replace(b"boom", b"key drill-key-0"), 502, "an error that tells the key"),
    ],
)
def test_a_body_that_is_neither_is_broken(content: bytes, status: int, about: str) -> None:
    assert judged(content, status=status) == ("broken", about, False)


def test_a_stream_that_ends_inside_an_event_or_is_none_is_broken() -> None:
    cut = sse(*WHOLE)[:-20]
    assert judged(cut, "text/event-stream", stream=True)[0] == "broken"
    assert judged(orjson.dumps(completion(ANSWER)), stream=True)[1] == "a stream was asked for, application/json came"
