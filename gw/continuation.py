"""A stream that breaks after its first content goes on elsewhere: the text so far is handed over as a prefix.

What the client sees stays one answer: the id, `created` and model of its beginning, one role frame, usage summed, and
the seam marked (`gateway.continued` on the first chunk behind it). Tool calls are held back until they are whole, so
that half a call of a dead provider is never followed by another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from gw.document import Chunk
from gw.errors import GatewayError, UpstreamProtocolError, can_fall_back
from gw.message import Usage
from gw.stream import Stream
from gw.wants import CHARACTERS_PER_TOKEN

MAX_TEXT = 1024 * 1024  # characters kept to go on from; a longer answer that breaks ends in an error
MAX_SEAMS = 3
_TELLING = 24  # characters that tell whether a continuation began again
_REASONING = ("reasoning", "reasoning_content", "reasoning_details")
_NO_PREFIX = ("refusal", "audio", "images", "function_call")  # what no assistant prefix can carry


class Next(NamedTuple):
    """Who goes on, and what the attempts before have used."""

    stream: Stream
    failed: str
    backend: str
    spent: Usage | None


AskOn = Callable[[str, GatewayError], Awaitable[Next]]
"""Asks somebody to go on from this text, after this failure. Raises the failure where nobody can."""


def with_prefix(chat: dict[str, Any], text: str) -> dict[str, Any]:
    """The chat that goes on from `text`: its end without white space, which Anthropic refuses there.

    Where the client itself gave the beginning of the answer, the text goes on with that.
    """
    prefix = text.rstrip()
    if not prefix:
        return chat
    messages = chat["messages"]
    last, said = messages[-1], prefix
    if last.get("role") == "assistant" and isinstance(last.get("content"), str) and not last.get("tool_calls"):
        messages, said = messages[:-1], last["content"] + prefix
    chat = {**chat, "messages": [*messages, {"role": "assistant", "content": said}]}
    for name in ("max_tokens", "max_completion_tokens"):
        if isinstance(chat.get(name), int):
            chat[name] = max(1, chat[name] - len(prefix) // CHARACTERS_PER_TOKEN)
    return chat


class Continued(Stream):
    """A stream that has begun, and that asks on where it breaks."""

    __slots__ = (
        "_ask_on",
        "_can_go_on",
        "_finished",
        "_head",
        "_held",
        "_kept",
        "_lead",
        "_seam",
        "_seams",
        "_spent",
        "_stream",
        "_text",
        "_thought",
    )

    def __init__(self, stream: Stream, ask_on: AskOn) -> None:
        self._stream = stream
        self._ask_on = ask_on
        self._kept = 0  # characters of it
        self._text: list[str] = []  # what was passed on
        self._thought = False  # a train of thought was begun
        self._head: dict[str, Any] = {}
        self._held: list[Chunk] = []  # from the first tool call on
        self._can_go_on = True
        self._finished = False
        self._seams = 0
        self._seam: dict[str, Any] | None = None  # to be marked on the next chunk
        self._lead: str | None = None  # the first text behind a seam, until it is known to be no second beginning
        self._spent: Usage | None = None

    async def read(self) -> Sequence[Chunk]:
        while True:
            try:
                chunks = await self._stream.read()
                passed = self._take(chunks) if chunks else self._rest()
            except GatewayError as error:
                await self._go_on(error)
                continue
            if passed or not chunks:
                return passed

    async def aclose(self) -> None:
        self._can_go_on = False
        await self._stream.aclose()

    async def _go_on(self, error: GatewayError) -> None:
        await self._stream.aclose()
        if not self._can_go_on or self._finished or self._seams >= MAX_SEAMS or not can_fall_back(error):
            raise error
        self._held.clear()
        self._seams += 1
        text = self._joined_text()
        found = await self._ask_on(text, error)
        self._stream, self._spent = found.stream, found.spent
        self._seam = {"continued": True, "failed": found.failed, "backend": found.backend}
        self._lead = "" if text.rstrip() else None

    def _joined_text(self) -> str:
        self._text = ["".join(self._text)]
        return self._text[0]

    # --- what is passed on --------------------------------------------------------------------------------------

    def _take(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        passed: list[Chunk] = []
        for chunk in chunks:
            if self._seams:
                new = self._joined(chunk)
                if new is None:
                    continue
                chunk = new
            value = chunk.peek()
            if not self._head:
                self._head = {name: value[name] for name in ("id", "created", "model") if name in value}
            is_call = self._note(value)
            if (is_call or self._held) and self._can_go_on and not self._finished:
                self._held.append(chunk)
            else:
                passed += self._rest()
                passed.append(chunk)
        return passed

    def _rest(self) -> list[Chunk]:
        held, self._held = self._held, []
        return held

    def _note(self, value: dict[str, Any]) -> bool:
        """Remember what is passed on; whether it is part of a tool call."""
        is_call = False
        for choice in value.get("choices") or ():
            delta = choice.get("delta") or {}
            self._finished = self._finished or bool(choice.get("finish_reason"))
            if choice.get("index") or self._kept > MAX_TEXT or any(delta.get(name) for name in _NO_PREFIX):
                self._can_go_on = False
            if delta.get("tool_calls"):
                is_call = True
            elif not self._held and self._can_go_on:
                if text := delta.get("content"):
                    self._text.append(text)
                    self._kept += len(text)
                self._thought = self._thought or any(delta.get(name) for name in _REASONING)
        return is_call

    def _joined(self, chunk: Chunk) -> Chunk | None:
        """A chunk from behind a seam as part of the one answer; None where nothing of it is to be passed on."""
        value = {**chunk.peek(), **self._head}
        choices = []
        for choice in value.get("choices") or ():
            delta = {name: part for name, part in (choice.get("delta") or {}).items() if name != "role"}
            if self._kept or self._thought:
                for name in _REASONING:  # the client has seen a train of thought already
                    delta.pop(name, None)
            finish = choice.get("finish_reason")
            if isinstance(delta.get("content"), str) or finish:
                text = self._first_text(delta.pop("content", None) or "", is_last=bool(finish))
                if text:
                    delta["content"] = text
            if any(delta.values()) or finish:
                choices.append({**choice, "delta": delta})
        usage = value.get("usage")
        if not choices and not usage:
            return None
        value["choices"] = choices
        if usage and self._spent is not None:
            value["usage"] = _summed(usage, self._spent)
        if self._seam is not None and choices:
            value["gateway"] = self._seam
            self._seam = None
        return Chunk(value=value)

    def _first_text(self, text: str, *, is_last: bool) -> str:
        """Behind a seam: without the white space that was passed on, and held until it is no second beginning."""
        if self._lead is None:
            return text
        self._lead += text
        told = self._joined_text()
        start = told.lstrip()[:_TELLING]
        lead = self._lead.lstrip()
        if len(lead) < len(start) and not is_last:
            return ""
        if lead.startswith(start):
            raise UpstreamProtocolError("the backend that was to go on began the answer again")
        text, self._lead = self._lead, None
        given = told[len(told.rstrip()) :]
        if not given:
            return text
        return text.removeprefix(given) if text.startswith(given) else text.lstrip()


def _summed(usage: dict[str, Any], spent: Usage) -> dict[str, Any]:
    """Usage in OpenAI's shape, with what the attempts before it have used."""
    usage = dict(usage)
    for name, more in (("prompt_tokens", spent.prompt), ("completion_tokens", spent.completion)):
        usage[name] = (usage.get(name) or 0) + more
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    for details, name, more in (
        ("prompt_tokens_details", "cached_tokens", spent.cached),
        ("completion_tokens_details", "reasoning_tokens", spent.reasoning),
    ):
        if more:
            usage[details] = {**(usage.get(details) or {})}
            usage[details][name] = (usage[details].get(name) or 0) + more
    return usage
