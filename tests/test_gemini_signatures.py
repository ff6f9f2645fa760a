"""Gemini's signatures go back where they stood, however the client kept them, and also where it lost them."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gw.adapters.gemini import Gemini
from gw.backend import Backend
from gw.message import ANONYMOUS, Candidate
from gw.signatures import MemorySignatures
from tests.accumulators import accumulated
from tests.codecs import read_all
from tests.fakes import chat_request
from tests.gemini_fakes import (
    PNG,
    USER,
    answer,
    call,
    contents,
    detail,
    losses,
    open_codec,
    part_event,
    result,
    sse,
    stream_codec,
)

SKIP = base64.b64encode(b"skip_thought_signature_validator").decode()


# --- signatures -----------------------------------------------------------------------------------------------------


def model_parts(assistant: dict[str, Any], model: str = "gemini-3-flash-preview") -> list[dict[str, Any]]:
    results = [result(one["id"]) for one in assistant.get("tool_calls", ())]
    parts: list[dict[str, Any]] = contents([USER, {"role": "assistant", **assistant}, *results, USER], model)[1][
        "parts"
    ]
    return parts


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_calls": [call("1", extra_content={"google": {"thought_signature": "c2ln"}}), call("2")]},
        {"tool_calls": [call("1"), call("2")], "reasoning_details": [detail("c2ln", id="1", index=0)]},
        {"tool_calls": [call("1", provider_specific_fields={"thought_signature": "c2ln"}), call("2")]},
    ],
    ids=["extra_content", "reasoning_details", "provider_specific_fields"],
)
def test_a_signature_goes_back_on_its_call_however_the_client_kept_it(fields: dict[str, Any]) -> None:
    for model in ("gemini-3-flash-preview", "gemini-2.5-flash"):
        parts = model_parts(fields, model)
        assert [part.get("thoughtSignature") for part in parts] == ["c2ln", None]


def test_a_signature_that_the_client_lost_comes_from_the_store_of_the_same_principal() -> None:
    store = MemorySignatures()
    store.keep("gemini:anonymous", ["1"], "c2ln")
    adapter = Gemini(signatures=store)
    chat = {"messages": [USER, {"role": "assistant", "tool_calls": [call("1")]}, result("1")]}
    codec = open_codec(chat, "gemini-3-flash-preview", adapter)
    assert orjson.loads(codec.wire.content)["contents"][1]["parts"][0]["thoughtSignature"] == "c2ln"
    assert codec.losses == []
    backend = Backend(name="google", kind="gemini", adapter=adapter)
    stranger = chat_request(
        chat,
        candidates=(Candidate(backend, "gemini-3-flash-preview", "asked"),),
        principal=replace(ANONYMOUS, name="other"),
    )
    assert b"c2ln" not in adapter.open(stranger).wire.content


def test_a_signature_that_nobody_has_is_skipped_on_the_first_call_of_gemini_3_only() -> None:
    fields = {"tool_calls": [call("1"), call("2")]}
    assert [part.get("thoughtSignature") for part in model_parts(fields)] == [SKIP, None]
    assert [part.get("thoughtSignature") for part in model_parts(fields, "gemini-2.5-flash")] == [None, None]
    chat = {"messages": [USER, {"role": "assistant", **fields}, result("1"), result("2")]}
    assert losses(chat, "gemini-3-flash-preview") == {"/messages/1/tool_calls/0": "emulated"}


def test_signed_text_and_signed_thoughts_go_back_signed() -> None:
    thought = {"type": "reasoning.text", "format": "google-gemini-v1", "index": 0}
    fields = {
        "content": "Four.",
        "reasoning_content": "Hm, yes",
        "reasoning_details": [
            thought | {"text": "Hm, "},
            thought | {"text": "yes", "signature": "dGg="},
            detail("dHg="),
        ],
    }
    assert model_parts(fields) == [
        {"text": "Hm, yes", "thought": True, "thoughtSignature": "dGg="},
        {"text": "Four.", "thoughtSignature": "dHg="},
    ]
    assert model_parts({"content": None, "reasoning_details": [detail("dHg=")]}) == [
        {"text": "", "thoughtSignature": "dHg="}
    ]


IMAGE = {"inlineData": {"mimeType": "image/png", "data": PNG}}
SIGNED = {
    "texts around an image": [
        {"text": "Före, ", "thoughtSignature": "YQ=="},
        {**IMAGE, "thoughtSignature": "Yg=="},
        {"text": "after.", "thoughtSignature": "Yw=="},
    ],
    "images of which only the second is": [{"text": "3."}, IMAGE, {**IMAGE, "thoughtSignature": "Yg=="}, IMAGE],
    "an image and no text": [{**IMAGE, "thoughtSignature": "Yg=="}],
    "an image ahead of its text": [{**IMAGE, "thoughtSignature": "Yg=="}, {"text": "Voilà."}],
    "the end of a text": [{"text": "Four."}, {"text": "", "thoughtSignature": "Yw=="}],
    "a text behind one that is not": [{"text": "Four"}, {"text": " it is.", "thoughtSignature": "Yw=="}],
    "a call behind a text": [
        {"text": "Let me see.", "thoughtSignature": "YQ=="},
        {"functionCall": {"name": "f", "args": {}, "id": "1"}, "thoughtSignature": "Yg=="},
    ],
}


@pytest.mark.parametrize("parts", SIGNED.values(), ids=SIGNED.keys())
def test_every_part_that_was_signed_goes_back_as_it_came(parts: list[dict[str, Any]]) -> None:
    message = answer(*parts)["choices"][0]["message"]
    assert model_parts(message) == parts
    events = [part_event(part) for part in parts]
    chunks, _ = read_all(stream_codec(), [sse(*events[:-1], part_event(parts[-1], finish="STOP"))])
    streamed = accumulated(chunks)["choices"][0]["message"]
    assert model_parts({name: value for name, value in streamed.items() if value}) == model_parts(message)


def test_a_text_in_pieces_is_one_part_ahead_of_the_piece_that_is_signed() -> None:
    events = [
        part_event({"text": "Fo"}),
        part_event({"text": "ur"}),
        part_event({"text": ".", "thoughtSignature": "YQ"}),
    ]
    chunks, _ = read_all(stream_codec(), [sse(*events, part_event(finish="STOP"))])
    message = accumulated(chunks)["choices"][0]["message"]
    assert model_parts({name: value for name, value in message.items() if value}) == [
        {"text": "Four"},
        {"text": ".", "thoughtSignature": "YQ"},
    ]


def test_a_signature_whose_part_the_client_left_out_is_told() -> None:
    parts = ({"text": "Here."}, {**IMAGE, "thoughtSignature": "Yg=="}, {"text": " There.", "thoughtSignature": "Yw=="})
    message = answer(*parts)["choices"][0]["message"]
    told = {"/messages/1/reasoning_details": "dropped"}
    assert losses({"messages": [USER, message, USER]}) == {}
    assert losses({"messages": [USER, {**message, "images": []}, USER]}) == told
    assert losses({"messages": [USER, {**message, "content": "Here."}, USER]}) == told
