"""Ollama's recorded answers, whole, streamed, in pieces and cut, as an OpenAI client reads them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.adapters.ollama import Ollama, OllamaCodec
from gw.backend import Backend
from gw.errors import UpstreamError, UpstreamProtocolError
from gw.message import Candidate, Headers
from tests.accumulators import accumulated
from tests.codecs import read_all
from tests.fakes import chat_request
from tests.recordings import Case, cases, check, check_laws, cuts, read_chunks, read_completion

CASES = cases("ollama-chat")
WHOLE = [case for case in CASES if not case.stream]
STREAMED = [case for case in CASES if case.stream]


def codec(chat: dict[str, Any] | None = None, timestamp: float = 1_700_000_000.25) -> OllamaCodec:
    adapter = Ollama()
    backend = Backend(name="local", kind="ollama", adapter=adapter)
    request = chat_request(chat, candidates=(Candidate(backend, "qwen3:8b", "asked"),))
    request.exchange.timestamp = timestamp
    return adapter.open(request)


def stream_codec(chat: dict[str, Any] | None = None) -> OllamaCodec:
    return codec({"stream": True, **(chat or {})})


def line(done: bool = False, **message: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"model": "qwen3:8b", "message": {"role": "assistant", "content": "", **message}}
    if done:
        return value | {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 2}
    return value | {"done": False}


def lines(*values: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(value) + b"\n" for value in values)


CALL = {"function": {"name": "f", "arguments": {"city": "Köln", "n": 1}}}

# Written after Ollama's documentation: parallel calls before the end, thoughts, an answer that was cut by its limit.
STREAM = lines(
    line(thinking="Hm, "),
    line(thinking="yes."),
    line(content="Grüß "),
    line(content="Gott"),
    line(tool_calls=[CALL, CALL]),
    line(tool_calls=[{"id": "call_x", "function": {"name": "g", "arguments": {}}}]),
    line(done=True),
)


# --- recordings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_a_whole_answer_reads_as_recorded(case: Case) -> None:
    completion = orjson.loads(codec().complete(case.body).raw)
    assert completion["object"] == "chat.completion"
    assert completion["model"] == "asked"
    check(read_completion(completion), case.expect)


@pytest.mark.parametrize("case", STREAMED, ids=repr)
def test_a_stream_reads_as_recorded_whole_and_byte_by_byte(case: Case) -> None:
    chunks, error = read_all(stream_codec(), [case.body])
    assert error is None
    check_laws(chunks)
    check(read_chunks(chunks), case.expect)
    assert chunks[-1]["choices"] == []
    pieces = [case.body[at : at + 1] for at in range(len(case.body))]
    assert read_all(stream_codec(), pieces) == (chunks, None)
    check(read_completion(accumulated(chunks)), case.expect)


@pytest.mark.parametrize("body", [STREAM, *(case.body for case in STREAMED)], ids=range(1 + len(STREAMED)))
def test_a_stream_that_was_cut_is_an_error_and_one_that_was_divided_is_not(body: bytes) -> None:
    whole, error = read_all(stream_codec(), [body])
    assert error is None
    check_laws(whole)
    for at in list(cuts(body))[:: 1 if len(body) < 8192 else 10]:
        assert read_all(stream_codec(), [body[:at], body[at:]]) == (whole, None)
        chunks, error = read_all(stream_codec(), [body[:at]])
        if error is None:
            assert chunks == whole
        else:
            assert isinstance(error, UpstreamProtocolError)
            assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])


# --- calls ----------------------------------------------------------------------------------------------------------


def test_calls_have_ids_of_their_own_rising_indexes_and_arguments_as_text() -> None:
    chunks, _ = read_all(stream_codec(), [STREAM])
    reading = read_chunks(chunks)
    assert reading.reasoning == "Hm, yes."
    assert reading.text == "Grüß Gott"
    assert [(name, arguments) for _, name, arguments in reading.tool_calls] == [
        ("f", {"city": "Köln", "n": 1}),
        ("f", {"city": "Köln", "n": 1}),
        ("g", {}),
    ]
    ids = [call_id for call_id, _, _ in reading.tool_calls]
    assert len(set(ids)) == 3
    assert ids[2] == "call_x"
    assert reading.finish_reason == "tool_calls"


def test_a_number_in_a_call_keeps_all_its_digits_there_and_back() -> None:
    digits = "12345678901234567890123"
    body = lines(line(done=True, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": {"id": 0}}}]))
    body = body.replace(b'"id":0', b'"id":' + digits.encode())
    message = orjson.loads(codec().complete(body).raw)["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == f'{{"id":{digits}}}'
    assert read_chunks(read_all(stream_codec(), [body])[0]).tool_calls[0][2] == {"id": int(digits)}
    history = [{"role": "user", "content": "Hi"}, message, {"role": "tool", "tool_call_id": "c", "content": "ok"}]
    assert f'"arguments":{{"id":{digits}}}'.encode() in codec({"messages": history}).wire.content


def test_a_whole_answer_with_calls_has_null_content() -> None:
    choice = orjson.loads(codec().complete(orjson.dumps(line(done=True, tool_calls=[CALL]))).raw)["choices"][0]
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"
    assert choice["native_finish_reason"] == "stop"
    assert "index" not in choice["message"]["tool_calls"][0]


def test_ids_of_two_exchanges_with_one_request_id_differ() -> None:
    body = orjson.dumps(line(done=True, tool_calls=[CALL]))
    first, second = (orjson.loads(codec(timestamp=at).complete(body).raw) for at in (1.0, 2.0))
    ids = [one["choices"][0]["message"]["tool_calls"][0]["id"] for one in (first, second)]
    assert len(set(ids)) == 2


def test_a_client_of_functions_reads_a_function_call() -> None:
    chat = {"functions": [{"name": "f"}]}
    choice = orjson.loads(codec(chat).complete(orjson.dumps(line(done=True, tool_calls=[CALL]))).raw)["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "f"
    chunks, _ = read_all(stream_codec(chat), [STREAM])
    calls = [c["delta"]["function_call"]["name"] for x in chunks for c in x["choices"] if "function_call" in c["delta"]]
    assert calls == ["f"]


# --- the end --------------------------------------------------------------------------------------------------------


def test_an_answer_that_met_its_limit_finishes_as_length() -> None:
    body = lines(line(content="a"), line(done=True) | {"done_reason": "length"})
    assert read_chunks(read_all(stream_codec(), [body])[0]).finish_reason == "length"


def test_the_last_line_may_lack_its_line_end() -> None:
    assert read_all(stream_codec(), [STREAM[:-1]]) == read_all(stream_codec(), [STREAM])


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_loading_a_model_is_no_answer(reason: str) -> None:
    body = orjson.dumps(line(done=True) | {"done_reason": reason})
    with pytest.raises(UpstreamProtocolError, match="local"):
        codec().complete(body)
    assert isinstance(read_all(stream_codec(), [body])[1], UpstreamProtocolError)


@pytest.mark.parametrize("more", [lines(line(content="more")), lines(line(done=True)), b"junk\n"])
def test_nothing_behind_the_end_is_looked_at_whether_it_comes_with_it_or_later(more: bytes) -> None:
    end = lines(line(content="a"), line(done=True))
    whole = read_all(stream_codec(), [end])
    assert whole[1] is None
    assert read_all(stream_codec(), [end + more]) == whole
    assert read_all(stream_codec(), [end, more]) == whole


def test_usage_is_told_where_ollama_tells_it() -> None:
    reader = codec()
    value = orjson.loads(reader.complete(orjson.dumps(line(done=True, content="a"))).raw)
    assert value["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert reader.summary.usage is not None
    assert reader.summary.usage.total == 7
    assert reader.summary.model == "qwen3:8b"
    cached = {name: value for name, value in line(done=True).items() if name != "prompt_eval_count"}
    assert orjson.loads(codec().complete(orjson.dumps(cached)).raw)["usage"]["prompt_tokens"] == 0
    bare = {"message": {"content": "a"}, "done": True}
    assert "usage" not in orjson.loads(codec().complete(orjson.dumps(bare)).raw)


# --- failures -------------------------------------------------------------------------------------------------------


def test_an_error_line_breaks_the_stream_after_what_came_before_it() -> None:
    body = lines(line(content="Hel"), {"error": "llama runner process has terminated"})
    chunks, error = read_all(stream_codec(), [body])
    assert isinstance(error, UpstreamError)
    assert "llama runner process has terminated" in error.message
    assert read_chunks(chunks).text == "Hel"
    assert read_chunks(chunks).finish_reason is None


def test_half_a_pair_of_surrogates_in_a_text_breaks_nothing() -> None:
    half = b'{"message": {"content": "Hi \\ud83d"}, "done": true}\n'
    assert orjson.loads(codec().complete(half).raw)["choices"][0]["message"]["content"] == "Hi \ufffd"
    chunks, error = read_all(stream_codec(), [lines(line(content="Oh. ")) + half])
    assert error is None
    assert read_chunks(chunks).text == "Oh. Hi \ufffd"


def test_an_error_in_a_200_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="out of memory"):
        codec().complete(b'{"error": "out of memory"}')


def test_a_model_that_is_not_there_is_told_with_its_words() -> None:
    error = codec().fail(404, Headers(), b'{"error":"model \\"nope\\" not found, try pulling it first"}')
    assert (error.status, error.code) == (404, "model_not_found")
    assert "try pulling it first" in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>nginx</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"message": 1}',
        b'{"message": {"tool_calls": [1]}, "done": true}',
    ],
)
def test_garbage_in_a_200_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="local"):
        codec().complete(body)
    assert isinstance(read_all(stream_codec(), [body])[1], UpstreamProtocolError)


# --- the rest -------------------------------------------------------------------------------------------------------


def test_log_probabilities_come_back_in_openais_shape() -> None:
    given = [{"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1, "bytes": [101]}]}]
    wanted = {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "e", "logprob": -1, "bytes": [101]}],
            }
        ],
        "refusal": None,
    }
    value = line(done=True, content="é") | {"logprobs": given}
    assert orjson.loads(codec().complete(orjson.dumps(value)).raw)["choices"][0]["logprobs"] == wanted
    chunks, _ = read_all(stream_codec(), [lines(value)])
    assert [c["logprobs"] for chunk in chunks for c in chunk["choices"] if "logprobs" in c] == [wanted]


def test_an_image_is_a_data_uri_beside_the_content() -> None:
    value = line(done=True, images=["iVBORw0KGgoAAAA="])
    message = orjson.loads(codec().complete(orjson.dumps(value)).raw)["choices"][0]["message"]
    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoAAAA="}}]


def test_images_of_a_stream_are_counted_and_openais_own_package_puts_them_in_a_row() -> None:
    body = lines(line(images=["iVBORw0KGgo="]), line(images=["R0lGODdh", "iVBORw0KGgo="]), line(done=True))
    chunks, _ = read_all(stream_codec(), [body])
    images = accumulated(chunks)["choices"][0]["message"]["images"]
    assert [one["image_url"]["url"].partition(";")[0] for one in images] == [
        "data:image/png",
        "data:image/gif",
        "data:image/png",
    ]
    assert [one["index"] for one in images] == [0, 1, 2]
