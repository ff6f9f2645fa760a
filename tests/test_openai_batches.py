"""The short way through a stream gives what the long way gives, or is not taken."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.adapters.openai import OpenAICodec
from gw.errors import UpstreamProtocolError
from tests.fakes import chunk
from tests.openai_requests import send

HEAD = orjson.dumps(chunk({"content": "X"}, model="theirs")).partition(b"X")
PADDED = orjson.dumps(chunk({"content": "X"}, model="theirs") | {"obfuscation": "Y"})
TAUGHT = b"data: " + orjson.dumps(chunk({"role": "assistant", "content": ""}, model="theirs")) + b"\n\n"


def event(text: bytes) -> bytes:
    return b"data: " + HEAD[0] + text + HEAD[2] + b"\n\n"


def padded(text: bytes, padding: bytes) -> bytes:
    return b"data: " + PADDED.replace(b"X", text, 1).replace(b'"Y"', b'"' + padding + b'"') + b"\n\n"


def taught(example: bytes) -> OpenAICodec:
    """A codec that has seen what the events of its stream look like."""
    codec = send({"stream": True})
    codec.feed(TAUGHT + example)
    return codec


def values(codec: OpenAICodec, *pieces: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(each.raw) for piece in pieces for each in codec.feed(piece)]


@pytest.mark.parametrize(
    "text",
    [b"line\nfeed", b"tab\there", b"\x00", b"half \\", b"\\x41", b"\\u12", b"\xff", b"\xf0\x9f\x98", b"\xed\xa0\x80"],
)
def test_a_text_that_is_no_json_string_is_garbage_however_many_come_with_it(text: bytes) -> None:
    for pieces in (event(text), event(b"a") + event(text) + event(b"b")):
        codec = taught(event(b"a"))
        with pytest.raises(UpstreamProtocolError):  # noqa: PT012 (now, or once what came before it is given out)
            codec.feed(pieces)
            codec.feed(b"")


@pytest.mark.parametrize("padding", [b"\xff", b'a" b', b"a\nb"])
def test_padding_that_is_no_json_string_is_garbage(padding: bytes) -> None:
    codec = taught(padded(b"a", b"Ab1"))
    with pytest.raises(UpstreamProtocolError):
        codec.feed(padded(b"b", padding))


def test_halves_of_a_letter_in_two_events_do_not_make_a_whole() -> None:
    letter = "😀".encode()
    codec = taught(event(b"a"))
    with pytest.raises(UpstreamProtocolError):
        codec.feed(event(letter[:2]) + event(letter[2:]))


@pytest.mark.parametrize("padding", [b"", b"a b", b"\\u0041", b'z","x":"y', b"\xc3\xa9"])
def test_padding_of_another_kind_takes_the_long_way(padding: bytes) -> None:
    codec = taught(padded(b"a", b"Ab1"))
    (one,) = values(codec, padded(b"b", padding))
    assert one["obfuscation"] == orjson.loads(b'"' + padding.partition(b'"')[0] + b'"')
    assert one.get("x") == ("y" if b'"' in padding else None)
    assert one["choices"][0]["delta"]["content"] == "b"


_texts = st.lists(
    st.text(max_size=6) | st.sampled_from(['"', "\\", "\n", '"}', 'content":"', "data: ", "\n\n", "}\n\ndata: {"]),
    min_size=1,
    max_size=12,
)


@given(_texts, st.integers(1, 5), st.booleans(), st.sampled_from(["content", "reasoning_content", "list", "arguments"]))
def test_events_together_say_what_they_say_one_by_one(texts: list[str], count: int, pads: bool, kind: str) -> None:
    def delta(text: str) -> dict[str, Any]:
        if kind == "list":
            return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}
        if kind == "arguments":
            return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
        return {kind: text}

    begun: dict[str, Any] = {"role": "assistant", "content": None}
    if kind == "arguments":
        begun["tool_calls"] = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]
    more = {"obfuscation": "abc"} if pads else {}
    sent = [chunk(begun), *(chunk(delta(text)) | more for text in ("first", "second", *texts))]
    events = [b"data: " + orjson.dumps(value) + b"\n\n" for value in sent]
    pieces = [b"".join(events[at : at + count]) for at in range(0, len(events), count)]
    together, apart = send({"stream": True}), send({"stream": True})
    ours = values(together, *pieces)
    assert ours == values(apart, *events)
    heard = ""
    for value in ours:
        said = value["choices"][0]["delta"]
        if kind == "arguments":
            heard += "".join(call["function"]["arguments"] for call in said.get("tool_calls") or ())
        else:
            heard += said.get("reasoning_content" if kind == "list" else kind) or ""
    assert heard == "firstsecond" + "".join(texts)
    assert together.summary.output_characters == apart.summary.output_characters
