"""What a provider's error means: every error shape in use is read here once, and given one class and one fault.

    from_answer(status, headers, content)   an answer with an error status (or an error body in a 200)
    from_object(error)                      an error object inside a stream, already parsed
    classify(status, ErrorDetails(...))     the decision itself, for whoever has the parts in hand
    retry_after(headers, text)              how long the provider wants to be left alone
    quote(content) / scrub(text)            a short piece of garbage, and any text without keys, for a message

The provider's own words are kept in the message; keys and internal addresses are not.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from gw.error_words import (
    CONTENT_FILTER,
    CONTEXT_LENGTH,
    DEAD_KEY,
    FILTERED,
    MEANINGFUL,
    NO_MODEL,
    NO_MONEY,
    OPENAI_TYPES,
    QUOTA,
    RATE_LIMIT,
    STATUS_OF_WORD,
    TOO_FAST,
    TOO_LONG,
    WORD,
)
from gw.errors import UpstreamError, UpstreamProtocolError, UpstreamRefused, UpstreamTimeout
from gw.message import Headers
from gw.retry_after import retry_after
from gw.scrub import MAX_QUOTE, as_text, quote, scrub
from gw.secret import Secret

__all__ = ["ErrorDetails", "classify", "details_of", "from_answer", "from_object", "quote", "retry_after", "scrub"]

MAX_MESSAGE = 2000  # characters of a provider's message that are passed on
_MAX_JSON = 1024 * 1024  # a larger body is not an error object

_NO_HEADERS = Headers()


@dataclass(slots=True)
class ErrorDetails:
    """An error's parts, as far as the provider gives them. `status` is the one inside the body, if there is one."""

    message: str = ""
    type: str | None = None
    code: str | None = None
    param: str | None = None
    status: int | None = None
    retry_delay: str | None = None  # Google's RetryInfo: "34.4s"
    extra: list[str] = field(default_factory=list)  # further machine words: Google's reasons, inner codes

    def words(self) -> set[str]:
        """Every machine-readable word of it, in lower case."""
        return {word.lower() for word in (self.type, self.code, *self.extra) if word}


# --- reading ----------------------------------------------------------------------------------------------------


def details_of(value: Any) -> ErrorDetails | None:
    """The parts of an error in any of the known shapes; None where the value holds no error.

    Known: OpenAI and Anthropic and Google `{"error": {...}}`, the same wrapped in an array, `{"error": "text"}` with or
    without `code` (Ollama, xAI), flat `{message, type, param, code}` (Mistral, Cerebras, older vLLM), `{"detail": ...}`
    (FastAPI) and OpenRouter's `metadata.raw`, which holds the body of the provider behind it.
    """
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if isinstance(error, dict):
        return _details(error)
    if isinstance(error, str) and error:
        return _details({**value, "message": error})
    if isinstance(value.get("message"), str) and "choices" not in value:
        return _details(value)
    if "detail" in value:
        return _details({"message": _detail_text(value["detail"])})
    return None


def _details(error: dict[str, Any]) -> ErrorDetails:
    code, kind = error.get("code"), error.get("type") or error.get("status")
    message = error.get("message")
    details = ErrorDetails(
        message=message if isinstance(message, str) else json.dumps(error, default=str),
        type=kind if isinstance(kind, str) else None,
        code=code if isinstance(code, str) and re.fullmatch(WORD, code) else None,  # xAI's is a sentence
        param=error["param"] if isinstance(error.get("param"), str) else None,
    )
    for number in (error.get("status_code"), code, error.get("status")):
        text = str(number)
        if details.status is None and text.isascii() and text.isdigit() and 400 <= int(text[:4]) < 600:
            details.status = int(text)
    inner = error.get("innererror")  # Azure's content filter names itself only here
    if isinstance(inner, dict) and isinstance(inner.get("code"), str):
        details.extra.append(inner["code"])
    _read_google(error.get("details"), details)
    _read_openrouter(error.get("metadata"), details)
    return details


