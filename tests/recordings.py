"""Recorded provider traffic for adapter tests: the cases, what an OpenAI client reads of them, the laws of a stream.

The recordings live beside the repository in `../shared/fixtures/wire` (third-party data, not ours to ship) and, in the
same shape, in `tests/data/wire`. Where neither is there `cases` is empty and the tests that are parametrised by it are
skipped by pytest.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gw.message import Headers

_ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = (_ROOT.parent / "shared" / "fixtures" / "wire", _ROOT / "tests" / "data" / "wire")
_SHORT = 8 * 1024  # bodies below this are cut at every place, longer ones at a sample
_SAMPLE = 200
_SIGNATURE = 24  # characters of a signature that `expect` keeps


@dataclass(frozen=True)
class Case:
    """One recorded exchange. `expect` is what an OpenAI client must be able to read of it."""

    id: str
    provider: str
    dialect: str
    model: str
    url: str
    stream: bool
    request_body: dict[str, Any] | None
    status: int
    headers: Headers
    body: bytes
    features: tuple[str, ...]
    expect: dict[str, Any]

    def __repr__(self) -> str:
        return self.id

    @property
    def is_error(self) -> bool:
        """Whether it was answered with an error status."""
        return bool(self.expect.get("error"))


@dataclass
class Reading:
    """What an OpenAI client reads from an answer, whole or streamed."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[tuple[str | None, str, Any]] = field(default_factory=list)  # id, name, arguments as parsed JSON
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    refusal: str | None = None
    n_choices: int = 0
    signatures: list[str] = field(default_factory=list)  # whole; `redacted:` before redacted thinking


@cache
def _load(dialect: str) -> tuple[Case, ...]:
    found = []
    for folder in _FOLDERS:
        for path in sorted(folder.glob("*/*.json")):
            if path.parent.name == "licences":
                continue
            data = json.loads(path.read_bytes())
            if data.get("dialect") != dialect or "expect" not in data:
                continue
            found.append(
                Case(
                    id=data["id"],
                    provider=data["provider"],
                    dialect=dialect,
                    model=data.get("model") or "",
                    url=data.get("url") or "",
                    stream=bool(data.get("stream")),
                    request_body=data.get("request_body"),
                    status=data["response_status"],
                    headers=Headers(
                        (name.lower().encode("latin-1"), str(value).encode("latin-1"))
                        for name, value in (data.get("response_headers") or {}).items()
                    ),
                    body=data["response_body"].encode(),
                    features=tuple(data.get("features") or ()),
                    expect=data["expect"],
                )
            )
    return tuple(found)


def cases(dialect: str) -> list[Case]:
    """The recorded exchanges of a dialect that say what is expected; none where the recordings are absent."""
    return list(_load(dialect))


def cuts(body: bytes) -> Iterator[int]:
    """Places to cut a body at: every one in a short body, a sample that is always the same in a long one."""
    if len(body) < _SHORT:
        return iter(range(1, len(body)))
    places = random.Random(len(body)).sample(range(1, len(body)), _SAMPLE)
    return iter(sorted(places))


# --- what a client reads ----------------------------------------------------------------------------------------


def read_completion(completion: dict[str, Any]) -> Reading:
    """What a client reads from a `chat.completion`."""
    choices = completion["choices"]
    reading = Reading(n_choices=len(choices), usage=completion.get("usage"))
    if not choices:
        return reading
    message = choices[0].get("message") or {}
    reading.text = message.get("content") or ""
    reading.reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    reading.refusal = message.get("refusal")
    reading.finish_reason = choices[0].get("finish_reason")
    details = message.get("reasoning_details") or []
    for call in message.get("tool_calls") or []:
        function = call["function"]
        reading.tool_calls.append((call.get("id"), function["name"], json.loads(function["arguments"])))
    reading.signatures = _signatures([message], details, message.get("tool_calls") or [])
    return reading


