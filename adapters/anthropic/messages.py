"""A chat's messages as Claude's `system` and `messages`: roles merged, results first, ids and names made safe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gw.adapters.anthropic.content import blocks_of
from gw.adapters.anthropic.plan import Plan, is_blank
from gw.adapters.anthropic.thinking import arranged, signed_blocks
from gw.chat_parts import arguments_of, check_tool_results, parts_of, refusal, safe_tool_id

# What each role's message may hold and is carried over, or says nothing that could be lost.
_FOR_READERS = {"annotations", "extra_content"}  # of an answer, or for the provider that gave it
_REASONING = {"reasoning_content", "reasoning", "reasoning_details", "thinking_blocks"}
_KNOWN = {
    "system": frozenset({"role", "content", "cache_control"}),
    "developer": frozenset({"role", "content", "cache_control"}),
    "user": frozenset({"role", "content", "cache_control"}),
    "tool": frozenset({"role", "content", "cache_control", "tool_call_id", "is_error"}),
    "assistant": frozenset({"role", "content", "cache_control", "refusal", "tool_calls", *_REASONING, *_FOR_READERS}),
}


_BARE = frozenset({"role", "content", "tool_calls"})


class Conversation:
    """The two lists that Claude reads, filled message by message."""

    __slots__ = ("_is_in_loop", "is_loop_unsigned", "plan", "system", "turns")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.system: list[dict[str, Any]] = []
        self.turns: list[dict[str, Any]] = []  # {"role", "content": blocks}
        self.is_loop_unsigned = False  # the last tool loop holds a turn whose thinking is lost
        self._is_in_loop = False  # the last turn holds tool results

    def read(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Take in a whole conversation. Raises InvalidRequest for what Claude would refuse."""
        check_tool_results(messages, self.plan.provider)
        for index, message in enumerate(messages):
            role = message.get("role")
            known = _KNOWN.get(role)  # type: ignore[arg-type]  # None has no entry
            if known is None:
                raise refusal(f"/messages/{index}/role", f"a message's role cannot be {role!r}")
            if not message.keys() <= known:
                self._tell_unknown(message, known, index)
            if role == "assistant":
                self._read_assistant(message, index)
            elif role == "tool":
                self._read_result(message, index)
            elif role == "user":
                self._read_user(message, index)
            else:
                self._read_system(message, index)
        if not self.turns:
            raise refusal("/messages", f"{self.plan.provider} needs at least one user message with text")

    @property
    def ends_in_loop(self) -> bool:
        """Whether the last turn answers tool calls, so that the assistant's turn before it goes on."""
        return self._is_in_loop and not self.ends_with_assistant

    @property
    def ends_with_assistant(self) -> bool:
        """Whether the client wants a last message of its own making continued."""
        return bool(self.turns[-1]["role"] == "assistant")

    def _tell_unknown(self, message: Mapping[str, Any], known: frozenset[str], index: int) -> None:
        for name in message:
            if name not in known and message[name] not in (None, [], "", {}):
                self.plan.lose(f"/messages/{index}/{name}", "dropped")

    def _add(self, role: str, blocks: list[dict[str, Any]]) -> None:
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"].extend(blocks)
        else:
            self.turns.append({"role": role, "content": blocks})

    def _blocks(self, message: Mapping[str, Any], index: int) -> list[dict[str, Any]]:
        content = message.get("content")
        if isinstance(content, str) and content and not content.isspace():
            blocks: list[dict[str, Any]] = [{"type": "text", "text": content}]
        else:
            blocks = blocks_of(content, f"/messages/{index}/content", self.plan)
        if blocks and "cache_control" in message:  # on the message: it means its last block
            self.plan.mark(blocks[-1], message, f"/messages/{index}")
        return blocks

    # --- by role --------------------------------------------------------------------------------------------------

    def _read_system(self, message: Mapping[str, Any], index: int) -> None:
        blocks = self._blocks(message, index)
        for at, block in enumerate(blocks):
            if block["type"] != "text":
                raise self.plan.cannot(f"/messages/{index}/content/{at}", "take media in a system message")
        if not blocks:
            return
        if not self.turns:
            self.system += blocks
        elif self.plan.model.has("mid_system"):
            self._add("system", blocks)
        else:
            # Moved to the front it would rewrite the cached prefix: it stays in its place, as the user's text.
            self.plan.lose(f"/messages/{index}", "changed", "sent as a user text in <system>")
            for block in blocks:
                block["text"] = f"<system>{block['text']}</system>"
            self._add("user", blocks)

    def _read_user(self, message: Mapping[str, Any], index: int) -> None:
        blocks = self._blocks(message, index)
        if not blocks:
            raise refusal(f"/messages/{index}/content", f"{self.plan.provider} refuses a user message without content")
        if not self.turns or self.turns[-1]["role"] != "user":
            self._is_in_loop = False
        self._add("user", blocks)

    def _read_result(self, message: Mapping[str, Any], index: int) -> None:
        block: dict[str, Any] = {"type": "tool_result", "tool_use_id": safe_tool_id(message["tool_call_id"])}
        content = message.get("content")
        if isinstance(content, str):
            if content and not content.isspace():
                block["content"] = [{"type": "text", "text": content}]
        elif blocks := blocks_of(content, f"/messages/{index}/content", self.plan):
            block["content"] = blocks
        if len(message) > 3:
            if message.get("is_error") is True:
                block["is_error"] = True
            if "cache_control" in message:
                self.plan.mark(block, message, f"/messages/{index}")
        self._is_in_loop = True
        turns = self.turns
        if turns and turns[-1]["role"] == "user":
            turns[-1]["content"].append(block)
        else:
            turns.append({"role": "user", "content": [block]})

    def _read_assistant(self, message: Mapping[str, Any], index: int) -> None:
        plan = self.plan
        calls = message.get("tool_calls")
        content = message.get("content")
        is_bare = message.keys() <= _BARE  # most turns
        if is_bare and isinstance(content, str) and content and not content.isspace():
            texts: list[dict[str, Any]] = [{"type": "text", "text": content}]
            if not calls:
                self._add("assistant", texts)
                return
        elif is_bare and not content:
            texts = []
        else:
            texts = self._assistant_texts(message, f"/messages/{index}")
        signed = signed_blocks(message, index, plan)
        uses = []
        if calls:
            # A person's text begins a new turn, and Claude forgets the thinking before it; results go on with the old.
            self.is_loop_unsigned = not signed or (self._is_in_loop and self.is_loop_unsigned)
            uses = [self._tool_use(call, index, at) for at, call in enumerate(calls)]
        blocks = arranged(signed, texts, uses) if signed else texts + uses
        if not blocks:
            plan.lose(f"/messages/{index}", "dropped", "an assistant message without content")
            return
        if "cache_control" in message and blocks[-1]["type"] not in ("thinking", "redacted_thinking"):
            plan.mark(blocks[-1], message, f"/messages/{index}")
        self._add("assistant", blocks)

    def _assistant_texts(self, message: Mapping[str, Any], pointer: str) -> list[dict[str, Any]]:
        content = message.get("content")
        if content is None:
            texts: list[dict[str, Any]] = []
        elif isinstance(content, str):
            texts = [] if is_blank(content) else [{"type": "text", "text": content}]
        else:
            for at, part in enumerate(parts_of(content, pointer + "/content")):
                if part.get("type") not in ("text", "refusal"):
                    place = f"{pointer}/content/{at}"
                    raise self.plan.cannot(place, f"take a part of type {part.get('type')!r} from the assistant")
            texts = blocks_of(content, pointer + "/content", self.plan)
        if message.get("refusal") and not is_blank(message["refusal"]):
            texts.append({"type": "text", "text": message["refusal"]})
        return texts

    def _tool_use(self, call: Mapping[str, Any], index: int, at: int) -> dict[str, Any]:
        """The block for the call `at` of the message `index`."""
        plan = self.plan
        call_id, function = call.get("id"), call.get("function")
        if not isinstance(call_id, str) or not call_id:
            raise refusal(f"/messages/{index}/tool_calls/{at}/id", "a tool call needs an id")
        custom = None if function else call.get("custom")
        if isinstance(custom, dict):
            name, given = custom.get("name"), {"input": custom.get("input") or ""}
        else:
            given = arguments_of(call, f"/messages/{index}/tool_calls/{at}", plan.provider)
            name = function.get("name") if function else None
        if not isinstance(name, str) or not name:
            raise refusal(f"/messages/{index}/tool_calls/{at}", "a tool call needs the name of its function")
        wire_name = plan.wire_names.get(name) or plan.wire_name(name)
        return {"type": "tool_use", "id": safe_tool_id(call_id), "name": wire_name, "input": given}


def used_tools(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all tools that a history calls, each once, in order: Claude refuses calls of undeclared tools."""
    names: dict[str, None] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            name = (call.get("function") or call.get("custom") or {}).get("name")
            if name:
                names[name] = None
    return list(names)


def trim_prefill(turns: list[dict[str, Any]]) -> None:
    """Take the white space off the end of a prefill: Claude refuses a last assistant text that ends so."""
    last = turns[-1]["content"][-1]
    if last["type"] == "text":
        last["text"] = last["text"].rstrip()