def _read_google(listed: Any, details: ErrorDetails) -> None:
    """Google's `details[]`: the reason of an ErrorInfo, the delay of a RetryInfo; Anthropic's `{error_code}`."""
    if isinstance(listed, dict):
        listed = [listed]
    for item in listed if isinstance(listed, list) else ():
        if not isinstance(item, dict):
            continue
        for name in ("reason", "error_code"):
            if isinstance(item.get(name), str):
                details.extra.append(item[name])
        if isinstance(item.get("retryDelay"), str):
            details.retry_delay = item["retryDelay"]


def _read_openrouter(metadata: Any, details: ErrorDetails) -> None:
    if not isinstance(metadata, dict):
        return
    if isinstance(metadata.get("error_type"), str):
        details.extra.append(metadata["error_type"])
    raw = metadata.get("raw")
    if isinstance(raw, str):
        try:
            inner = details_of(orjson.loads(raw))
        except orjson.JSONDecodeError:
            inner = ErrorDetails(message=as_text(raw)) if raw.strip() else None
    else:
        inner = details_of(raw)
    if inner is not None and inner.message and inner.message not in details.message:
        name = metadata.get("provider_name")
        source = f"{name}: " if isinstance(name, str) and name else ""
        details.message = f"{details.message}: {source}{inner.message}" if details.message else inner.message
    if inner is not None:
        details.type = details.type or inner.type
        details.code = details.code or inner.code
        details.retry_delay = details.retry_delay or inner.retry_delay
        details.extra += [word for word in (inner.type, inner.code, *inner.extra) if word]


def _detail_text(detail: Any) -> str:
    """FastAPI's `detail`: a text, or a list of {loc, msg}."""
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list):
        parts = []
        for item in detail:
            if isinstance(item, dict) and isinstance(item.get("msg"), str):
                place = ".".join(str(step) for step in item.get("loc") or ())
                parts.append(f"{place}: {item['msg']}" if place else item["msg"])
        if parts:
            return "; ".join(parts)
    return json.dumps(detail, default=str)


# --- deciding ---------------------------------------------------------------------------------------------------


def from_answer(
    status: int,
    headers: Headers,
    content: bytes,
    *,
    backend: str = "",
    secrets: Sequence[Secret] = (),
    now: float | None = None,
) -> UpstreamError:
    """The failure that a whole answer means. `now` is Unix seconds, for a Retry-After that is a date.

    Without JSON, a page or an empty body of a 4xx is garbage (502), not the provider's refusal of the request.
    """
    details = None
    if content and len(content) <= _MAX_JSON:
        with contextlib.suppress(orjson.JSONDecodeError):
            details = details_of(orjson.loads(content))
    if details is None:
        text = quote(content, secrets)
        details = ErrorDetails(message=f"status {status} with {text}")
        is_page = content.lstrip()[:1] == b"<"
        if status < 400 or (status < 500 and status not in MEANINGFUL and (is_page or status in (404, 405))):
            return UpstreamProtocolError(
                f"{_named(backend)} answered {details.message}: check base_url", upstream_status=status
            )
    return _advised(classify(status, details, headers, backend=backend, secrets=secrets, now=now), headers)


def _advised(error: UpstreamError, headers: Headers) -> UpstreamError:
    """`x-should-retry` (OpenAI, Anthropic) has the last word on whether a failure passes by itself."""
    advice = headers.get("x-should-retry")
    if advice == "false" and error.fault in ("rate_limit", "overload", "server", "timeout"):
        error.fault = "unavailable"  # not here again, but elsewhere
    elif advice == "true" and error.fault == "refused":
        error.fault = "server"
    return error


def from_object(
    error: Any, headers: Headers = _NO_HEADERS, *, backend: str = "", secrets: Sequence[Secret] = ()
) -> UpstreamError:
    """The failure that an object inside a stream or a 200 means: `{"error": ...}`, or what stands under that key."""
    details = details_of(error)
    if details is None:
        if isinstance(error, dict):
            details = _details(error)
        else:
            details = ErrorDetails(message=error if isinstance(error, str) else json.dumps(error, default=str))
    return classify(None, details, headers, backend=backend, secrets=secrets)


