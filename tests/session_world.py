"""Turns of a conversation: asked of a gateway over one provider, or entered into Sessions over a log that is a fake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from gw.request_log.conversations import Conversations, Past
from gw.sessions import Sessions
from gw.settings import SessionOptions
from gw.shared import LocalShared
from tests.claude_fakes import WEB
from tests.exchanges import NOW
from tests.fakes import chat_request
from tests.running import Running, settings

ALICE = {"role": "user", "content": "My name is Alice"}
WHO = {"role": "user", "content": "What is my name?"}
HI_ALICE = {"role": "assistant", "content": "Hi Alice"}
ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


def api(url: str, **options: Any) -> dict[str, Any]:
    return {"adapter": "openai", "base_url": f"{url}/v1", "model": "gpt-4", "api_key": "sk-test-key"} | options


def start(gw: Running, folder: Path, script: Any, **tables: Any) -> str:
    """A gateway over one provider, `a`."""
    provider = gw.add_provider(script)
    tables = {"server": {"shutdown_grace": 0}, "backends": {"a": api(provider.url)}} | tables
    return gw.start(settings(folder, **tables), environ=tables.pop("environ", {}))


def ask(url: str, *messages: dict[str, Any], key: str = "", **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"model": "gpt-4", "messages": list(messages)} | fields
    return WEB.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)


class FakeHistory:
    """A log that has one session, and counts how often it was waited for."""

    def __init__(self, past: Past | None) -> None:
        self.past_ = past
        self.flushed = 0
        self.unwritten: Past | None = None  # what the log has in hand, and has not written yet

    @property
    def conversations(self) -> Conversations:
        return self  # type: ignore[return-value]

    def past(self, session_id: str, key: str) -> Past | None:
        return self.past_ if key == "anonymous" else None

    def forget(self, session_id: str, key: str) -> bool:
        had, self.past_ = self.past(session_id, key), None
        return had is not None

    async def flush(self) -> None:
        self.flushed += 1
        if self.unwritten is not None:
            self.past_, self.unwritten = self.unwritten, None


def sessions_of(updated: float = NOW, **options: Any) -> tuple[Sessions, FakeHistory]:
    sessions = Sessions(SessionOptions(**options), LocalShared(), wall_clock=lambda: NOW)
    history = FakeHistory(Past([ALICE, HI_ALICE], "a", None, None, int(updated * 1000)))
    sessions.attach(history)
    return sessions, history


def turn_of(session_id: str = ID, **fields: Any) -> Any:
    request = chat_request({"messages": [WHO], "session_id": session_id}, **fields)
    request.exchange.session_id = session_id
    return request
