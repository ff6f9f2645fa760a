"""What the tests of the openai adapter's answers share: a codec, what a client reads of a stream, pieces of a call."""

from __future__ import annotations

from typing import Any

import orjson

from gw.adapters.openai import OpenAI, OpenAICodec
from gw.backend import Backend
from gw.message import Candidate
from tests.fakes import chat_request, chunk, sse
from tests.recordings import Reading, check_laws, read_chunks


def codec(stream: bool = True, model: str = "gpt-4") -> OpenAICodec:
    adapter = OpenAI(base_url="http://127.0.0.1:8000/v1")
    backend = Backend(name="b", kind="openai", adapter=adapter)
    request = chat_request({"stream": stream}, candidates=(Candidate(backend, "upstream", model),))
    return adapter.open(request)


def read(*pieces: bytes, model: str = "gpt-4") -> list[dict[str, Any]]:
    """The canonical chunks of a stream; they keep the laws."""
    opened = codec(model=model)
    found = [one for piece in pieces for one in opened.feed(piece)]
    values = [orjson.loads(one.raw) for one in (*found, *opened.finish())]
    check_laws(values)
    return values


def reading(*values: dict[str, Any], done: bool = True) -> Reading:
    return read_chunks(read(sse(*values, done=done)))


def calls(*fragments: dict[str, Any], finish: str = "tool_calls") -> Reading:
    """A stream of tool call fragments, one a chunk, and its end."""
    return reading(*(chunk({"tool_calls": [fragment]}) for fragment in fragments), chunk({}, finish))


def fragment(arguments: Any = "", *, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name is not None else {})
    return {"function": function, **fields}
