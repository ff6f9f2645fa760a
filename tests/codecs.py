"""What the tests of several adapters do with a codec: open it for a request, read a stream with it to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import orjson

from gw.adapter import Codec
from gw.document import Chunk
from gw.errors import GatewayError
from gw.message import Request

T = TypeVar("T", covariant=True)


class Opens(Protocol[T]):
    """An adapter, with the codec of its own."""

    def open(self, request: Request) -> T: ...


def opened_untouched(adapter: Opens[T], request: Request) -> T:
    """The adapter's codec for a request of which nothing was changed in place."""
    document = request.document
    assert document is not None
    before = orjson.dumps(document.peek())
    codec = adapter.open(request)
    assert not document.is_opened
    assert orjson.dumps(document.peek()) == before
    return codec


def read_all(codec: Codec, pieces: Sequence[bytes]) -> tuple[list[dict[str, Any]], GatewayError | None]:
    """Every chunk that comes out, and the error that ended the stream if one did."""
    found: list[Chunk] = []
    error: GatewayError | None = None
    try:
        for piece in pieces:
            found += codec.feed(piece)
        found += codec.finish()
    except GatewayError as broken:
        error = broken
    return [orjson.loads(chunk.raw) for chunk in found], error
