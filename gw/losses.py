"""What a backend cannot be told of a request: refused, sent elsewhere or told in a header, as `on_loss` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from gw.backend import Backend
from gw.errors import InvalidRequest, Unavailable
from gw.message import Loss

MAX_HEADER = 2048  # bytes of one header; beyond it the pointers are counted

# Values that ask for nothing beside what is done anyway; elsewhere 0 and false may: seed, enable_thinking.
NEUTRAL: Mapping[str, Any] = {
    "store": False,
    "logprobs": False,
    "top_logprobs": 0,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "min_p": 0,
    "repetition_penalty": 1,
    "verbosity": "medium",
}
_EMPTY: tuple[Any, ...] = (None, [], {}, "")


def escape(name: str) -> str:
    """A name as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1") if "~" in name or "/" in name else name


def unknown_fields(chat: Mapping[str, Any], known: Set[str]) -> Iterator[str]:
    """Pointers to the fields of a chat request that ask for something and are not among those an adapter reads."""
    for name, value in chat.items():
        if name in known or (name in NEUTRAL and value == NEUTRAL[name]):
            continue
        if value in _EMPTY and (value is None or name != "web_search_options"):  # which is a wish when it is empty, too
            continue
        yield f"/{escape(name)}"


def judge(backend: Backend, losses: Sequence[Loss]) -> None:
    """Raise where this backend's `on_loss` does not allow a loss.

    "reject": InvalidRequest; "reroute": Unavailable, so that the next candidate is asked.
    """
    if not losses or backend.on_loss == "allow":
        return
    first = losses[0]
    message = f'backend "{backend.name}" cannot carry {first.pointer} ({first.kind}): {first.detail or "not supported"}'
    if backend.on_loss == "reroute":
        raise Unavailable(message, status=400, type="invalid_request_error", code="unsupported_parameter")
    raise InvalidRequest(message, code="unsupported_parameter", param=first.pointer)


def told(losses: Sequence[Loss]) -> dict[str, str]:
    """The headers that tell the losses: `X-Gateway-Dropped` and `X-Gateway-Changed`, where there are any."""
    headers = {
        "X-Gateway-Dropped": _pointers(losses, "dropped"),
        "X-Gateway-Changed": _pointers(losses, "changed", "emulated"),
    }
    return {name: value for name, value in headers.items() if value}


def _pointers(losses: Sequence[Loss], *kinds: str) -> str:
    # Field names are the client's: they are written in visible ASCII only.
    pointers = [
        loss.pointer.encode("ascii", "backslashreplace").decode().replace(",", "%2C").replace(" ", "%20")
        for loss in losses
        if loss.kind in kinds
    ]
    text = ", ".join("".join(c if " " <= c <= "~" else "?" for c in pointer) for pointer in pointers)
    return text if len(text) <= MAX_HEADER else f"{len(pointers)} fields"
