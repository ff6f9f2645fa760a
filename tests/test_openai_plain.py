"""A whole answer that is OpenAI's own already is looked through once, with the result that every repair comes to."""

from __future__ import annotations

import copy
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from gw.adapters.openai import OpenAI
from gw.adapters.openai.answers import Source, note_plain, repair_completion
from gw.backend import Backend
from gw.document import Completion
from gw.message import Candidate, Summary
from gw.request_log.answers import said_by
from gw.secret import Secret
from tests.fakes import chat_request

PLAIN: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "gpt-4",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "A cat.", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 52, "completion_tokens": 8, "total_tokens": 60},
}
GONE = "(gone)"
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([GONE, None, *values])


ODD = {
    (): {
        "id": some("", "x"),
        "object": some("", "chat.completion.chunk", 1),
        "created": some(0, 1.5),
        "model": some("", "other"),
        "error": some({}),
        "x_groq": some({"usage": {"prompt_tokens": 3}}, {}),
        "usage": some({}, 1, [1], {"prompt_tokens": -1, "completion_tokens": 2.5}, {"prompt_tokens": True}),
        "choices": some([], {}),
    },
    ("choices", 0): {
        "index": some(1, False),
        "finish_reason": some("length", "content_filter", "tool_calls", "eos"),
        "native_finish_reason": some("", "STOP"),
        "error": some({}, ""),
        "delta": some({}, {"content": "more"}),
        "message": some("text", {}),
    },
    ("choices", 0, "message"): {
        "role": some("", "user"),
        "content": some("", "B", [], [{"type": "text", "text": "t"}]),
        "refusal": some("", "no"),
        "annotations": some([], [{"type": "url_citation"}]),
        "tool_calls": some([], [CALL]),
        "reasoning": some("", "because"),
        "reasoning_content": some("", "because"),
        "function_call": some({}, {"name": "f", "arguments": "{}"}),
        "audio": some({"data": ""}),
    },
    ("usage",): {
        "prompt_tokens": some(0, -1, True, 1.5, "1"),
        "completion_tokens": some(0, -1, False, "1"),
        "cached_tokens": some(4),
        "prompt_cache_hit_tokens": some(4),
        "prompt_tokens_details": some({}, {"cached_tokens": 99}, [1]),
        "completion_tokens_details": some({"reasoning_tokens": 3}),
        "cost": some(0.5, {"total_cost": 1}, "free"),
    },
}
PLACES = [(place, name) for place, names in ODD.items() for name in names]


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """The plain answer with up to three of its members otherwise."""
    value = copy.deepcopy(PLAIN)
    for place, name in draw(st.lists(st.sampled_from(PLACES), max_size=3)):
        holder: Any = value
        for step in place:
            try:
                holder = holder[step]
            except (KeyError, IndexError, TypeError):
                break
        if not isinstance(holder, dict):
            continue
        new = copy.deepcopy(draw(ODD[place][name]))
        if new == GONE:
            holder.pop(name, None)
        else:
            holder[name] = new
    return value


@given(answers())
def test_what_is_plain_needs_no_repair_and_says_what_repairs_and_the_log_find_in_it(value: dict[str, Any]) -> None:
    noted, found = Summary(), Summary()
    text = note_plain(value, noted)
    if text is None:
        assert noted == Summary(), "nothing is noted of what has to be looked at again"
        return
    assert value["id"]
    assert value["created"]
    assert value["object"] == "chat.completion"
    repaired = copy.deepcopy(value)
    assert not repair_completion(repaired, found, Source("b"))
    assert repaired == value
    found.model, found.upstream_id = value.get("model") or None, value["id"]
    assert noted == found
    assert said_by(Completion(None, value)) == text


def test_openais_own_answers_are_plain() -> None:
    assert note_plain(copy.deepcopy(PLAIN), Summary()) == "A cat."
    for name in ("refusal", "annotations"):
        value = copy.deepcopy(PLAIN)
        del value["choices"][0]["message"][name]
        assert note_plain(value, Summary()) == "A cat."


def test_the_text_of_a_plain_answer_goes_with_it_until_somebody_opens_it() -> None:
    adapter = OpenAI(base_url="http://127.0.0.1:8000/v1")
    backend = Backend(name="b", kind="openai", adapter=adapter)
    answer = adapter.open(chat_request({}, candidates=(Candidate(backend, "m", "asked-for"),))).complete(
        orjson.dumps(PLAIN)
    )
    assert answer.text == "A cat."
    answer.data["choices"][0]["message"]["content"] = "A dog."
    assert answer.text is None


def test_each_key_has_its_own_header_however_many_there_are() -> None:
    adapter = OpenAI(base_url="http://127.0.0.1:8000/v1")
    backend = Backend(name="b", kind="openai", adapter=adapter)
    for number in range(200):  # fetched tokens: each lives for a while, then another may come to lie where it lay
        key = Secret(f"sk-{number}") if number % 5 else Secret("") if number % 2 else None
        codec = adapter.open(chat_request({}, candidates=(Candidate(backend, "m", "m", key=key),)))
        shown = dict(codec.wire.headers).get("authorization")
        assert shown == (f"Bearer sk-{number}" if key else None)
