"""Claude's thinking: how much of it is asked for, and the signed blocks that must go back with a tool loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gw.adapters.anthropic.plan import FORMAT, Plan

MINIMUM = 1024  # tokens; the least `budget_tokens` that is taken
HEADROOM = 4096  # tokens left for the answer beside a budget, where the client names no limit
# The budgets of the words, as other gateways and so their users have them.
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384}


# Where a message may carry reasoning, signed or not.
_FIELDS = frozenset({"reasoning_details", "thinking_blocks", "reasoning_content", "reasoning"})

# --- back to Claude -------------------------------------------------------------------------------------------------


Signed = list[dict[str, Any] | str]
"""Thinking blocks in their order; "text" and "tool_use" stand for what Claude wrote between them."""


def signed_blocks(message: Mapping[str, Any], index: int, plan: Plan) -> Signed:
    """The thinking blocks of the assistant message `index`, as Claude signed them; [] where there are none to be found.

    Looked for in the signature store under its tool call ids, which knows their order among the other blocks, then in
    `reasoning_details`, then in `thinking_blocks`. Unsigned reasoning, and what other providers signed, is told as
    dropped: Claude refuses it.
    """
    for call in message.get("tool_calls") or ():
        kept = plan.signatures.find(plan.scope, call.get("id") or "")
        if kept:
            return list(kept)
    if _FIELDS.isdisjoint(message):
        return []
    blocks = _from_details(message.get("reasoning_details")) or _from_blocks(message.get("thinking_blocks"))
    if blocks:
        return blocks
    for name in sorted(_FIELDS):
        if message.get(name):
            place = f"/messages/{index}/{name}"
            plan.lose(place, "dropped", "Claude takes back only thinking that it signed")
    return []


def arranged(signed: Signed, texts: list[dict[str, Any]], uses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A turn's blocks in the order in which Claude wrote them; what has no place of its own stands behind them.

    A client has all text of a turn as one, so it stands where the first of it stood.
    """
    if not signed:
        return texts + uses
    left = list(uses)
    placed: list[dict[str, Any]] = []
    for block in signed:
        if isinstance(block, dict):
            placed.append(block)
        elif block == "text":
            placed += texts
            texts = []
        elif left:
            placed.append(left.pop(0))
    return placed + texts + left


def _from_details(details: Any) -> Signed:
    """OpenRouter's shape back to blocks; the fragments of one block share an `index` and are put together.

    The first of them says the format; a client that joins texts may have it there several times over.
    The index is that of the block in Claude's answer: a gap is where text stood between two thoughts.
    """
    merged: dict[int | str, dict[str, Any]] = {}
    for at, detail in enumerate(details if isinstance(details, list) else ()):
        if not isinstance(detail, dict):
            continue
        index, text, signature = detail.get("index"), detail.get("text"), detail.get("signature")
        key = index if isinstance(index, int) else f"at {at}"
        form = detail.get("format")
        if not (str(form).startswith(FORMAT) or (form is None and key in merged)):
            continue
        if detail.get("type") == "reasoning.encrypted":
            merged[key] = {"type": "redacted_thinking", "data": detail.get("data")}
            continue
        block = merged.setdefault(key, {"type": "thinking", "thinking": "", "signature": ""})
        if block["type"] == "thinking":
            block["thinking"] += text if isinstance(text, str) else ""
            block["signature"] = signature or block["signature"]
    found: Signed = []
    last: int | str = ""
    for key, block in merged.items():
        if not _is_signed(block):
            continue
        if isinstance(key, int) and isinstance(last, int) and key > last + 1:
            found.append("text")
        found.append(block)
        last = key
    return found


def _from_blocks(blocks: Any) -> Signed:
    """LiteLLM's shape, which is Claude's own with additions."""
    listed = blocks if isinstance(blocks, list) else ()
    return [_bare(block) for block in listed if isinstance(block, dict) and _is_signed(block)]


def _is_signed(block: Mapping[str, Any]) -> bool:
    if block.get("type") == "redacted_thinking":
        return bool(block.get("data"))
    return block.get("type") == "thinking" and bool(block.get("signature"))


def _bare(block: Mapping[str, Any]) -> dict[str, Any]:
    if block["type"] == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block["data"]}
    return {"type": "thinking", "thinking": block.get("thinking") or "", "signature": block["signature"]}


