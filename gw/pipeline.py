"""The onion: handlers, middleware, and the one function that folds a list of them into a handler.

    Handler[T]    an async function from a T (canonical `Request`, or `WireRequest`) to its answer
    Middleware    gets a T and the next handler; calls it once to pass through, never to answer alone, again to retry

Values go in and values come out; nothing is answered by side effect.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import MethodType
from typing import Any, TypeVar

from gw.document import Completion
from gw.errors import GatewayError
from gw.message import Request, Response
from gw.near import near
from gw.paths import OPERATIONS
from gw.stream import ListStream, Stream
from gw.whole_as_chunks import chunks_of

In = TypeVar("In")
Out = TypeVar("Out")

Handler = Callable[[Request], Awaitable[Response]]
Middleware = Callable[[Request, Handler], Awaitable[Response]]


def compose(
    middleware: Sequence[Callable[[In, Callable[[In], Awaitable[Out]]], Awaitable[Out]]],
    handler: Callable[[In], Awaitable[Out]],
) -> Callable[[In], Awaitable[Out]]:
    """Fold a list of middleware, outermost first, around a handler. Done once, at start.

    Works on both sides of `translate`: canonical (Request, Response) and wire (WireRequest, WireResponse).
    """
    for layer in reversed(middleware):
        handler = _wrap(layer, handler)
    return handler


def _wrap(
    layer: Callable[[In, Callable[[In], Awaitable[Out]]], Awaitable[Out]],
    inner: Callable[[In], Awaitable[Out]],
) -> Callable[[In], Awaitable[Out]]:
    # To call an object has its class searched for `__call__` each time; that costs 640 instructions of 1,500.
    bound = getattr(layer, "__call__", layer)  # noqa: B004 (wanted is the method, not whether there is one)
    call = bound if isinstance(bound, MethodType) else layer

    # A plain def that returns the layer's own coroutine: no second coroutine per layer.
    def handle(request: In) -> Awaitable[Out]:
        return call(request, inner)

    return handle


def guarded(name: str, layer: Any) -> Middleware:
    """A stranger's middleware, with the likely mistake named where it does not give back a Response."""

    async def guard(request: Request, call_next: Handler) -> Response:
        awaitable = layer(request, call_next)
        if not hasattr(awaitable, "__await__"):
            raise MiddlewareError(f'middleware "{name}" is not asynchronous: write `async def`')
        try:
            response = await awaitable
        except GatewayError as error:
            _check_head(name, error.status, error.headers)
            raise
        if not isinstance(response, Response):
            raise MiddlewareError(
                f'middleware "{name}" returned {type(response).__name__} instead of a Response: '
                "end it with `return await call_next(request)`"
            )
        try:
            _check_head(name, response.status, response.headers)
            response.content = _checked_content(name, response.content, is_stream=request.is_stream)
        except MiddlewareError:
            await response.aclose()
            raise
        return response

    return guard


def _checked_content(name: str, content: Any, *, is_stream: bool) -> bytes | Completion | Stream:
    """What it answered with; a whole answer to a request for a stream, from a cache say, is made a stream here."""
    if isinstance(content, Completion):
        return _streamed(name, content) if is_stream else content
    if isinstance(content, Stream):
        if not is_stream:
            raise MiddlewareError(f'middleware "{name}" answered with a stream where none was asked for')
        return content
    if not isinstance(content, bytes):
        kind = type(content).__name__
        raise MiddlewareError(
            f'middleware "{name}" put {kind} into `response.content`, which holds bytes, a Completion or a Stream: '
            "change the chunks of a stream with `response.content.map(function)`"
        )
    return content


def _streamed(name: str, completion: Completion) -> Stream:
    try:
        return ListStream(chunks_of(completion))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise MiddlewareError(
            f'middleware "{name}" answered with a Completion that has no `choices` with a `message` each'
        ) from error


def _check_head(name: str, status: int, headers: Mapping[str, str]) -> None:
    """Refuse what the server could not send, here where the culprit is known and the exchange is not yet recorded."""
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise MiddlewareError(f'middleware "{name}" answered with status {status!r}: give a number from 200 to 599')
    for field, value in headers.items():
        if not (isinstance(value, str) and _FIELD.fullmatch(str(field)) and _VALUE.fullmatch(value)):
            raise MiddlewareError(
                f'middleware "{name}" set the header {field!r:.60} to what HTTP cannot carry: '
                "give a string in latin-1 without line breaks and control characters"
            )


_FIELD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 5.5


def mistakes(layer: Any, *, as_written: bool = False) -> list[str]:
    """What of a middleware can be told to be wrong before it runs, each with its cure.

    `as_written`: it is what a file says, not what a program has made: what others wrap may return an awaitable.
    """
    found = []
    is_def = as_written and inspect.isfunction(layer) and not inspect.iscoroutinefunction(inspect.unwrap(layer))
    if is_def or inspect.isasyncgenfunction(layer):
        found.append(f"{layer.__qualname__} is not asynchronous: write `async def {layer.__name__}{_TAKES}`")
    elif not _takes_two(layer):
        found.append(f"it is called with two arguments: write `async def {_name(layer)}{_TAKES}`")
    named = getattr(layer, "operations", None)
    if named is None:
        return found
    if not isinstance(named, Collection) or (isinstance(named, str) and named != "*"):
        return [*found, f'operations is a set of names such as {{"chat", "models"}}; found {named!r:.60}']
    known = f'(there are: {", ".join(sorted(OPERATIONS))}; "*" is all)'
    return found + [
        f'operations: nothing is called "{operation}"{near(str(operation), OPERATIONS)} {known}'
        for operation in named
        if operation not in (*OPERATIONS, *ALL)
    ]


_TAKES = "(request, call_next)` with `return await call_next(request)"


def _takes_two(layer: Any) -> bool:
    try:
        inspect.signature(layer).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # made in C: it does not say
        return True
    return True


def _name(layer: Any) -> str:
    return layer.__name__ if inspect.isroutine(layer) else "__call__"


class MiddlewareError(TypeError):
    """A middleware broke the contract; the message names it, the mistake and the cure."""


def is_head_only(middleware: Any) -> bool:
    """Whether it decides on the head alone, before a body is read."""
    return bool(getattr(middleware, "head_only", False))


def side(middleware: Any) -> str:
    """Which side of `translate` it belongs to: "call" (canonical form, the default) or "wire"."""
    return str(getattr(middleware, "side", "call"))


def operations(middleware: Any) -> frozenset[str] | None:
    """The operations it names: None for the default (every model operation), ALL for everything."""
    named = getattr(middleware, "operations", None)
    return None if named is None else frozenset(named)


ALL = frozenset({"*"})  # an `operations` value: unknown paths and status pages too