def read_chunks(chunks: Sequence[dict[str, Any]]) -> Reading:
    """What a client reads from the `chat.completion.chunk`s of a stream: deltas put together by index."""
    reading = Reading()
    seen: set[int] = set()
    calls: dict[int, dict[str, Any]] = {}
    details: dict[Any, dict[str, Any]] = {}
    deltas: list[dict[str, Any]] = []
    for chunk in chunks:
        if chunk.get("usage"):
            reading.usage = chunk["usage"]
        for choice in chunk.get("choices") or []:
            seen.add(choice.get("index", 0))
            if choice.get("index", 0) != 0:
                continue
            reading.finish_reason = choice.get("finish_reason") or reading.finish_reason
            delta = choice.get("delta") or {}
            deltas.append(delta)
            reading.text += delta.get("content") or ""
            reading.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
            if delta.get("refusal"):
                reading.refusal = (reading.refusal or "") + delta["refusal"]
            for fragment in delta.get("tool_calls") or []:
                _merge_call(calls.setdefault(fragment["index"], {"id": None, "name": "", "arguments": ""}), fragment)
            for fragment in delta.get("reasoning_details") or []:
                _merge_detail(details.setdefault(fragment.get("index", len(details)), {}), fragment)
    for index in sorted(calls):
        call = calls[index]
        reading.tool_calls.append((call["id"], call["name"], json.loads(call["arguments"])))
    reading.n_choices = len(seen)
    reading.signatures = _signatures(deltas, list(details.values()), list(calls.values()))
    return reading


def _merge_call(call: dict[str, Any], fragment: dict[str, Any]) -> None:
    function = fragment.get("function") or {}
    call["id"] = fragment.get("id") or call["id"]
    call["name"] += function.get("name") or ""
    call["arguments"] += function.get("arguments") or ""
    if "extra_content" in fragment:
        call["extra_content"] = fragment["extra_content"]


def _merge_detail(detail: dict[str, Any], fragment: dict[str, Any]) -> None:
    for name, value in fragment.items():
        if name in ("text", "summary", "data", "signature") and isinstance(value, str):
            detail[name] = (detail.get(name) or "") + value
        elif value is not None:
            detail[name] = value


def _signatures(
    messages: Sequence[dict[str, Any]], details: Sequence[dict[str, Any]], calls: Sequence[dict[str, Any]]
) -> list[str]:
    """Signatures in order, each once: a Gemini one may ride both on its tool call and in `reasoning_details`."""
    found: list[str] = []
    for detail in details:
        if detail.get("signature"):
            found.append(detail["signature"])
        elif detail.get("data"):
            is_redacted = str(detail.get("format") or "").startswith("anthropic")
            found.append(f"redacted:{detail['data']}" if is_redacted else detail["data"])
    for holder in (*calls, *messages):
        signature = ((holder.get("extra_content") or {}).get("google") or {}).get("thought_signature")
        if signature and signature not in found:
            found.append(signature)
    return found


# --- checks -----------------------------------------------------------------------------------------------------


def check(reading: Reading, expect: dict[str, Any]) -> None:
    """Assert that a client reads what `expect` says; null there means that nothing is known or it is policy."""
    assert reading.text == (expect.get("text") or ""), f"text: {reading.text!r} is not {expect.get('text')!r}"
    assert reading.reasoning == (expect.get("reasoning") or ""), (
        f"reasoning: {reading.reasoning!r} is not {expect.get('reasoning')!r}"
    )
    wanted_calls = expect.get("tool_calls")
    if wanted_calls is not None:
        _check_calls(reading.tool_calls, wanted_calls)
    if expect.get("finish_reason") is not None:
        assert reading.finish_reason == expect["finish_reason"], (
            f"finish_reason: {reading.finish_reason!r} is not {expect['finish_reason']!r}"
        )
    if expect.get("usage"):
        _check_usage(reading.usage, expect["usage"])
    if expect.get("refusal"):
        assert reading.refusal == expect["refusal"], f"refusal: {reading.refusal!r} is not {expect['refusal']!r}"
    if expect.get("n_choices"):
        assert reading.n_choices == expect["n_choices"], f"choices: {reading.n_choices}, not {expect['n_choices']}"
    if expect.get("signatures"):
        short = [_shortened(signature) for signature in reading.signatures]
        assert short == expect["signatures"], f"signatures: {short} are not {expect['signatures']}"


