"""What an OpenAI-compatible provider answers, made OpenAI's: finish reasons, usage, reasoning, a whole completion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gw.adapters.openai.dialects import MISTRAL_FORMAT
from gw.adapters.openai.tool_calls import repair_calls
from gw.chat_parts import as_function_call
from gw.errors import UpstreamError, UpstreamProtocolError
from gw.message import Summary, Usage
from gw.provider_errors import from_object
from gw.secret import Secret


class Source:
    """Who is answering, for what is said of a failure."""

    __slots__ = ("backend", "secrets")

    def __init__(self, backend: str, secrets: Sequence[Secret] = ()) -> None:
        self.backend = backend
        self.secrets = secrets

    def error(self, value: Any) -> UpstreamError:
        """The failure that an error object inside an answer means."""
        return from_object(value, backend=self.backend, secrets=self.secrets)

    def garbage(self, what: str) -> UpstreamProtocolError:
        """The failure of an answer that is none: `what` it did, as the rest of a sentence."""
        return UpstreamProtocolError(f'backend "{self.backend}" {what}')


# A provider's word for why it ended, as OpenAI's. What is not here passes as `stop`, with the native word kept.
_FINISH = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "function_call",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "model_length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "repetition_truncation": "length",
    "tool_use": "tool_calls",
    "sensitive": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
    "spii": "content_filter",
}
# An end that is none: the answer broke off on the provider's side.
_BROKEN = frozenset(
    {"error", "abort", "network_error", "insufficient_system_resource", "malformed_function_call", "failed"}
)


def finish_of(native: str, *, has_calls: bool) -> str:
    """OpenAI's word for a provider's. UpstreamError where it means that the answer broke off."""
    word = native.lower()
    if word in _BROKEN:
        raise UpstreamError(f"the provider broke its answer off: finish_reason {native!r}")
    finish = _FINISH.get(word, "stop")
    return "tool_calls" if has_calls and finish == "stop" else finish


# --- usage ------------------------------------------------------------------------------------------------------


def usage_in(value: dict[str, Any]) -> dict[str, Any] | None:
    """The usage of a completion or chunk, wherever the provider put it; None where it has none (or only null)."""
    usage = value.get("usage")
    if not usage and isinstance(value.get("x_groq"), dict):
        usage = value["x_groq"].get("usage")
    return usage if isinstance(usage, dict) and usage else None


def repair_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage with cached tokens where OpenAI has them; the same object where they are there or unknown."""
    cached = usage.get("prompt_cache_hit_tokens")  # DeepSeek
    if cached is None:
        cached = usage.get("cached_tokens")  # Moonshot
    details = usage.get("prompt_tokens_details")
    if not isinstance(cached, int) or (isinstance(details, dict) and details.get("cached_tokens") is not None):
        return usage
    return {**usage, "prompt_tokens_details": {**(details or {}), "cached_tokens": cached}}


def note_usage(summary: Summary, usage: dict[str, Any]) -> None:
    """Write an answer's tokens, and its cost where the provider reports one, into its summary."""
    cost = _cost(usage) if "cost" in usage else None
    if cost is not None:
        summary.cost_usd, summary.cost_source = cost, "reported"
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is not int or type(completion) is not int or prompt < 0 or completion < 0:
        if _amount(prompt) is None and _amount(completion) is None:
            return  # it counts nothing: what is not known is estimated, and told as such
        prompt, completion = _count(prompt), _count(completion)
    cached = written = reasoning = 0
    details = usage.get("prompt_tokens_details")
    if details and isinstance(details, dict):
        # Some providers count the cached ones beside the prompt, not within it: never more than the prompt holds.
        if told := details.get("cached_tokens"):
            cached = min(_count(told), prompt)
        if told := details.get("cache_write_tokens"):
            written = min(_count(told), prompt - cached)
    details = usage.get("completion_tokens_details")
    if details and isinstance(details, dict) and (told := details.get("reasoning_tokens")):
        reasoning = min(_count(told), completion)
    summary.usage = Usage(prompt, completion, cached, written, reasoning)


def _cost(usage: dict[str, Any]) -> float | None:
    """USD: OpenRouter's `cost` (and the upstream's own where its key is the user's), Perplexity's `cost.total_cost`."""
    cost = usage.get("cost")
    total = _amount(cost.get("total_cost") if isinstance(cost, dict) else cost)
    if total is None or not usage.get("is_byok"):
        return total
    return total + (_amount(_in(usage.get("cost_details"), "upstream_inference_cost")) or 0.0)


