"""Text that may be shown: a short quote of what a provider sent, without keys and internal addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gw.secret import Secret

MAX_QUOTE = 200  # characters of garbage

# Patterns are texts where only a failure asks for them: `re` compiles and keeps them then, and not at every start.
_UNSEEN = r"(?is)<(script|style)\b.*?</\1>|<!--.*?-->"
_TAG = r"<[^<>]{0,2000}>"
_CONTROL = r"[\x00-\x1f\x7f-\x9f]"
_KEY = (  # the prefixes that providers give to their keys, a Google key, an OAuth token, a JWT
    r"\b(?:sk|pk|rk|gsk|xai|pplx|csk|nvapi|hf|r8|fw|tgp)[-_](?=[A-Za-z._-]*[0-9*])[A-Za-z0-9*._-]{6,}"
    r"|\bAIza[0-9A-Za-z_-]{10,}|\bya29\.[0-9A-Za-z._-]+|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)?"
)
_LABELLED = (
    r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{16,}|([?&](?:api[-_]?)?key=)[^\s&\"'<>]+|(://[^\s/@:]{0,80}:)[^\s/@]+(?=@)"
)
_INTERNAL = (
    r"(?i)https?://(?:[^\s/@]{0,200}@)?(?:localhost|127\.[0-9.]+|10\.[0-9.]+|192\.168\.[0-9.]+|169\.254\.[0-9.]+"
    r"|172\.(?:1[6-9]|2[0-9]|3[01])\.[0-9.]+|[a-z0-9.-]+\.(?:internal|local|svc|lan|corp))\b[^\s\"'<>]*"
)


def quote(content: bytes, secrets: Sequence[Secret] = ()) -> str:
    """A short, scrubbed piece of something that is no answer, in words: `an empty body`, `a web page "502 ..."`."""
    if not content.strip():
        return "an empty body"
    text = content[:4096].decode("utf-8", "replace")
    kind = "a web page" if text.lstrip().startswith("<") else "the text"
    short = scrub(as_text(text), secrets)
    return f'{kind} "{short[:MAX_QUOTE]}{"..." if len(short) > MAX_QUOTE else ""}"'


def as_text(text: str) -> str:
    """One line of words: markup and control characters become blanks."""
    if text.lstrip().startswith("<"):
        text = re.sub(_TAG, " ", re.sub(_UNSEEN, " ", text))
    return " ".join(re.sub(_CONTROL, " ", text).split())


def scrub(text: str, secrets: Sequence[Secret] = ()) -> str:
    """The text without keys: the known secrets, and whatever looks like a key, a bearer token or an internal URL."""
    for secret in secrets:
        value = secret.reveal()
        if len(value) >= 4:
            text = text.replace(value, "***")
    text = re.sub(_KEY, "***", text)
    text = re.sub(_LABELLED, r"\1\2\3***", text)
    return re.sub(_INTERNAL, "[internal address]", text)
