"""What the two halves of one exchange with Claude must agree on: renamed tools, emulations, losses, signatures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gw.chat_parts import refusal
from gw.errors import InvalidRequest
from gw.message import Loss
from gw.models import Model
from gw.signatures import SignatureStore

# Tool names as the Messages API takes them.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
MARKS = 4  # cache breakpoints that one request may hold: a fifth is a 400

FAMILY = "anthropic"  # signatures hold on every cloud that serves Claude
FORMAT = "anthropic-claude-v1"  # `reasoning_details[].format` of what Claude signed


@dataclass(slots=True)
class Plan:
    """One exchange. The request side fills it, the answer side reads it."""

    provider: str  # "anthropic" or "vertex-anthropic", for messages
    model: Model
    signatures: SignatureStore
    scope: str = FAMILY  # whose signatures may be read
    fetches_urls: bool = True  # whether the provider follows image and document URLs
    losses: list[Loss] = field(default_factory=list)
    wire_names: dict[str, str] = field(default_factory=dict)  # client's tool name -> Claude's
    client_names: dict[str, str] = field(default_factory=dict)  # and back, where they differ
    custom: set[str] = field(default_factory=set)  # Claude's names of tools that the client sent as `custom`
    answer_tool: str | None = None  # the tool whose input is the answer, where a JSON schema is emulated
    answer_wrapped: bool = False
    strict_schema: dict[str, Any] | None = None  # what the client wants kept and Claude is not held to
    is_deprecated: bool = False  # the client speaks `functions`
    hides_reasoning: bool = False
    marked: list[dict[str, Any]] = field(default_factory=list)  # blocks with cache_control, in the order of the body

    def lose(self, pointer: str, kind: str, detail: str = "") -> None:
        """Tell that something did not travel as it was: dropped, changed or emulated."""
        self.losses.append(Loss(pointer, kind, detail))

    def cannot(self, pointer: str, what: str) -> InvalidRequest:
        """The 400 for something that this provider cannot do: `what` completes "PROVIDER cannot ..."."""
        return refusal(pointer, f"{self.provider} cannot {what}", code="unsupported_parameter")

    def wire_name(self, name: str) -> str:
        """Claude's name for a tool: the same where it may be, else a stable one made from it."""
        known = self.wire_names.get(name)
        if known is not None:
            return known
        if _NAME.fullmatch(name):
            self.wire_names[name] = name
            return name
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        safe = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:100] + "_" + digest
        self.wire_names[name] = safe
        self.client_names[safe] = name
        return safe

    def mark(self, block: dict[str, Any], part: Mapping[str, Any], pointer: str) -> None:
        """Carry a client's cache marker over to a block: `cache_control`, or OpenAI's `prompt_cache_breakpoint`."""
        control = part.get("cache_control")
        if control is None:
            breakpoint_ = part.get("prompt_cache_breakpoint")
            if not isinstance(breakpoint_, dict):
                return
            control = {"type": "ephemeral"}
            if breakpoint_.get("ttl"):  # 30m and 12h there; here the longer of two lives
                control["ttl"] = "1h"
        if not isinstance(control, dict) or control.get("type") != "ephemeral":
            self.lose(pointer + "/cache_control", "dropped", "only the type ephemeral is known")
            return
        block["cache_control"] = control
        self.marked.append(block)

    def limit_marks(self) -> None:
        """Keep at most four cache markers: the first, which other conversations share, and the last ones."""
        surplus = self.marked[1 : len(self.marked) - MARKS + 1]
        for block in surplus:
            del block["cache_control"]
        if surplus:
            self.lose("/messages", "changed", f"{len(surplus)} cache markers removed: {self.provider} takes {MARKS}")


def is_blank(text: Any) -> bool:
    """Whether a text block may not be sent: Claude refuses empty ones and those of white space alone."""
    return not isinstance(text, str) or not text or text.isspace()