def _amount(value: Any) -> float | None:
    """A number that can be an amount of something; None for everything else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def _in(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None


def _count(value: Any) -> int:
    return int(_amount(value) or 0)


# --- content ----------------------------------------------------------------------------------------------------


def repair_content(holder: dict[str, Any], before: int | None = None) -> bool:
    """Make a message's or delta's content text and its reasoning readable as `reasoning_content`, in place.

    Whether anything had to change. `before`: of a stream, how many `reasoning_details` it had before this. Mistral
    sends a list of text and thinking parts; Groq, OpenRouter, vLLM and Ollama call the text of reasoning `reasoning`,
    which stays beside.
    """
    changed = False
    content = holder.get("content")
    if isinstance(content, list):
        _split_parts(holder, content, before)
        changed = True
    reasoning = holder.get("reasoning")
    if isinstance(reasoning, str) and reasoning and not holder.get("reasoning_content"):
        holder["reasoning_content"] = reasoning
        changed = True
    return changed


def _split_parts(holder: dict[str, Any], parts: list[Any], before: int | None) -> None:
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") == "thinking":
            thinking = part.get("thinking")
            pieces = [thinking] if isinstance(thinking, str) else [_in(piece, "text") for piece in thinking or ()]
            thought = "".join(piece for piece in pieces if isinstance(piece, str))
            if thought:
                thoughts.append(thought)
            if part.get("signature"):
                details = holder.setdefault("reasoning_details", [])
                index = (before or 0) + len(details)
                detail = {"type": "reasoning.text", "signature": part["signature"], "format": MISTRAL_FORMAT}
                # Of a stream this is but the last piece of what was signed.
                details.append(detail | {"index": index} | ({"text": thought} if before is None else {}))
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
    holder["content"] = "".join(texts) if texts or not thoughts else None
    if thoughts:
        holder["reasoning_content"] = "".join(thoughts)


# --- a whole completion -----------------------------------------------------------------------------------------


_PLAIN_FINISH = frozenset({"stop", "length", "content_filter"})


def note_plain(value: Any, summary: Summary) -> str | None:
    """The text of a completion that is OpenAI's own already: one choice that says a text and nothing else. Most are.

    What it says is noted. None for any other, and then nothing is noted: it has to be looked at for repairs.
    """
    try:
        (choice,) = value["choices"]
        message, finish = choice["message"], choice["finish_reason"]
        content = message["content"]
        if (
            type(content) is not str
            or message["role"] != "assistant"
            or choice["index"] != 0
            or finish not in _PLAIN_FINISH
            or value["object"] != "chat.completion"
            or not value["id"]
            or not value["created"]
            or "error" in value
            or "error" in choice
            or "delta" in choice
        ):
            return None
        more = len(message) - 2
        if more and more != ("refusal" in message) + ("annotations" in message):
            return None
        if more and (message.get("refusal") or message.get("annotations")):
            return None
    except (KeyError, TypeError, ValueError):  # several choices or none, or not what a choice is
        return None
    usage = value.get("usage")
    if not usage:
        if "x_groq" in value:  # see usage_in
            return None
    elif type(usage) is dict:
        if "prompt_cache_hit_tokens" in usage or "cached_tokens" in usage:  # see repair_usage
            return None
        note_usage(summary, usage)
    summary.model, summary.upstream_id = value.get("model") or None, value["id"]
    summary.finish_reason = finish
    summary.native_finish_reason = choice.get("native_finish_reason") or finish
    summary.output_characters += len(content)
    return content


def repair_completion(value: dict[str, Any], summary: Summary, source: Source) -> bool:
    """Make a whole completion OpenAI's, in place, and note what it says; whether anything had to change.

    Raises UpstreamError where a choice is an error, UpstreamProtocolError where there is no choice.
    """
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        raise source.garbage("answered without a choice")
    changed = False
    for index, choice in enumerate(choices):
        changed |= _repair_choice(choice, index, summary, source)
    usage = usage_in(value)
    if usage is not None:
        repaired = repair_usage(usage)
        if value.get("usage") is not repaired:
            value["usage"] = repaired
            changed = True
        note_usage(summary, repaired)
    return changed


def _repair_choice(choice: dict[str, Any], index: int, summary: Summary, source: Source) -> bool:
    if choice.get("error"):
        raise source.error(choice["error"])
    changed = False
    if choice.get("index") is None:
        choice["index"] = index
        changed = True
    message = choice.get("message")
    if not isinstance(message, dict):  # Azure, where its filter took the message away
        message = choice["message"] = {"role": "assistant", "content": ""}  # null could not be sent back
        changed = True
    if not message.get("role"):
        message["role"] = "assistant"
        changed = True
    changed |= repair_content(message)
    changed |= repair_calls(message)
    if "content" not in message:
        message["content"] = None
        changed = True
    calls = message.get("tool_calls")
    given = choice.get("finish_reason")
    finish = finish_of(given or "stop", has_calls=bool(calls))
    if finish != given:
        choice["finish_reason"] = finish
        if given:
            choice.setdefault("native_finish_reason", given)
        changed = True
    if index == 0:
        native = choice.get("native_finish_reason") or given
        summary.finish_reason, summary.native_finish_reason = finish, native
    for text in (message["content"], message.get("reasoning_content")):
        summary.output_characters += len(text) if isinstance(text, str) else 0
    return changed


# --- the deprecated form ----------------------------------------------------------------------------------------


def with_function_call(choice: dict[str, Any], holder: str, summary: Summary) -> bool:
    """Turn the first tool call of a choice's `message` or `delta` into `function_call`, in place; whether it changed.

    Further calls, which cannot be said in that form, were ruled out in the request.
    """
    message = choice.get(holder)
    changed = False
    if isinstance(message, dict) and "tool_calls" in message:
        message["tool_calls"] = [call for call in message["tool_calls"] or () if not call.get("index")][:1]
        as_function_call(message)
        changed = True
    if choice.get("finish_reason") == "tool_calls":
        choice["finish_reason"] = "function_call"
        if choice.get("index") == 0:
            summary.finish_reason = "function_call"
        changed = True
    return changed