def classify(
    status: int | None,
    details: ErrorDetails,
    headers: Headers = _NO_HEADERS,
    *,
    backend: str = "",
    secrets: Sequence[Secret] = (),
    now: float | None = None,
) -> UpstreamError:
    """One class and one fault for a provider's error. `status` is the HTTP status; None, or a 2xx, inside an answer."""
    said = status if status is not None and status >= 400 else details.status
    words = details.words()
    if said is None:
        said = next((STATUS_OF_WORD[word] for word in sorted(words) if word in STATUS_OF_WORD), None)
    details = replace(
        details,
        message=scrub(details.message, secrets)[:MAX_MESSAGE] or "no message",
        code=details.code and scrub(details.code, secrets)[:MAX_QUOTE],
        param=details.param and scrub(details.param, secrets)[:MAX_QUOTE],
    )
    fields: dict[str, Any] = {"upstream_status": said}
    refusal = _refusal(said, words, details, fields)
    if refusal is not None:
        return refusal
    where = f"{_named(backend)}: {details.message}"
    delay = retry_after(headers, details.message, details.retry_delay, now=now)
    if _is_quota(said, words, details.message, delay):
        return UpstreamError(
            where, status=429, type="insufficient_quota", code="insufficient_quota", fault="quota", **fields
        )
    if said in (401, 403) or words & DEAD_KEY:
        return UpstreamError(
            f"{_named(backend)} refused our credential: {details.message}",
            code="upstream_auth_error",
            fault="dead_key",
            **fields,
        )
    fields["retry_after"] = delay
    if said == 413 and (delay is not None or re.search(TOO_FAST, details.message)):
        said = 429  # Vertex AI says so of a quota of tokens
    if said == 429 or words & RATE_LIMIT:
        return UpstreamError(
            where, status=429, type="rate_limit_error", code="rate_limit_exceeded", fault="rate_limit", **fields
        )
    if said in (408, 504, 524):
        return UpstreamTimeout(where, **fields)
    if said in (503, 529):
        return UpstreamError(where, fault="overload", **fields)
    if said is None or said >= 500 or said == 409:
        return UpstreamError(where, **fields)
    return UpstreamRefused(
        details.message,
        status=said,
        type=details.type if details.type in OPENAI_TYPES else "invalid_request_error",
        code=details.code or ("model_not_found" if said == 404 and re.search(NO_MODEL, details.message) else None),
        param=details.param,
        upstream_status=said,
    )


def _refusal(
    status: int | None, words: set[str], details: ErrorDetails, fields: dict[str, Any]
) -> UpstreamRefused | None:
    """A prompt that is too long, or that a filter refused: whatever status the provider gives it."""
    if status in (429, 401, 402):
        return None
    if words & CONTEXT_LENGTH or (status in (None, 400, 413, 422, 500) and re.search(TOO_LONG, details.message)):
        if words & RATE_LIMIT:
            return None
        return UpstreamRefused(
            details.message,
            code="context_length_exceeded",
            param=details.param or "messages",
            fault="context_length",
            **fields,
        )
    if words & CONTENT_FILTER or (status in (None, 400, 403) and re.search(FILTERED, details.message)):
        return UpstreamRefused(
            details.message, code="content_policy_violation", param=details.param, fault="content_filter", **fields
        )
    return None


def _is_quota(status: int | None, words: set[str], message: str, delay: float | None) -> bool:
    # Google says "exceeded your current quota" of a per-minute limit too: there it gives a delay.
    if status == 402 or words & QUOTA:
        return True
    return status in (None, 400, 403, 429) and delay is None and re.search(NO_MONEY, message) is not None


def _named(backend: str) -> str:
    return f'backend "{backend}"' if backend else "the provider"