def _shortened(signature: str) -> str:
    prefix = "redacted:" if signature.startswith("redacted:") else ""
    return prefix + signature.removeprefix(prefix)[:_SIGNATURE]


def _check_calls(calls: list[tuple[str | None, str, Any]], wanted: list[dict[str, Any]]) -> None:
    names = [name for _, name, _ in calls]
    assert names == [call["name"] for call in wanted], f"tools called: {names}, not {[c['name'] for c in wanted]}"
    ids = [call_id for call_id, _, _ in calls]
    assert all(ids), f"a tool call without an id: {ids}"
    assert len(set(ids)) == len(ids), f"tool call ids are not unique: {ids}"
    for (call_id, name, arguments), call in zip(calls, wanted, strict=True):
        if call.get("id"):
            assert call_id == call["id"], f"id of {name}: {call_id!r} is not {call['id']!r}"
        assert arguments == call["arguments"], f"arguments of {name}: {arguments!r} are not {call['arguments']!r}"


def _check_usage(usage: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    assert usage is not None, f"no usage, expected {wanted}"
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    read = {
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "total_tokens": usage.get("total_tokens"),
        "cached_tokens": prompt_details.get("cached_tokens"),
        "reasoning_tokens": completion_details.get("reasoning_tokens"),
    }
    for name, value in wanted.items():
        if value is not None and name in read and (value or read[name]):
            assert read[name] == value, f"usage.{name}: {read[name]!r} is not {value!r}"


def check_laws(chunks: Sequence[dict[str, Any]]) -> None:
    """Assert what every canonical stream keeps: one id, role first, tool calls named once with rising indexes."""
    assert len({chunk.get("id") for chunk in chunks}) <= 1, f"several ids: {sorted({str(c.get('id')) for c in chunks})}"
    assert len({chunk.get("model") for chunk in chunks}) <= 1, "several models in one stream"
    assert len({chunk.get("created") for chunk in chunks}) <= 1, "several values of created in one stream"
    assert all(chunk.get("object") == "chat.completion.chunk" for chunk in chunks), "object is not the chunk's"
    begun: set[int] = set()
    finished: set[int] = set()
    calls: dict[tuple[int, int], str] = {}
    for chunk in chunks:
        for choice in chunk.get("choices") or []:
            index, delta = choice["index"], choice.get("delta") or {}
            if index not in begun:
                assert delta.get("role") == "assistant", f"the first delta of choice {index} has no role: {delta}"
                begun.add(index)
            else:
                assert "role" not in delta, f"the role is repeated in choice {index}: {delta}"
            for fragment in delta.get("tool_calls") or []:
                _check_fragment(calls, index, fragment)
            if choice.get("finish_reason"):
                assert index not in finished, f"choice {index} finishes twice"
                finished.add(index)
            else:
                assert index not in finished or not delta, f"choice {index} goes on after its end: {delta}"
    for arguments in calls.values():
        json.loads(arguments)


def _check_fragment(calls: dict[tuple[int, int], str], choice: int, fragment: dict[str, Any]) -> None:
    key = (choice, fragment["index"])
    kind = "custom" if "custom" in fragment else "function"
    function = fragment.get(kind) or {}
    if key not in calls:
        before = sum(1 for other, _ in calls if other == choice)
        assert fragment["index"] == before, f"tool index {fragment['index']} where {before} is next"
        assert fragment.get("id"), f"a tool call begins without an id: {fragment}"
        assert fragment.get("type") == kind, f"a tool call begins without its type: {fragment}"
        assert function.get("name"), f"a tool call begins without a name: {fragment}"
        calls[key] = ""
    else:
        assert not fragment.get("id"), f"a later fragment repeats the id: {fragment}"
        assert not function.get("name"), f"a later fragment repeats the name: {fragment}"
    if kind == "custom":  # its input is any text
        calls[key] = "{}"
        return
    calls[key] += function.get("arguments") or ""
