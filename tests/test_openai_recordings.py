"""Every recorded OpenAI-compatible answer gives what its `expect` says: whole, byte by byte, and cut at every place."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest

from gw.adapters.openai import OpenAI, OpenAICodec
from gw.backend import Backend
from gw.errors import UpstreamError, UpstreamProtocolError
from gw.message import Candidate
from tests.codecs import read_all
from tests.fakes import chat_request
from tests.recordings import Case, cases, check, check_laws, cuts, read_chunks, read_completion

CASES = cases("openai-chat")
ERRORS = [case for case in CASES if case.is_error]
STREAMS = [case for case in CASES if case.stream and not case.is_error]
WHOLE = [case for case in CASES if not case.stream and not case.is_error]
DIALECTS = {"azure-openai": "azure", "azure-foundry": "azure"}


def open_codec(case: Case) -> OpenAICodec:
    """The codec of a request to the host of the case, under another name for the model."""
    url = case.url.partition("?")[0].partition("#")[0]
    base_url = url.removesuffix("/chat/completions") if url.startswith("http") else "http://127.0.0.1:8000/v1"
    adapter = OpenAI(base_url=base_url, dialect=DIALECTS.get(case.provider))
    backend = Backend(name="b", kind="openai", adapter=adapter)
    chat = {name: value for name, value in (case.request_body or {}).items() if name != "n"}
    request = chat_request({**chat, "stream": case.stream})
    return adapter.open(request.replace(candidates=(Candidate(backend, case.model or "m", "asked-for"),)))


def read_stream(case: Case, pieces: Iterable[bytes]) -> tuple[list[dict[str, Any]], UpstreamError | None]:
    """The chunks of a stream that arrives in these pieces, and the error that ended it."""
    chunks, error = read_all(open_codec(case), [*pieces])
    assert error is None or isinstance(error, UpstreamError)
    return chunks, error


def check_stream(case: Case, pieces: Iterable[bytes]) -> list[dict[str, Any]]:
    chunks, error = read_stream(case, pieces)
    check(read_chunks(chunks), case.expect)
    check_laws(chunks)
    assert {chunk["model"] for chunk in chunks} == {"asked-for"}
    if case.expect.get("stream_error"):
        assert error is not None, "an error inside the stream passed for an end"
        assert case.expect["stream_error"]["message"] in error.message
        assert read_chunks(chunks).finish_reason is None
    else:
        assert error is None, f"{case.id}: {error}"
    return chunks


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_whole_answer_is_read_as_the_provider_meant_it(case: Case) -> None:
    codec = open_codec(case)
    completion = orjson.loads(codec.complete(case.body).raw)
    check(read_completion(completion), case.expect)
    assert completion["model"] == "asked-for"
    assert completion["object"] == "chat.completion"
    assert codec.summary.finish_reason == case.expect["finish_reason"]
    wanted = case.expect["usage"]
    usage = codec.summary.usage
    assert usage is not None
    assert (usage.prompt, usage.completion) == (wanted["prompt_tokens"], wanted["completion_tokens"])


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_whole_answer_keeps_every_field_of_the_provider(case: Case) -> None:
    before, after = orjson.loads(case.body), orjson.loads(open_codec(case).complete(case.body).raw)
    assert [name for name in before if name not in after] == []
    for old, new in zip(before["choices"], after["choices"], strict=True):
        assert old.keys() <= new.keys()
        message = old.get("message") or {}
        empty = {name for name, value in message.items() if value == []}
        assert message.keys() - empty <= new["message"].keys()


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_stream_is_read_as_the_provider_meant_it(case: Case) -> None:
    check_stream(case, [case.body])


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_stream_reads_the_same_byte_by_byte(case: Case) -> None:
    whole = check_stream(case, [case.body])
    assert check_stream(case, (case.body[i : i + 1] for i in range(len(case.body)))) == whole


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_stream_reads_the_same_in_pieces_of_an_event(case: Case) -> None:
    events = [event + b"\n\n" for event in case.body.split(b"\n\n") if event]
    assert check_stream(case, events) == check_stream(case, [case.body])


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_stream_reads_the_same_with_crlf(case: Case) -> None:
    assert check_stream(case, [case.body.replace(b"\n", b"\r\n")]) == check_stream(case, [case.body])


def codecs(case: Case) -> Callable[[], OpenAICodec]:
    """Makes codecs for one and the same request, cheaply."""
    first = open_codec(case)
    return lambda: OpenAICodec(first.wire, (), answers_as="asked-for", created=1)


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_stream_reads_the_same_wherever_it_is_split(case: Case) -> None:
    make, body, failing = codecs(case), case.body, bool(case.expect.get("stream_error"))

    def read(*pieces: bytes) -> list[bytes]:
        codec = make()
        raws: list[bytes] = []
        with pytest.raises(UpstreamError) if failing else contextlib.nullcontext():
            for piece in pieces:
                raws += [chunk.raw for chunk in codec.feed(piece)]
            raws += [chunk.raw for chunk in codec.finish()]
        return raws

    whole = [orjson.loads(raw) for raw in read(body)]
    seen: set[tuple[bytes, ...]] = set()  # a chunk's bytes may differ by the way it took, but not what they mean
    for cut in cuts(body):
        raws = tuple(read(body[:cut], body[cut:]))
        if raws not in seen:
            assert [orjson.loads(raw) for raw in raws] == whole, f"split at {cut}"
            seen.add(raws)


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_a_stream_that_is_cut_off_is_complete_or_an_error_and_never_in_between(case: Case) -> None:
    make = codecs(case)
    finished = read_chunks(read_stream(case, [case.body])[0])
    size = len(case.body)
    places = set(cuts(case.body))
    # Most places are alike: all of those near the end, where it matters, and a sample of the rest.
    near_end = {place for place in places if place > size - 800}
    rest = random.Random(1).sample(sorted(places - near_end), min(120, len(places - near_end)))
    for cut in sorted(near_end.union(rest)):
        codec = make()
        chunks = list(codec.feed(case.body[:cut]))
        error: UpstreamError | None = None
        try:
            chunks += codec.finish()
        except UpstreamError as failure:
            error = failure
        if error is not None:
            assert not any(b'"finish_reason":"' in chunk.raw for chunk in chunks), f"cut at {cut}: an end and an error"
            assert isinstance(error, UpstreamProtocolError) or case.expect.get("stream_error")
        else:
            reading = read_chunks([chunk.peek() for chunk in chunks])
            assert reading.finish_reason is not None, f"cut at {cut}: no error and no end"
            assert (reading.text, reading.reasoning) == (finished.text, finished.reasoning), f"cut at {cut}"
            assert reading.tool_calls == finished.tool_calls, f"cut at {cut}"


@pytest.mark.parametrize("case", ERRORS, ids=repr)
def test_an_error_keeps_the_words_of_the_provider(case: Case) -> None:
    error = open_codec(case).fail(case.status, case.headers, case.body)
    assert case.expect["message_contains"] in error.message
    assert error.upstream_status == case.expect["upstream_status"]
    assert error.body()["error"].keys() == {"message", "type", "param", "code"}
    assert isinstance(error.code, str | None)


@pytest.mark.skipif(len(CASES) < 50, reason="the recordings are not here")
def test_the_recordings_cover_what_they_are_here_for() -> None:
    assert len(WHOLE) > 50
    assert len(STREAMS) > 15
    assert len(ERRORS) > 8
    assert len({case.provider for case in CASES}) > 12
