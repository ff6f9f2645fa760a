"""Tokens and cost of an exchange where no provider reported them: four characters a token, marked as estimated."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from gw.backend import Backends
from gw.message import Attempt, Exchange, Usage
from gw.outcome import is_client_gone
from gw.request_log.answers import messages_of, text_of
from gw.wants import CHARACTERS_PER_TOKEN, estimated_tokens


def account(exchange: Exchange, backends: Backends | None = None) -> None:
    """Fill in what the attempts of an ended exchange cost, so that no spent token goes unbooked.

    A cut stream and a client that hung up bring no usage, yet the provider bills them: their tokens are estimated
    from what was asked and what was seen. Attempts that failed before any content stay empty. May be called twice.
    """
    for attempt in exchange.attempts:
        summary = attempt.summary
        if attempt.error is None and summary.usage is not None and summary.cost_usd is not None:
            continue  # nearly all: nothing is missing
        if attempt.error is not None and summary.finish_reason is None:
            _forget_half_told(attempt)
        if (summary.usage is None or summary.usage.source == "partial") and _is_spent(attempt):
            summary.usage = _estimated(exchange, attempt)
        backend = backends.get(attempt.backend) if backends is not None else None
        if summary.cost_usd is None and summary.usage is not None and backend is not None:
            priced = backend.cost_of(summary.usage, attempt.model)
            if priced is not None:
                summary.cost_usd, summary.cost_source = priced


def _forget_half_told(attempt: Attempt) -> None:
    """What a provider said of its tokens before it broke off (Anthropic: with the first event) is not what was used."""
    summary = attempt.summary
    usage = summary.usage
    if usage is None or usage.source != "reported":
        return
    usage.source = "partial"
    if summary.cost_source != "reported":
        summary.cost_usd = summary.cost_source = None
    if not _is_spent(attempt):
        summary.usage = None


def _estimated(exchange: Exchange, attempt: Attempt) -> Usage | None:
    summary, told = attempt.summary, attempt.summary.usage
    chat = _chat(exchange)
    if chat is None:
        return told
    characters = summary.output_characters
    if not characters and attempt is exchange.attempt:
        characters = sum(len(text_of(message)) for message in messages_of(exchange.response))
    completion = math.ceil(characters / CHARACTERS_PER_TOKEN)
    if told is None:
        return Usage(prompt=_prompt_tokens(chat), completion=completion, source="estimated")
    return replace(told, completion=max(told.completion, completion), source="estimated")


def total_usage(exchange: Exchange) -> Usage | None:
    """The tokens of all attempts together; None where none are known. One estimate makes the sum an estimate."""
    known = [attempt.summary.usage for attempt in exchange.attempts if attempt.summary.usage is not None]
    if len(known) <= 1:
        return known[0] if known else None
    return Usage(
        prompt=sum(usage.prompt for usage in known),
        completion=sum(usage.completion for usage in known),
        cached=sum(usage.cached for usage in known),
        cache_written=sum(usage.cache_written for usage in known),
        reasoning=sum(usage.reasoning for usage in known),
        source="reported" if all(usage.source == "reported" for usage in known) else "estimated",
    )


def total_cost(exchange: Exchange) -> tuple[float, str | None] | None:
    """USD of all attempts together and the weakest of their sources; None where none is known."""
    known = [a.summary for a in exchange.attempts if a.summary.cost_usd is not None]
    if len(known) <= 1:
        return (known[0].cost_usd or 0.0, known[0].cost_source) if known else None
    sources = {summary.cost_source for summary in known}
    weakest = next((source for source in ("estimated", "priced", "reported") if source in sources), None)
    return math.fsum(summary.cost_usd or 0.0 for summary in known), weakest


def _is_spent(attempt: Attempt) -> bool:
    if attempt.error is None or attempt.first_content is not None:
        return True
    return attempt.is_sent and is_client_gone(attempt.error)


def _chat(exchange: Exchange) -> dict[str, Any] | None:
    try:
        chat = exchange.request.peek() if exchange.request is not None else {}
    except ValueError:
        return None
    return chat if isinstance(chat.get("messages"), list) else None


def _prompt_tokens(chat: dict[str, Any]) -> int:
    try:
        return max(1, estimated_tokens(chat))
    except (AttributeError, TypeError):  # a user's middleware left something else there
        return 1
