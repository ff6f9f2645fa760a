"""Gemini's recorded answers, whole, streamed, in pieces and cut, as an OpenAI client reads them."""

from __future__ import annotations

import warnings

import orjson
import pytest

from gw.errors import UpstreamError, UpstreamProtocolError, can_retry
from tests.accumulators import accumulated
from tests.codecs import read_all
from tests.gemini_fakes import codec, stream_codec
from tests.recordings import Case, cases, check, check_laws, cuts, read_chunks, read_completion

CASES = cases("gemini")
FAILED = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL")


def failed(case: Case) -> bool:
    return case.expect.get("native_finish_reason") in FAILED or bool(case.expect.get("stream_error"))


WHOLE = [case for case in CASES if not case.stream and not case.is_error and not failed(case)]
STREAMED = [case for case in CASES if case.stream and not failed(case)]
BROKEN = [case for case in CASES if case.stream and case.expect.get("stream_error")]
REFUSED = [case for case in CASES if case.is_error]


def places(case: Case, step: int) -> list[int]:
    """Where to cut a recording; an array is scanned byte by byte, so that only some of its places are tried."""
    return list(cuts(case.body))[:: step if "r:jsonarray" in case.features else 1]


# --- recordings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_whole_answer_reads_as_recorded(case: Case) -> None:
    completion = orjson.loads(codec(model=case.model).complete(case.body).raw)
    assert completion["object"] == "chat.completion"
    assert completion["model"] == "asked"
    check(read_completion(completion), case.expect)


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_googles_own_package_reads_the_same_answer(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        types = pytest.importorskip("google.genai.types", exc_type=ImportError)
        theirs = types.Candidate.model_validate(orjson.loads(case.body)["candidates"][0])
    ours = read_completion(orjson.loads(codec(model=case.model).complete(case.body).raw))
    parts = (theirs.content.parts if theirs.content is not None else None) or []
    assert ours.text == "".join(part.text for part in parts if part.text and not part.thought)
    calls = [part.function_call for part in parts if part.function_call]
    assert [(name, arguments) for _, name, arguments in ours.tool_calls] == [
        (one.name, one.args or {}) for one in calls
    ]


@pytest.mark.parametrize("case", STREAMED, ids=repr)
def test_a_stream_reads_as_recorded(case: Case) -> None:
    chunks, error = read_all(stream_codec(model=case.model), [case.body])
    assert error is None
    check_laws(chunks)
    check(read_chunks(chunks), case.expect)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]


@pytest.mark.parametrize("case", STREAMED, ids=repr)
def test_openais_own_package_puts_the_same_answer_together(case: Case) -> None:
    chunks, _ = read_all(stream_codec(model=case.model), [case.body])
    check(read_completion(accumulated(chunks)), case.expect)


@pytest.mark.parametrize("case", STREAMED, ids=repr)
def test_a_stream_reads_the_same_byte_by_byte(case: Case) -> None:
    chunks, error = read_all(stream_codec(model=case.model), [case.body[at : at + 1] for at in range(len(case.body))])
    assert error is None
    assert chunks == read_all(stream_codec(model=case.model), [case.body])[0]


@pytest.mark.parametrize("case", STREAMED, ids=repr)
def test_a_stream_reads_the_same_wherever_it_was_divided(case: Case) -> None:
    whole = read_all(stream_codec(model=case.model), [case.body])[0]
    for at in places(case, 20):
        assert read_all(stream_codec(model=case.model), [case.body[:at], case.body[at:]]) == (whole, None)


@pytest.mark.parametrize("case", STREAMED, ids=repr)
def test_a_stream_that_was_cut_is_an_error_or_whole(case: Case) -> None:
    whole = read_all(stream_codec(model=case.model), [case.body])[0]
    for at in places(case, 3):
        chunks, error = read_all(stream_codec(model=case.model), [case.body[:at]])
        if error is None:
            assert chunks == whole, at
        else:
            assert isinstance(error, UpstreamProtocolError), at
            assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]), at


@pytest.mark.parametrize("case", BROKEN, ids=repr)
def test_an_error_inside_a_stream_is_raised_after_what_came_before_it(case: Case) -> None:
    for pieces in ([case.body], [case.body[at : at + 1] for at in range(len(case.body))]):
        reader = stream_codec(model=case.model)
        chunks, error = read_all(reader, pieces)
        assert isinstance(error, UpstreamError)
        assert case.expect["stream_error"]["message"] in error.message
        assert error.upstream_status == case.expect["stream_error"]["code"]
        check(read_chunks(chunks), {**case.expect, "usage": None})
        assert reader.summary.usage is not None
        assert reader.summary.usage.prompt == case.expect["usage"]["prompt_tokens"]


@pytest.mark.parametrize("case", [case for case in CASES if not case.stream and failed(case)], ids=repr)
def test_a_call_that_the_model_got_wrong_is_an_upstream_error(case: Case) -> None:
    with pytest.raises(UpstreamError, match=case.expect["native_finish_reason"]) as raised:
        codec(model=case.model).complete(case.body)
    assert can_retry(raised.value)


@pytest.mark.parametrize("case", REFUSED, ids=repr)
def test_the_words_of_an_error_survive(case: Case) -> None:
    error = codec(model=case.model).fail(case.status, case.headers, case.body)
    assert case.expect["message_contains"] in error.message
    assert error.upstream_status == case.expect["upstream_status"]
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}
