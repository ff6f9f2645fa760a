"""A small client for a running gateway: `client.chat.completions.create(...)`, sync and async, whole and streamed.

    client = GatewayClient(base_url="http://127.0.0.1:3456")
    answer = client.chat.completions.create(messages=[{"role": "user", "content": "Hello!"}])
    print(answer.choices[0].message.content)

With `stream=True` the call gives an iterator of chunks, to be used in a `with` or read to its end. `AsyncGatewayClient`
is the same with `await` and `async for`. Whoever has the `openai` package uses that instead: gw speaks its language.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import orjson

from gw.errors import GatewayError
from gw.sse import Event, SSEDecoder

DEFAULT_URL = "http://127.0.0.1:3456"
TIMEOUT = httpx.Timeout(600.0, connect=5.0)  # a whole answer may take minutes


class Value(dict[str, Any]):
    """A JSON object whose members can also be read as attributes: `answer.choices[0].message.content`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the answer has no {name!r} (it has: {', '.join(self)})") from None


def _value(raw: bytes) -> Value:
    try:
        value = _wrap(orjson.loads(raw))
    except ValueError as error:
        raise APIError(f"the gateway answered what is no JSON: {raw[:200]!r}", status=502) from error
    if not isinstance(value, Value):
        raise APIError(f"the gateway answered {type(value).__name__} instead of an object", status=502)
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, dict):
        return Value({name: _wrap(member) for name, member in value.items()})
    if isinstance(value, list):
        return [_wrap(member) for member in value]
    return value


class APIError(GatewayError):
    """The gateway said no: `status`, `type`, `code` and `param` are those of its answer; 0 is no answer at all."""


def _failure(status: int, content: bytes, retry_after: str | None = None) -> APIError:
    try:
        told = orjson.loads(content)["error"]
        fields = {name: told.get(name) for name in ("type", "code", "param")}
        message = str(told["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        fields, message = {}, content[:200].decode("utf-8", "replace") or f"status {status} without a body"
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return APIError(message, status=status, retry_after=seconds, **fields)


class _Chunks:
    """Event stream to chunks: what the sync and the async stream share."""

    def __init__(self) -> None:
        self._decoder = SSEDecoder()
        self.is_done = False

    def feed(self, data: bytes) -> Iterator[Value]:
        return self._read(self._decoder.feed(data))

    def finish(self) -> Iterator[Value]:
        yield from self._read(self._decoder.finish())
        if not self.is_done:
            raise _cut("no [DONE] came")

    def _read(self, events: Sequence[Event]) -> Iterator[Value]:
        for event in events:  # one by one: what came before an error is the answer so far
            if event.data == b"[DONE]":
                self.is_done = True
                break
            value = _value(event.data)
            if value.get("error"):
                raise _failure(0, event.data)
            yield value


def _cut(why: str) -> APIError:
    return APIError(f"the stream was cut: {why}", status=0, code="stream_cut")


class ChunkStream:
    """Chunks of one answer. Iterate; leaving the `with` early hangs up, and the gateway stops the provider."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    def __enter__(self) -> ChunkStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.response.close()

    def __iter__(self) -> Iterator[Value]:
        chunks = _Chunks()
        with self:
            try:
                for data in self.response.iter_raw():
                    yield from chunks.feed(data)
            except httpx.TransportError as error:
                if not chunks.is_done:
                    raise _cut(f"{type(error).__name__}: {error}") from error
            yield from chunks.finish()


class AsyncChunkStream:
    """Chunks of one answer, asynchronously."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    async def __aenter__(self) -> AsyncChunkStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Hang up."""
        await self.response.aclose()

    async def __aiter__(self) -> AsyncIterator[Value]:
        chunks = _Chunks()
        async with self:
            try:
                async for data in self.response.aiter_raw():
                    for value in chunks.feed(data):
                        yield value
            except httpx.TransportError as error:
                if not chunks.is_done:
                    raise _cut(f"{type(error).__name__}: {error}") from error
            for value in chunks.finish():
                yield value


def _settings(base_url: str, api_key: str | None) -> dict[str, Any]:
    base = base_url.rstrip("/").removesuffix("/v1")
    headers = {"Accept-Encoding": "identity"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    # No proxy variables: a gateway on loopback must not be asked through somebody's proxy.
    return {"base_url": base, "headers": headers, "timeout": TIMEOUT, "trust_env": False}


class _Completions:
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def create(self, *, messages: Sequence[Any], stream: bool = False, **fields: Any) -> Any:
        """Ask. Gives the completion, or a ChunkStream with `stream=True`. Raises APIError."""
        body = orjson.dumps({"messages": messages, "stream": stream, **fields})
        request = self._client.build_request("POST", "/v1/chat/completions", content=body, headers=_JSON)
        try:
            response = self._client.send(request, stream=stream)
            if response.status_code >= 400:
                raise _failure(response.status_code, response.read(), response.headers.get("retry-after"))
        except httpx.TransportError as error:
            raise _no_answer(error) from error
        return ChunkStream(response) if stream else _value(response.content)


class _AsyncCompletions:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def create(self, *, messages: Sequence[Any], stream: bool = False, **fields: Any) -> Any:
        """Ask. Gives the completion, or an AsyncChunkStream with `stream=True`. Raises APIError."""
        body = orjson.dumps({"messages": messages, "stream": stream, **fields})
        request = self._client.build_request("POST", "/v1/chat/completions", content=body, headers=_JSON)
        try:
            response = await self._client.send(request, stream=stream)
            if response.status_code >= 400:
                raise _failure(response.status_code, await response.aread(), response.headers.get("retry-after"))
        except httpx.TransportError as error:
            raise _no_answer(error) from error
        return AsyncChunkStream(response) if stream else _value(response.content)


_JSON = {"Content-Type": "application/json"}


def _no_answer(error: httpx.TransportError) -> APIError:
    kind = type(error).__name__
    return APIError(f"no answer from the gateway ({kind}: {error}): is `python -m gw` running there?", status=0)


class _Chat:
    def __init__(self, client: httpx.Client) -> None:
        self.completions = _Completions(client)


class _AsyncChat:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.completions = _AsyncCompletions(client)


class GatewayClient:
    """A client of one gateway. `base_url` with or without `/v1`; `api_key` where the gateway wants one."""

    def __init__(self, base_url: str = DEFAULT_URL, *, api_key: str | None = None) -> None:
        self._http = httpx.Client(**_settings(base_url, api_key))
        self.chat = _Chat(self._http)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncGatewayClient:
    """The same, asynchronously."""

    def __init__(self, base_url: str = DEFAULT_URL, *, api_key: str | None = None) -> None:
        self._http = httpx.AsyncClient(**_settings(base_url, api_key))
        self.chat = _AsyncChat(self._http)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncGatewayClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
