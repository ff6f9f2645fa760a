"""Thought signatures of earlier turns: found in whatever form a client kept them, and left out where foreign.

Out they go as `reasoning_details` (format `google-gemini-v1`), on tool calls also as
`extra_content.google.thought_signature`, Google's own place on its OpenAI-compatible endpoint. Any part may be signed,
and OpenAI's content has no parts: a detail's `id` tells the tool call, the piece of the text or the image.
https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gw.adapters.gemini.draft import Draft

FORMAT = "google-gemini-v1"
# Google's documented value for a history that another model wrote; the field is bytes, hence base64.
SKIP = base64.b64encode(b"skip_thought_signature_validator").decode()


_PLACE = re.compile(r"(text|image)-([0-9]{1,9})-([0-9]{1,9})")


class Mark(NamedTuple):
    """The signature of a piece of the visible text or of an image, and where in the text that stands."""

    start: int
    end: int
    image: int | None  # which one
    signature: str


def text_place(start: int, end: int) -> str:
    """The `id` of a signature of the visible text between two places in it."""
    return f"text-{start}-{end}"


def image_place(number: int, at: int) -> str:
    """The `id` of the signature of an image, at its place in the visible text."""
    return f"image-{number}-{at}"


def _mark(call_id: str, signature: str) -> Mark | None:
    """None where it is a tool call's."""
    found = _PLACE.fullmatch(call_id)
    if found is None:
        return None
    first, second = int(found[2]), int(found[3])
    return Mark(first, second, None, signature) if found[1] == "text" else Mark(second, second, first, signature)


class Signed(NamedTuple):
    """The signatures that an assistant message carries."""

    thoughts: list[tuple[str, str]]  # thoughts that are signed themselves: text, signature
    text: str | None  # of the visible text as a whole
    calls: Mapping[str, str]  # tool call id -> signature
    marks: Sequence[Mark] = ()  # in the order of their parts

    def of_call(self, call: Mapping[str, Any]) -> str | None:
        """The signature of a tool call: on the call itself, or under its id."""
        return _google_signature(call) or self.calls.get(call.get("id") or "")


UNSIGNED = Signed([], None, {})


def read_signed(message: Mapping[str, Any], pointer: str, draft: Draft) -> Signed:
    """The signatures in an assistant message; those of other providers are told as dropped."""
    details = message.get("reasoning_details")
    if not isinstance(details, list):
        if message.get("reasoning_content") or message.get("reasoning"):
            place = "reasoning_content" if message.get("reasoning_content") else "reasoning"
            draft.drop(f"{pointer}/{place}", f"{draft.provider} takes no unsigned thoughts")
        text = _google_signature(message)
        return UNSIGNED if text is None else Signed([], text, {})
    thoughts: dict[Any, tuple[str, str]] = {}
    text, calls, is_foreign = _google_signature(message), {}, False
    marks: list[Mark] = []
    for at, detail in enumerate(details):
        if not isinstance(detail, dict) or not str(detail.get("format") or "").startswith("google-gemini"):
            is_foreign = True
        elif detail.get("type") == "reasoning.text":
            key = detail.get("index", at)  # fragments of one block share an index
            before, mark = thoughts.get(key, ("", ""))
            thoughts[key] = before + (detail.get("text") or ""), detail.get("signature") or mark
        elif detail.get("type") == "reasoning.encrypted" and isinstance(detail.get("data"), str):
            call_id, signature = detail.get("id"), detail["data"]
            if not isinstance(call_id, str) or not call_id:
                text = signature
            elif (found := _mark(call_id, signature)) is not None:
                marks.append(found)
            else:
                calls[call_id] = signature
    if is_foreign:
        draft.drop(f"{pointer}/reasoning_details", "signed by another provider")
    return Signed([(words, mark) for words, mark in thoughts.values() if mark], text, calls, marks)


def _google_signature(holder: Mapping[str, Any]) -> str | None:
    if "extra_content" not in holder and "provider_specific_fields" not in holder:
        return None
    extra = holder.get("extra_content")
    if isinstance(extra, dict):
        google = extra.get("google")
        signature = google.get("thought_signature") if isinstance(google, dict) else None
        if isinstance(signature, str):
            return signature
    fields = holder.get("provider_specific_fields")  # where LiteLLM puts it
    signature = fields.get("thought_signature") if isinstance(fields, dict) else None
    return signature if isinstance(signature, str) else None
