"""Which page a path means, and which methods it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

CHAT, MODELS, HEALTH, QUEUE, METRICS, ROUTE = "chat", "models", "health", "queue", "metrics", "route"
SESSIONS = "sessions"
UNKNOWN = "unknown"  # the operation of a path that means nothing; auth covers it too
OPERATIONS = (CHAT, MODELS, HEALTH, QUEUE, METRICS, ROUTE, SESSIONS, UNKNOWN)
MODEL_OPERATIONS = frozenset({CHAT})  # what a middleware is for unless it names its operations


class Page(NamedTuple):
    """A page by name, its operation, the methods it takes, and what the path said."""

    name: str
    operation: str
    methods: tuple[str, ...]
    parameters: Mapping[str, str] = {}


_GET = ("GET", "HEAD")
_BACKEND_CHAT = re.compile(r"/v1/([^/]+)/chat/completions")
_MODEL = re.compile(r"/v1/models/(.+)")
_SESSION = re.compile(r"/v1/sessions/([^/]+)")
_NOTHING = Page("unknown", UNKNOWN, ())


class _Pages(dict[str, Page]):
    """The fixed paths; of all others what they mean, each time anew."""

    def __missing__(self, path: str) -> Page:
        if found := _BACKEND_CHAT.fullmatch(path):
            return Page("chat", CHAT, ("POST",), {"backend": unquote(found[1])})
        if found := _MODEL.fullmatch(path):
            return Page("model", MODELS, _GET, {"model": found[1]})
        if found := _SESSION.fullmatch(path):
            return Page("session", SESSIONS, (*_GET, "DELETE"), {"session": unquote(found[1])})
        return _NOTHING


_PAGES = _Pages(
    {
        "/v1/chat/completions": Page("chat", CHAT, ("POST",)),
        "/v1/models": Page("models", MODELS, _GET),
        "/health": Page("health", HEALTH, _GET),
        "/health/live": Page("live", HEALTH, _GET),
        "/health/ready": Page("ready", HEALTH, _GET),
        "/live": Page("live", HEALTH, _GET),
        "/ready": Page("ready", HEALTH, _GET),
        "/queue/status": Page("queue", QUEUE, _GET),
        "/metrics": Page("metrics", METRICS, _GET),
        "/v1/sessions": Page("sessions", SESSIONS, _GET),
        "/route": Page("route", ROUTE, ("POST",)),
    }
)

find_page = _PAGES.__getitem__
"""The page of a path as it was sent. Backend names may hold dots and percent-encoded characters."""


def known_paths() -> Sequence[str]:
    """Every fixed path, for hints."""
    return list(_PAGES)
