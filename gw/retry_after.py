"""How long a provider wants to be left alone, in every spelling in use, as seconds."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime

from gw.message import Headers

MAX_RETRY_AFTER = 86_400.0  # seconds; a longer wait is a mistake or a closed account

_RETRY_IN = r"(?i)(?:try again|retry) (?:in|after) ((?:[0-9.]{1,12} ?(?:ms|h|m|s)[a-z]* ?){1,4})"
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_LONG = re.compile(r"[0-9]{16,}")
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|[hms][a-z]*)){1,4}")
_PART = re.compile(r"([0-9.]+)(ms|[hms])")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def retry_after(
    headers: Headers, text: str = "", retry_delay: str | None = None, *, now: float | None = None
) -> float | None:
    """Seconds for which the provider wants to be left alone; None where it does not say.

    In this order: `retry-after-ms`, `retry-after` (seconds or a date), Google's RetryInfo, "retry in 48.9s" in the
    text, then the reset of the rate limits that are used up. Never negative, at most a day. A date is measured from
    the answer's own Date where it has one, so that a wrong clock here does no harm.
    """
    seconds = _from_headers(headers, now)
    if seconds is None and retry_delay:
        seconds = duration(retry_delay)
    if seconds is None and (found := re.search(_RETRY_IN, text)):
        seconds = duration(found[1].replace(" ", ""))
    if seconds is None:
        seconds = _from_resets(headers, now)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def duration(text: str) -> float | None:
    """Seconds of "2ms", "7.66s", "1h3m", "6m0s" or a bare number of seconds; None for anything else."""
    text = text.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    if not text or not _DURATION.fullmatch(text):
        return None
    return math.fsum(float(number) * _UNITS[unit[0] if unit != "ms" else unit] for number, unit in _PART.findall(text))


def _from_headers(headers: Headers, now: float | None) -> float | None:
    milliseconds = headers.get("retry-after-ms").strip()
    if _NUMBER.fullmatch(milliseconds) and float(milliseconds) > 0:
        return float(milliseconds) / 1000
    value = headers.get("retry-after").strip()
    if not value:
        return 0.0 if milliseconds and _NUMBER.fullmatch(milliseconds) else None
    seconds = MAX_RETRY_AFTER if _LONG.fullmatch(value) else duration(value)
    if seconds is not None:
        return seconds
    until = _date(value)
    return None if until is None else until - _now(headers, now)


def _from_resets(headers: Headers, now: float | None) -> float | None:
    """The longest reset among the limits that have nothing left, or whose rest is unknown."""
    longest: float | None = None
    for name, value in headers.pairs:
        if b"ratelimit" not in name or b"reset" not in name:
            continue
        left = headers.get(name.decode("latin-1").replace("reset", "remaining"))
        if left.strip() not in ("", "0"):
            continue
        seconds = until_reset(value.decode("latin-1").strip(), headers, now)
        if seconds is not None:
            longest = seconds if longest is None else max(longest, seconds)
    return longest


def until_reset(text: str, headers: Headers, now: float | None = None) -> float | None:
    """Seconds until a rate limit's reset, told as a duration or as a moment; None where it is neither.

    `now` is Unix seconds, for headers without a Date.
    """
    seconds = duration(text)
    if seconds is None and "T" in text:
        try:
            return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() - _now(headers, now)
        except ValueError:
            return None
    if seconds is not None and seconds > 1e9:  # since 1970, in seconds or in milliseconds
        seconds = (seconds / 1000 if seconds > 1e11 else seconds) - _now(headers, now)
    return seconds


def _date(value: str) -> float | None:
    import email.utils  # brings fifteen modules along, and hardly any provider answers with a date

    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _now(headers: Headers, now: float | None) -> float:
    sent = _date(headers.get("date")) if "date" in headers else None
    return sent if sent is not None else (time.time() if now is None else now)
