"""What went wrong in a Claude process, told by what it says and never by its exit status alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gw.errors import (
    GatewayError,
    UpstreamConnectionError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRefused,
    UpstreamTimeout,
)
from gw.provider_errors import ErrorDetails, classify, quote, scrub
from gw.secret import Secret

# "You've hit your limit · resets 1pm (Europe/Berlin)", "Claude AI usage limit reached|1763740800"
_LIMIT = re.compile(r"(?:hit|reached) your [\w -]{0,40}limit|\blimit reached\b", re.IGNORECASE)
_MOMENT = re.compile(r"\|\s*(\d{10})(?:\d{3})?\b")
_RESET = re.compile(
    r"resets?(?: at)? (?:(?P<month>[A-Z][a-z]{2})[a-z]* (?P<day>\d{1,2}),?(?: at)? )?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))? ?(?P<half>[ap]m)?(?: \((?P<zone>[\w/+-]+)\))?",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NO_LOGIN = re.compile(r"not logged in|please run /login|invalid api key", re.IGNORECASE)
_TOO_LONG = re.compile(r"prompt is too long", re.IGNORECASE)
_NO_CONNECTION = re.compile(r"connection (?:refused|error|reset|closed)|can't reach the api", re.IGNORECASE)
_TIMED_OUT = re.compile(r"timed out", re.IGNORECASE)
_ENDED_BY = {
    "error_max_turns": "it reached its limit of turns",
    "error_max_budget_usd": "it reached its budget",
    "error_during_execution": "it was interrupted or could not start",
}


class Failures:
    """The failures of one backend's processes. `now` gives Unix seconds."""

    def __init__(self, backend: str, secrets: Sequence[Secret], now: Callable[[], float]) -> None:
        self._named = f'backend "{backend}"'
        self._backend = backend
        self._secrets = secrets
        self._now = now

    def of_result(self, result: Mapping[str, Any]) -> GatewayError:
        """The failure that a result line means: by the provider's status where it tells one, else by its words."""
        text = self._text(result)
        if _LIMIT.search(text):
            return UpstreamError(
                f"{self._named}: {text}",
                status=429,
                type="rate_limit_error",
                code="rate_limit_exceeded",
                fault="rate_limit",
                retry_after=reset_after(text, self._now()),
                upstream_status=429,
            )
        if _NO_LOGIN.search(text):
            cure = "log in once with this config_dir (CLAUDE_CONFIG_DIR=... claude), or set api_key_env"
            return UpstreamError(f"{self._named}: {text}: {cure}", code="upstream_auth_error", fault="dead_key")
        if _TOO_LONG.search(text):
            return UpstreamRefused(text, code="context_length_exceeded", param="messages", fault="context_length")
        status = result.get("api_error_status")
        if isinstance(status, int):
            kind = result.get("api_error_type")
            details = ErrorDetails(message=text, type=kind if isinstance(kind, str) else None)
            return classify(status, details, backend=self._backend, secrets=self._secrets)
        if _TIMED_OUT.search(text):
            return UpstreamTimeout(f"{self._named}: {text}")
        if _NO_CONNECTION.search(text):
            return UpstreamConnectionError(f"{self._named}: {text}")
        ended = _ENDED_BY.get(str(result.get("subtype")))
        return UpstreamError(f"{self._named}: {': '.join(part for part in (ended, text) if part)}")

    def of_exit(self, status: int | None, errors: bytes, garbage: bytes) -> GatewayError:
        """The failure of a process that ended without a result."""
        said = errors.strip() or garbage
        how = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
        told = f", saying {quote(said, self._secrets)}" if said.strip() else " without a word"
        if _NO_LOGIN.search(said.decode("utf-8", "replace")):
            return self.of_result({"result": said.decode("utf-8", "replace")})
        return UpstreamProtocolError(f"{self._named}: the claude process ended before its answer ({how}){told}")

    def garbage(self, what: str) -> UpstreamProtocolError:
        """The failure of a process that writes what it should not."""
        return UpstreamProtocolError(f"{self._named}: the claude process {what}")

    def timeout(self, what: str) -> UpstreamTimeout:
        """The failure of a process that takes too long."""
        return UpstreamTimeout(f"{self._named}: {what}")

    def _text(self, result: Mapping[str, Any]) -> str:
        errors = result.get("errors")
        parts = [result.get("result"), *(errors if isinstance(errors, list) else ())]
        text = " ".join(part for part in parts if isinstance(part, str)).strip()
        return scrub(" ".join(text.split()), self._secrets)[:2000] or "no message"


def reset_after(text: str, now: float) -> float | None:
    """Seconds until a usage limit is lifted, from the program's own words; None where they do not say.

    A clock time without a zone is this machine's; one that has passed today is tomorrow's.
    """
    if moment := _MOMENT.search(text):
        return max(0.0, float(moment[1]) - now)
    found = _RESET.search(text)
    if found is None:
        return None
    try:
        zone = ZoneInfo(found["zone"]) if found["zone"] else None
    except (ZoneInfoNotFoundError, ValueError):
        zone = None
    today = datetime.fromtimestamp(now, zone) if zone else datetime.fromtimestamp(now).astimezone()
    hour = int(found["hour"])
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"].lower() == "pm" else 0)
    try:
        reset = today.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
        if found["month"]:
            reset = reset.replace(month=_MONTHS.index(found["month"].lower()) + 1, day=int(found["day"]))
    except ValueError:
        return None
    if reset <= today:
        reset = reset.replace(year=reset.year + 1) if found["month"] else reset + timedelta(days=1)
    return (reset - today).total_seconds()
