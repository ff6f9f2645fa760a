"""The table of README's section Providers, made by asking every adapter: `python -m tests.feature_matrix`.

Each cell is what an adapter does with a request that uses the feature: `yes` where it travels as it is, `emulated` or
`changed` or `dropped` where that is told to the client, `400` where the request is refused before anything is sent. The
last rows are read off the answers in tests/data/wire, which the recording tests hold the adapters to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gw.errors import InvalidRequest
from tests.codecs import ADAPTERS, codec_of
from tests.conversations import PIXEL, TOOLS
from tests.recordings import Case, cases

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- providers: begin -->\n", "<!-- providers: end -->\n"

_ASK = [{"role": "user", "content": "Hi"}]
_CALL = {"id": "call_1", "type": "function", "function": {"name": "g", "arguments": "{}"}}
_LOOP = [
    *_ASK,
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
]
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def _part(**part: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, part]}]}


FEATURES: dict[str, dict[str, Any]] = {
    "`tools`, parallel calls, results": {"messages": _LOOP, "tools": TOOLS[1:]},
    "`tool_choice: required`": {"tools": TOOLS[1:], "tool_choice": "required"},
    "`tool_choice` of one function": {
        "tools": TOOLS[1:],
        "tool_choice": {"type": "function", "function": {"name": "g"}},
    },
    "`parallel_tool_calls: false`": {"tools": TOOLS[1:], "parallel_tool_calls": False},
    "`functions` (deprecated)": {"functions": [{"name": "g", "parameters": {"type": "object", "properties": {}}}]},
    "`response_format: json_object`": {"response_format": {"type": "json_object"}},
    "`response_format: json_schema`": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}
    },
    "`reasoning_effort`": {"reasoning_effort": "low"},
    "images inside the request": _part(type="image_url", image_url={"url": f"data:image/png;base64,{PIXEL}"}),
    "images at an address (without `fetch`)": _part(
        type="image_url", image_url={"url": "https://images.example/a.png"}
    ),
    "PDFs": _part(type="file", file={"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjc="}),
    "audio in": _part(type="input_audio", input_audio={"data": "UklGRg==", "format": "wav"}),
    "`developer` messages": {"messages": [{"role": "developer", "content": "Be brief."}, *_ASK]},
    "`max_tokens`": {"max_tokens": 50},
    "`max_completion_tokens`": {"max_completion_tokens": 50},
    "`temperature`": {"temperature": 0.5},
    "`stop`": {"stop": ["END"]},
    "`seed`": {"seed": 1},
    "`n: 2`": {"n": 2},
    "`logprobs`": {"logprobs": True, "top_logprobs": 2},
    "`logit_bias`": {"logit_bias": {"50256": -100}},
    "`frequency_penalty`": {"frequency_penalty": 0.5},
    "`user`": {"user": "u-1"},
    "fields that gw does not know": {"future_field": 1},
}
_MILDEST_LAST = ("dropped", "emulated", "changed")

ANSWERS: dict[str, Callable[[Case], bool]] = {
    "thinking as `reasoning_content`": lambda case: bool(case.expect.get("reasoning")),
    "signatures carried over turns": lambda case: bool(case.expect.get("signatures")),
    "refusals and safety blocks": lambda case: (
        case.expect.get("finish_reason") == "content_filter" or bool(case.expect.get("refusal"))
    ),
    "calls in streams": lambda case: case.stream and bool(case.expect.get("tool_calls")),
    "usage": lambda case: bool(case.expect.get("usage")),
}
_DIALECT_OF = {
    "anthropic": "anthropic-messages",
    "vertex-anthropic": "anthropic-messages",
    "gemini": "gemini",
    "vertex-gemini": "gemini",
    "ollama": "ollama-chat",
}


def cell(provider: str, chat: dict[str, Any]) -> str:
    """What the adapter of a provider does with a request."""
    try:
        kinds = {loss.kind for loss in codec_of(provider, {"messages": _ASK} | chat).losses}
    except InvalidRequest:
        return "400"
    return next((kind for kind in _MILDEST_LAST if kind in kinds), "yes")


def own_cases(dialect: str) -> list[Case]:
    """The answers in tests/data/wire, which are there wherever the tests are."""
    return [case for case in cases(dialect) if case.id.startswith("own-")]


def table() -> str:
    """The whole table as Markdown."""
    head = "| | " + " | ".join(ADAPTERS) + " |\n|---" + "|---" * len(ADAPTERS) + "|\n"
    lines = [
        f"| {feature} | " + " | ".join(cell(provider, chat) for provider in ADAPTERS) + " |\n"
        for feature, chat in FEATURES.items()
    ]
    for feature, has in ANSWERS.items():
        found = {
            dialect: any(has(case) for case in own_cases(dialect)) for dialect in {*_DIALECT_OF.values(), "openai-chat"}
        }
        cells = ["yes" if found[_DIALECT_OF.get(provider, "openai-chat")] else "-" for provider in ADAPTERS]
        lines.append(f"| {feature} | " + " | ".join(cells) + " |\n")
    return head + "".join(lines)


def rewritten(readme: str) -> str:
    """The README with the table of now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
    sys.stdout.write(table())
