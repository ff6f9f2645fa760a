"""What is kept of what was said: the question as JSON, the answer as text, and the rest of it as metadata."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import orjson

from gw.document import Document
from gw.message import Exchange
from gw.request_log.answers import is_more_than_text, messages_of, text_of
from gw.request_log.media import IN_TEXT, MARK, elided, has_media, redacted
from gw.request_log.tables import TYPES

logger = logging.getLogger("gw.log")

Content = Literal["full", "redacted", "none"]
TRUNCATED = "gw.log.truncated"  # the attribute of an exchange whose answer was too large to be kept whole
ANSWER = "gw.log.answer"  # ... that holds the text of a whole answer, None where it says more; see `answers.said_by`
MAX_NAME = 1000  # characters of whatever a client names: model, session, path
LARGE = 64 * 1024  # bytes of a request that may hold media: they are taken out before it is written as JSON
_KEPT = 256  # paths
_FIELDS = ("messages", "input", "prompt")
_NOTHING: Mapping[str, Any] = {}


class ContentKeeper:
    """Reads an exchange's content in one of three modes: all but media, lengths only, or nothing."""

    def __init__(self, content: Content) -> None:
        self._is_full = content == "full"
        self._is_any = content != "none"
        self._posts: dict[str, str] = {}  # the metadata of a POST of which there is no more, made once for each path

    def read(self, exchange: Exchange) -> tuple[str | None, str, str | None, str]:
        """Working directory, prompt, response and metadata. What cannot be read is left out."""
        document, method, path = exchange.request, exchange.method, exchange.path
        try:
            try:
                chat: Mapping[str, Any] = _NOTHING if document is None else document.peek()
            except ValueError:  # refused as bad JSON; what it holds may be anything, so nothing of it is kept
                chat = _NOTHING
            folder = chat.get("working_directory")
            if folder is not None:
                folder = folder[:MAX_NAME] if isinstance(folder, str) else None
            prompt, response, more = "", None, None
            if self._is_any:
                attributes = exchange.attributes
                if len(attributes) != 2 or ANSWER not in attributes:  # in most there is only what the log keeps there
                    more = self._notes(attributes)
                prompt = self._prompt(document, chat)
                said = exchange.response
                if said:
                    response = attributes.get(ANSWER) if len(said) == 1 and not exchange.stream else None
                    if response is None or not self._is_full or (MARK in response and IN_TEXT in response):
                        more = more or {}
                        response = self._response(exchange, response, more)
            if not more and method == "POST":
                return folder, prompt, response, self._posts.get(path) or self._post(path)
            return folder, prompt, response, to_json({"method": method, "path": path[:MAX_NAME]} | (more or {}))
        except Exception as error:
            logger.warning("the content of request %s is left out: %s", exchange.id, type(error).__name__)
            return None, "", None, to_json({"method": method, "content": "left out: it could not be read"})

    def _post(self, path: str) -> str:
        metadata = to_json({"method": "POST", "path": path[:MAX_NAME]})
        if len(self._posts) < _KEPT and len(path) <= MAX_NAME:
            self._posts[path] = metadata
        return metadata

    def _prompt(self, document: Document | None, chat: Mapping[str, Any]) -> str:
        """The messages as JSON, without media."""
        messages = chat.get("messages")
        if messages is None:
            for name in _FIELDS:
                if name in chat:
                    messages = chat[name]
                    break
            else:
                return ""
        if not self._is_full:
            return to_json(redacted(messages))
        are_texts = document is not None and 0 < (document.characters or 0) < LARGE
        if not are_texts and (document is None or document.is_opened or len(document.raw) > LARGE):
            return to_json(elided(messages))
        # Written first and searched as it stands: without media, a short one costs 1 us instead of 4.
        written = orjson.dumps(messages, default=str).decode()
        if (MARK in written and IN_TEXT in written) if are_texts else has_media(written):
            return to_json(elided(messages))
        return written

    def _response(self, exchange: Exchange, only: str | None, more: dict[str, Any]) -> str | None:
        """The answer's text, which is `only` where it is known. What else it says goes to the metadata, `more`."""
        keep = elided if self._is_full else redacted
        if only is not None:
            return str(keep(only))
        messages = messages_of(exchange.response)
        if not messages:
            return None
        if len(messages) > 1:
            more["messages"] = keep(messages)
        elif is_more_than_text(messages[0]):
            more["message"] = keep(messages[0])
        return str(keep(text_of(messages[0])))

    def _notes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """What is to be told beside the content: the tags that somebody's middleware set, and that it was cut."""
        more: dict[str, Any] = {}
        if self._is_full:
            tags = {k: v for k, v in attributes.items() if not k.startswith("gw.") and type(v) in TYPES}
            if tags:
                more["attributes"] = tags
        if TRUNCATED in attributes:
            more["truncated"] = True
        return more


def to_json(value: Any) -> str:
    """JSON of whatever there is; what has no JSON as its text."""
    return orjson.dumps(value, default=str).decode()
