"""How long Claude may answer and how it samples: max_tokens, temperature, top_p, top_k, stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gw.adapters.anthropic.plan import Plan, is_blank
from gw.adapters.anthropic.thinking import HEADROOM
from gw.chat_parts import refusal

DEFAULT_MAX_TOKENS = 8192  # where neither the client, nor the options, nor the model's data say more


def asked_limit(chat: Mapping[str, Any], plan: Plan) -> int | None:
    """The client's own limit on the answer, cut to what the model can write; None where it names none.

    Raises InvalidRequest for a number below one: zero means "only warm the cache" to Claude.
    """
    name = "max_completion_tokens" if chat.get("max_completion_tokens") is not None else "max_tokens"
    limit = chat.get(name)
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise refusal("/" + name, f"{name} must be a whole number of at least 1")
    cap = plan.model.max_output
    if cap is not None and limit > cap:
        plan.lose("/" + name, "changed", f"{cap}, which is all that {plan.model.name} writes")
        return cap
    return int(limit)


def default_limit(configured: int | None, budget: int, plan: Plan) -> int:
    """max_tokens where the client names none: configured, else the model's cap, else 8,192; above a thinking budget."""
    cap = plan.model.max_output
    limit = configured or cap or DEFAULT_MAX_TOKENS
    if budget:
        limit = max(limit, budget + HEADROOM)
    return min(limit, cap) if cap is not None else limit


def sampling(chat: Mapping[str, Any], is_thinking: bool, plan: Plan) -> dict[str, Any]:
    """temperature, top_p and top_k as far as the model takes them; the rest is told as dropped."""
    encoded: dict[str, Any] = {}
    given = {name: chat[name] for name in ("temperature", "top_p", "top_k") if chat.get(name) is not None}
    if not given:
        return encoded
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise refusal("/" + name, f"{name} must be a number of at least 0")
        if name != "top_k" and value == 1 and (is_thinking or not plan.model.has("sampling")):
            continue  # the default: nothing is lost
        if not plan.model.has("sampling"):
            plan.lose("/" + name, "dropped", f"{plan.model.name} samples as it sees fit")
        elif is_thinking:
            plan.lose("/" + name, "dropped", "not beside thinking")
        elif name == "top_p" and "temperature" in given:
            plan.lose("/top_p", "dropped", "not beside temperature")
        elif name == "temperature" and value > 1:
            encoded[name] = 1.0
            plan.lose("/temperature", "changed", "1, the highest there")
        else:
            encoded[name] = value
    return encoded


def stop_sequences(chat: Mapping[str, Any], plan: Plan) -> list[str]:
    """`stop` as a list; sequences of white space alone are refused there, and dropped here."""
    stop = chat.get("stop")
    if stop is None:
        return []
    wanted = [stop] if isinstance(stop, str) else stop
    if not isinstance(wanted, list) or not all(isinstance(text, str) for text in wanted):
        raise refusal("/stop", "stop must be a string or a list of strings")
    kept = [text for text in wanted if not is_blank(text)]
    if len(kept) < len(wanted):
        plan.lose("/stop", "dropped", "sequences of white space alone")
    return kept