def as_details(block: Mapping[str, Any], index: int) -> dict[str, Any]:
    """One block as the element of `reasoning_details` that carries it without loss."""
    if block.get("type") == "redacted_thinking":
        return {"type": "reasoning.encrypted", "data": block.get("data"), "format": FORMAT, "index": index}
    return {
        "type": "reasoning.text",
        "text": block.get("thinking") or "",
        "signature": block.get("signature"),
        "format": FORMAT,
        "index": index,
    }


# --- asking for it --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Thinking:
    """What a request asks for: Claude's `thinking` and `output_config.effort`, each None where nothing is sent."""

    config: dict[str, Any] | None = None
    effort: str | None = None
    budget: int = 0  # tokens, where the config has one

    @property
    def is_on(self) -> bool:
        """Whether Claude will think, as far as this request says."""
        return self.config is not None and self.config["type"] != "disabled"


def asked_thinking(chat: Mapping[str, Any], limit: int | None, plan: Plan) -> Thinking:
    """Read `reasoning_effort`, or OpenRouter's `reasoning` object. `limit` is the client's own max_tokens."""
    reasoning = chat.get("reasoning")
    pointer = "/reasoning_effort"
    effort = chat.get("reasoning_effort")
    tokens = None
    if isinstance(reasoning, dict):
        plan.hides_reasoning = bool(reasoning.get("exclude"))
        if effort is None:
            pointer = "/reasoning"
            effort, tokens = reasoning.get("effort"), reasoning.get("max_tokens")
            if reasoning.get("enabled") is False:
                effort, tokens = "none", None
            elif reasoning.get("enabled") and effort is None and tokens is None:
                effort = "medium"
    if effort == "default":  # whatever the model does by itself
        effort = None
    if effort is None and tokens is None:
        return Thinking()
    if effort is not None and effort != "none" and effort not in BUDGETS:
        from_word = f"the effort {effort!r} is unknown: use none, {', '.join(BUDGETS)}"
        raise plan.cannot(pointer, f"think so: {from_word}")
    if effort == "none" or tokens == 0:
        return _off(pointer, plan)
    model = plan.model
    if model.has("adaptive_thinking") and not (tokens and model.has("budget_thinking")):
        return _adaptive(effort, tokens, pointer, plan)
    if model.has("budget_thinking"):
        return _budgeted(tokens or BUDGETS[str(effort)], limit, pointer, plan)
    plan.lose(pointer, "dropped", f"{model.name} does not think")
    return Thinking()


def _off(pointer: str, plan: Plan) -> Thinking:
    if plan.model.has("always_thinks"):
        plan.lose(pointer, "changed", f"{plan.model.name} always thinks: asked for the least")
        return Thinking(effort="low")
    if plan.model.has("adaptive_thinking"):
        return Thinking({"type": "disabled"})
    return Thinking()


def _adaptive(effort: Any, tokens: Any, pointer: str, plan: Plan) -> Thinking:
    if effort is None:
        effort = next((word for word in ("low", "medium", "high") if tokens <= BUDGETS[word]), "high")
        plan.lose(pointer, "changed", f"{plan.model.name} takes no budget: asked for the effort {effort}")
    elif effort == "minimal":
        effort = "low"
        plan.lose(pointer, "changed", "minimal is low here")
    elif effort == "xhigh" and not plan.model.has("xhigh_effort"):
        effort = "high"
        plan.lose(pointer, "changed", f"{plan.model.name} does not know xhigh: asked for high")
    display = "omitted" if plan.hides_reasoning else "summarized"  # without the latter it comes back blank
    return Thinking({"type": "adaptive", "display": display}, str(effort))


def _budgeted(budget: int, limit: int | None, pointer: str, plan: Plan) -> Thinking:
    if limit is not None and limit <= MINIMUM:
        plan.lose(pointer, "dropped", f"a budget of {MINIMUM} tokens does not fit into max_tokens")
        return Thinking()
    fitting = max(MINIMUM, budget)
    if limit is not None and fitting >= limit:
        fitting = max(MINIMUM, limit // 2)
    if fitting != budget:
        plan.lose(pointer, "changed", f"a budget of {fitting} tokens instead of {budget}")
    return Thinking({"type": "enabled", "budget_tokens": fitting}, None, fitting)


def without(thinking: Thinking, why: str, plan: Plan) -> Thinking:
    """The same request with thinking off, told as changed; a model that always thinks is left alone."""
    if not thinking.is_on or plan.model.has("always_thinks"):
        return thinking
    plan.lose("/reasoning_effort", "changed", f"no thinking in this turn: {why}")
    return Thinking({"type": "disabled"} if plan.model.has("adaptive_thinking") else None)
