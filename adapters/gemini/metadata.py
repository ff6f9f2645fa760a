"""What a Gemini answer says about itself: finish reasons, token counts, log probabilities and sources.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gw.answer_frame import MOST_TOKENS
from gw.message import Usage

# In the order of the enum's numbers, which Vertex sends where somebody asked for them.
_REASONS = (
    "FINISH_REASON_UNSPECIFIED",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "RECITATION",
    "OTHER",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "MALFORMED_FUNCTION_CALL",
)
_FILTERED = (
    *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "MODEL_ARMOR", "ESCALATION"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER"),
)
_FINISH = {"MAX_TOKENS": "length", "CONTINUATION": "length", **dict.fromkeys(_FILTERED, "content_filter")}
# The model failed, not the prompt: a next try may well succeed.
FAILURES = frozenset(
    {"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE"}
    | {"TOO_MANY_TOOL_CALLS"}
)


def native_reason(value: Any) -> str:
    """The name of a finish reason, which may come as a number."""
    if isinstance(value, int):
        return _REASONS[value] if 0 <= value < len(_REASONS) else f"FINISH_REASON_{value}"
    return str(value)


def finish_reason(native: str, has_calls: bool) -> str:
    """OpenAI's word. A call makes a normal end `tool_calls`; OTHER and what nobody knows yet are `stop`."""
    reason = _FINISH.get(native, "stop")
    return "tool_calls" if has_calls and reason == "stop" else reason


def usage_of(counts: Mapping[str, Any]) -> Usage:
    """`usageMetadata` as tokens. Thoughts count as completion, whether or not `candidatesTokenCount` holds them."""
    prompt = (counts.get("promptTokenCount") or 0) + (counts.get("toolUsePromptTokenCount") or 0)
    answer = counts.get("candidatesTokenCount") or 0
    thoughts = counts.get("thoughtsTokenCount") or 0
    if prompt + answer + thoughts > MOST_TOKENS:
        return Usage()
    is_counted = thoughts and answer and prompt + answer == counts.get("totalTokenCount")
    return Usage(
        prompt=prompt,
        completion=answer if is_counted else answer + thoughts,
        cached=counts.get("cachedContentTokenCount") or 0,
        reasoning=thoughts,
    )


def usage_object(counts: Mapping[str, Any]) -> dict[str, Any]:
    """`usageMetadata` as OpenAI's `usage`."""
    usage = usage_of(counts)
    prompt: dict[str, Any] = {"cached_tokens": usage.cached}
    completion: dict[str, Any] = {"reasoning_tokens": usage.reasoning}
    for listed, details in (("promptTokensDetails", prompt), ("candidatesTokensDetails", completion)):
        for item in counts.get(listed) or ():
            if item.get("modality") == "AUDIO":
                details["audio_tokens"] = item.get("tokenCount") or 0
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": completion,
    }


def logprobs_object(result: Mapping[str, Any]) -> dict[str, Any]:
    """`logprobsResult` as OpenAI's `logprobs`."""
    tops = result.get("topCandidates") or []
    content = []
    for at, chosen in enumerate(result.get("chosenCandidates") or ()):
        top = tops[at].get("candidates") or [] if at < len(tops) else []
        content.append({**_token(chosen), "top_logprobs": [_token(one) for one in top]})
    return {"content": content, "refusal": None}


def _token(candidate: Mapping[str, Any]) -> dict[str, Any]:
    token = candidate.get("token") or ""
    return {
        "token": token,
        "logprob": candidate.get("logProbability", 0.0),
        "bytes": list(token.encode("utf-8", "surrogatepass")),
    }


# --- sources ----------------------------------------------------------------------------------------------------------


def annotations_of(candidate: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """Web sources of an answer as `url_citation`; those without a URL cannot be shown.

    Google counts bytes of UTF-8, OpenAI characters: places are looked up in `text`, the whole visible answer.
    """
    found: list[dict[str, Any]] = []
    grounding = candidate.get("groundingMetadata")
    if isinstance(grounding, dict):
        chunks = grounding.get("groundingChunks") or []
        supports = grounding.get("groundingSupports") or []
        cited = set()
        for support in supports:
            start, end = _place(support.get("segment") or {}, text)
            for number in support.get("groundingChunkIndices") or ():
                source = _source(chunks, number)
                if source is not None:
                    cited.add(number)
                    found.append(_citation(start, end, *source))
        for number in range(len(chunks)):
            source = _source(chunks, number)
            if source is not None and number not in cited:
                found.append(_citation(0, 0, *source))
    citations = candidate.get("citationMetadata") or {}
    for citation in citations.get("citationSources") or citations.get("citations") or ():
        if citation.get("uri"):
            start, end = _place(citation, text)
            found.append(_citation(start, end, citation["uri"], citation.get("title") or ""))
    return found


def _source(chunks: Sequence[Mapping[str, Any]], number: Any) -> tuple[str, str] | None:
    if not isinstance(number, int) or not 0 <= number < len(chunks):
        return None
    chunk = chunks[number]
    source = chunk.get("web") or chunk.get("maps") or chunk.get("retrievedContext") or {}
    uri = source.get("uri")
    if not isinstance(uri, str) or not uri.startswith(("http://", "https://")):
        return None
    return uri, source.get("title") or ""


def _place(segment: Mapping[str, Any], text: str) -> tuple[int, int]:
    start, end = segment.get("startIndex") or 0, segment.get("endIndex") or 0
    if not text.isascii():
        raw = text.encode("utf-8", "surrogatepass")
        start, end = (len(raw[:at].decode("utf-8", "ignore")) for at in (start, end))
    words = segment.get("text")
    if words and text[start:end] != words:  # offsets of one part of several
        at = text.find(words)
        if at >= 0:
            return at, at + len(words)
    return start, end


def _citation(start: int, end: int, url: str, title: str) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "url_citation": {"start_index": start, "end_index": end, "url": url, "title": title},
    }
