"""Answers pass in the provider's own bytes but for the model; the short way through a stream reads as the long one."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.errors import UpstreamProtocolError
from tests.fakes import chunk, chunks, completion, sse
from tests.openai_fakes import codec, fragment, read
from tests.recordings import read_chunks

# --- bytes --------------------------------------------------------------------------------------------------------


def test_chunks_pass_in_the_providers_own_bytes_but_for_the_model() -> None:
    texts = ["a", "b", 'c "quoted" \\ \n', "é", "\U0001f600", "", "model", '"model":"x"']
    pieces = [sse(value, done=False) for value in chunks(*texts, model="their-own")[:-1]]
    opened = codec(model="asked for")
    raws = [one.raw for piece in pieces for one in opened.feed(piece)]
    assert raws == [piece[6:-2].replace(b'"model":"their-own"', b'"model":"asked for"') for piece in pieces]


def test_the_model_is_found_wherever_a_chunk_has_it() -> None:
    def value(place: int) -> dict[str, Any]:
        fields = list(
            (chunk({"content": "a"}, model="theirs") | {"t": "x" * place, "logprobs": {"model": place}}).items()
        )
        return dict(fields[place % 6 :] + fields[: place % 6])

    values = [chunk({"role": "assistant", "content": ""}, model="theirs"), *(value(i) for i in range(30))]
    opened = codec(model="asked")
    found = [orjson.loads(one.raw) for each in values for one in opened.feed(sse(each, done=False))]
    assert found == [each | {"model": "asked"} for each in values]


def test_chunks_under_the_right_name_already_are_not_changed_at_all() -> None:
    pieces = [sse(value, done=False).replace(b":", b" : ").replace(b"data :", b"data:") for value in chunks("a", "b")]
    opened = codec()
    assert [one.raw for piece in pieces[:-1] for one in opened.feed(piece)] == [
        piece.removeprefix(b"data: ").strip() for piece in pieces[:-1]
    ]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=12), st.booleans())
def test_the_short_way_reads_the_same_as_the_long_one(texts: list[str], ascii_only: bool) -> None:
    events = [
        b"data: " + json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":")).encode() + b"\n\n"
        for value in chunks(*texts, model="theirs")
    ]
    short = read_chunks(read(*events))
    assert short.text == "".join(texts)
    assert short == read_chunks(read(b"".join(events)))
    # CRLF is never read by the short way.
    assert short == read_chunks(read(*(event.replace(b"\n\n", b"\r\n\r\n") for event in events)))


def test_the_short_way_serves_reasoning_text_and_arguments() -> None:
    values: list[dict[str, Any]] = [chunk({"role": "assistant", "content": ""})]
    values += [chunk({"reasoning": f" r{i}"}) for i in range(9)]
    values += [chunk({"content": f" c{i}"}) for i in range(9)]
    values += [chunk({"tool_calls": [fragment("", name="f", index=0, id="x", type="function")]})]
    values += [
        chunk({"tool_calls": [fragment(text, index=0)]}) for text in ('{"a":[', *(f"{i}," for i in range(9)), "1]}")
    ]
    opened = codec(model="asked")
    found = [one for value in [*values, chunk({}, "tool_calls")] for one in opened.feed(sse(value, done=False))]
    result = read_chunks([one.peek() for one in (*found, *opened.finish())])
    assert (result.text, result.reasoning) == (
        "".join(f" c{i}" for i in range(9)),
        "".join(f" r{i}" for i in range(9)),
    )
    assert result.tool_calls == [("x", "f", {"a": [0, 1, 2, 3, 4, 5, 6, 7, 8, 1]})]
    assert opened.filled > 20
    assert opened.summary.output_characters == len(result.text) + len(result.reasoning) + 27


def test_the_short_way_goes_on_where_a_network_cuts_an_event() -> None:
    stream = sse(*(chunk({"content": f" c{i}"}) for i in range(100)), done=False)
    at_once, cut = codec(model="asked"), codec(model="asked")
    at_once.feed(stream)
    for place in range(0, len(stream), 4096):
        cut.feed(stream[place : place + 4096])
    assert cut.filled == at_once.filled > 90


def test_padding_that_hides_lengths_does_not_hinder_the_short_way() -> None:
    opened = codec(model="asked")
    for place, padding in enumerate(("aB3", "x", "Zz99")):
        value = chunk({"content": "t"} if place else {"role": "assistant", "content": ""}) | {"obfuscation": padding}
        (one,) = opened.feed(sse(value, done=False))
        assert one.peek() == value | {"model": "asked"}
    value = chunk({"content": "u"}) | {"obfuscation": "q"}
    assert opened.feed(sse(value, done=False))[0].peek() == value | {"model": "asked"}
    assert opened.filled == 2


@pytest.mark.parametrize("text", [b"\\ud83d", b"\x01", b"\\x", b"\xff", b'"', b"\\"])
def test_the_short_way_takes_no_text_that_is_no_json(text: bytes) -> None:
    opened = codec()
    for value in chunks("a", "b")[:-2]:
        opened.feed(sse(value, done=False))
    event = sse(chunk({"content": "MARK"}), done=False).replace(b"MARK", text)
    if text == b"\\ud83d":  # half an emoji: told as the replacement character, which every parser takes
        assert opened.feed(event)[0].peek()["choices"][0]["delta"]["content"] == "�"
    else:
        with pytest.raises(UpstreamProtocolError):
            opened.feed(event)


def test_a_whole_answer_passes_in_the_providers_own_bytes_but_for_the_model() -> None:
    came = orjson.dumps(
        completion(model="theirs", content='"model":"theirs"') | {"x": {"model": "theirs"}}, option=orjson.OPT_INDENT_2
    )
    answer = codec(stream=False).complete(came)
    head, _, tail = came.partition(b'"model": "theirs"')
    assert answer.raw == head + b'"model": "gpt-4"' + tail


def test_a_whole_answer_under_the_right_name_is_the_very_same_object() -> None:
    came = orjson.dumps(completion())
    assert codec(stream=False).complete(came).raw is came
