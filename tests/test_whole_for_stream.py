"""A provider that answers whole although a stream was asked for: its client reads a stream of the same answer."""

from __future__ import annotations

import orjson
import pytest

from tests.codecs import codec_of
from tests.recordings import Case, cases, read_chunks, read_completion

ADAPTERS = {
    "anthropic-messages": "anthropic",
    "gemini": "gemini",
    "ollama-chat": "ollama",
}
WHOLE = [case for dialect in ADAPTERS for case in cases(dialect) if not case.stream and not case.is_error]
WHOLE = [case for case in WHOLE if case.expect["finish_reason"]]  # without one it ended in a failure


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_recorded_whole_answer_reads_the_same_as_a_stream(case: Case) -> None:
    name = ADAPTERS[case.dialect]
    content = orjson.dumps(orjson.loads(case.body))  # one line, as Ollama sends it
    asked = {"tools": [{"type": "function", "function": {"name": "f"}}]} if case.expect.get("tool_calls") else {}
    whole, codec = codec_of(name, asked), codec_of(name, asked | {"stream": True})
    expected = read_completion(orjson.loads(whole.complete(content).raw))
    half = len(content) // 2
    chunks = [*codec.feed(content[:half]), *codec.feed(content[half:]), *codec.finish()]
    reading = read_chunks([orjson.loads(chunk.raw) for chunk in chunks])
    for read in (reading, expected):  # ids of our own are made for each answer
        read.tool_calls = [(one if (one or "").encode() in content else "", *rest) for one, *rest in read.tool_calls]
    assert reading == expected
    assert codec.summary.finish_reason == whole.summary.finish_reason
    assert codec.summary.usage == whole.summary.usage
