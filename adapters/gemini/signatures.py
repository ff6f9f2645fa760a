"""Thought signatures of earlier turns: found in whatever form a client kept them, and left out where foreign.

Out they go as `reasoning_details` (format `google-gemini-v1`), on tool calls also as
`extra_content.google.thought_signature`, Google's own place on its OpenAI-compatible endpoint.
https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from gw.adapters.gemini.draft import Draft

FORMAT = "google-gemini-v1"
# Google's documented value for a history that another model wrote; the field is bytes, hence base64.
SKIP = base64.b64encode(b"skip_thought_signature_validator").decode()


class Signed(NamedTuple):
    """The signatures that an assistant message carries."""

    thoughts: list[tuple[str, str]]  # thoughts that are signed themselves: text, signature
    text: str | None  # of the visible text
    calls: Mapping[str, str]  # tool call id -> signature

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
    for at, detail in enumerate(details):
        if not isinstance(detail, dict) or not str(detail.get("format") or "").startswith("google-gemini"):
            is_foreign = True
        elif detail.get("type") == "reasoning.text":
            key = detail.get("index", at)  # fragments of one block share an index
            before, mark = thoughts.get(key, ("", ""))
            thoughts[key] = before + (detail.get("text") or ""), detail.get("signature") or mark
        elif detail.get("type") == "reasoning.encrypted" and isinstance(detail.get("data"), str):
            if detail.get("id"):
                calls[detail["id"]] = detail["data"]
            else:
                text = detail["data"]
    if is_foreign:
        draft.drop(f"{pointer}/reasoning_details", "signed by another provider")
    return Signed([(words, mark) for words, mark in thoughts.values() if mark], text, calls)


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
