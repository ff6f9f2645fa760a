"""Gemini's recorded answers, whole, streamed, in pieces and cut, as an OpenAI client reads them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from gw.adapters.gemini import Gemini, GeminiCodec
from gw.backend import Backend
from gw.document import Chunk
from gw.errors import GatewayError, UpstreamError, UpstreamProtocolError, can_fall_back, can_retry
from gw.message import Candidate, Headers
from gw.secret import Secret
from gw.signatures import MemorySignatures
from tests.fakes import chat_request
from tests.recordings import Case, cases, check, check_laws, cuts, read_chunks, read_completion

CASES = cases("gemini")
FAILED = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL")


def failed(case: Case) -> bool:
    return case.expect.get("native_finish_reason") in FAILED or bool(case.expect.get("stream_error"))


WHOLE = [case for case in CASES if not case.stream and not case.is_error and not failed(case)]
STREAMED = [case for case in CASES if case.stream and not failed(case)]
BROKEN = [case for case in CASES if case.stream and case.expect.get("stream_error")]
REFUSED = [case for case in CASES if case.is_error]


def codec(
    chat: dict[str, Any] | None = None,
    *,
    model: str = "gemini-2.5-flash",
    store: MemorySignatures | None = None,
    timestamp: float = 1_700_000_000.25,
) -> GeminiCodec:
    adapter = Gemini(signatures=store if store is not None else MemorySignatures())
    backend = Backend(name="google", kind="gemini", adapter=adapter)
    key = Secret("AIzaSECRET-canary-0123456789")
    request = chat_request(chat, candidates=(Candidate(backend, model, "asked", key=key),))
    request.exchange.timestamp = timestamp
    return adapter.open(request)


def stream_codec(chat: dict[str, Any] | None = None, **options: Any) -> GeminiCodec:
    return codec({"stream": True, **(chat or {})}, **options)


def read_all(reader: GeminiCodec, pieces: Sequence[bytes]) -> tuple[list[dict[str, Any]], GatewayError | None]:
    """Every chunk that comes out, and the error that ended the stream if one did."""
    found: list[Chunk] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
        found += reader.finish()
    except GatewayError as error:
        return [orjson.loads(chunk.raw) for chunk in found], error
    return [orjson.loads(chunk.raw) for chunk in found], None


def places(case: Case, step: int) -> list[int]:
    """Where to cut a recording; an array is scanned byte by byte, so that only some of its places are tried."""
    return list(cuts(case.body))[:: step if "r:jsonarray" in case.features else 1]


def sse(*events: dict[str, Any] | str) -> bytes:
    return b"".join(
        b"data: " + (event.encode() if isinstance(event, str) else orjson.dumps(event)) + b"\r\n\r\n"
        for event in events
    )


def part_event(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate | fields]}


def answer(*parts: dict[str, Any], finish: str = "STOP", **fields: Any) -> dict[str, Any]:
    content = orjson.dumps(part_event(*parts, finish=finish, **fields))
    value: dict[str, Any] = orjson.loads(codec().complete(content).raw)
    return value


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


# --- finish reasons and failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("OTHER", "stop"),
        ("SOMETHING_NEW", "stop"),
        (2, "length"),
        (3, "content_filter"),
    ],
)
def test_a_finish_reason_is_told_in_both_words(native: Any, reason: str) -> None:
    choice = orjson.loads(codec().complete(orjson.dumps(part_event({"text": "a"}, finish=native))).raw)["choices"][0]
    assert choice["finish_reason"] == reason
    assert isinstance(choice["native_finish_reason"], str)
    chunks, error = read_all(stream_codec(), [sse(part_event({"text": "a"}, finish=native))])
    assert error is None
    assert read_chunks(chunks).finish_reason == reason


def test_a_call_makes_stop_into_tool_calls_even_where_stop_comes_later() -> None:
    events = [part_event({"functionCall": {"name": "f", "args": {}}}), part_event({"text": ""}, finish="STOP")]
    reader = stream_codec()
    chunks, _ = read_all(reader, [sse(*events)])
    assert read_chunks(chunks).finish_reason == "tool_calls"
    assert reader.summary.finish_reason == "tool_calls"
    assert reader.summary.native_finish_reason == "STOP"


def test_a_call_that_was_cut_by_the_limit_finishes_as_length() -> None:
    choice = answer({"functionCall": {"name": "f", "args": {}}}, finish="MAX_TOKENS")["choices"][0]
    assert choice["finish_reason"] == "length"


def test_a_filtered_answer_without_text_has_null_content() -> None:
    completion = orjson.loads(codec().complete(b'{"candidates": [{"finishReason": "SAFETY"}]}').raw)
    assert completion["choices"][0]["message"]["content"] is None


def test_a_blocked_prompt_is_a_content_filter_without_content() -> None:
    body = b'{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 7}}'
    reader = codec()
    completion = orjson.loads(reader.complete(body).raw)
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": None}
    assert completion["choices"][0]["finish_reason"] == "content_filter"
    assert completion["usage"]["prompt_tokens"] == 7
    assert reader.summary.native_finish_reason == "PROHIBITED_CONTENT"
    chunks, error = read_all(stream_codec(), [b"data: " + body + b"\r\n\r\n"])
    assert error is None
    check_laws(chunks)
    assert read_chunks(chunks).finish_reason == "content_filter"


@pytest.mark.parametrize("name", ["MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "TOO_MANY_TOOL_CALLS"])
def test_a_failure_of_the_model_without_content_is_an_upstream_error_that_may_be_retried(name: str) -> None:
    value = {"candidates": [{"content": {}, "finishReason": name, "finishMessage": "bad call: f("}]}
    with pytest.raises(UpstreamError, match="bad call: f") as raised:
        codec().complete(orjson.dumps(value))
    assert can_retry(raised.value)
    _, error = read_all(stream_codec(), [sse(value)])
    assert isinstance(error, UpstreamError)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body><h1>502 Bad Gateway</h1></body></html>",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"candidates": []}',
        b'{"candidates": [{"content": {"parts": [7]}}]}',
        b'{"candidates": [{"content": {"parts": [{"functionCall": "f"}]}}]}',
    ],
)
def test_garbage_in_a_200_is_a_protocol_error_that_names_the_backend(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="google"):
        codec().complete(body)
    _, error = read_all(stream_codec(), [body])
    assert isinstance(error, UpstreamProtocolError)


def test_a_stream_that_is_not_json_is_a_protocol_error() -> None:
    _, error = read_all(stream_codec(), [sse("not json")])
    assert isinstance(error, UpstreamProtocolError)


def test_an_error_in_a_200_is_the_error_it_means() -> None:
    body = b'[{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}]'
    with pytest.raises(UpstreamError) as raised:
        codec().complete(body)
    assert raised.value.fault == "rate_limit"


@pytest.mark.parametrize("framing", ["sse", "array", "stray"])
def test_an_error_after_the_finish_reason_still_breaks_the_stream(framing: str) -> None:
    good = part_event({"text": "a"}, finish="STOP")
    bad = {"error": {"code": 503, "message": "high demand", "status": "UNAVAILABLE"}}
    body = {
        "sse": sse(good, bad),
        "array": orjson.dumps([good, bad]),
        "stray": sse(good) + orjson.dumps(bad, option=orjson.OPT_INDENT_2) + b"\r\n",
    }[framing]
    chunks, error = read_all(stream_codec(), [body])
    assert error is not None
    assert error.fault == "overload"
    assert read_chunks(chunks).finish_reason is None


def test_an_array_that_ends_inside_an_element_was_cut() -> None:
    body = orjson.dumps([part_event({"text": "a"}, finish="STOP"), part_event({"text": "b"})])
    _, error = read_all(stream_codec(), [body[:-10]])
    assert isinstance(error, UpstreamProtocolError)


# --- errors -------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_a_400_there_and_a_dead_key_here() -> None:
    body = orjson.dumps(
        {
            "error": {
                "code": 400,
                "message": "API key not valid: AIzaSECRET-canary-0123456789",
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
            }
        }
    )
    error = codec().fail(400, Headers(), body)
    assert error.fault == "dead_key"
    assert error.status == 502
    assert error.code == "upstream_auth_error"
    assert can_fall_back(error)
    assert "canary" not in error.message


def test_the_delay_in_an_array_wrapped_429_is_retry_after() -> None:
    body = orjson.dumps(
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota. Please retry in 34.4s.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}],
                }
            }
        ]
    )
    error = codec().fail(429, Headers(), body)
    assert error.fault == "rate_limit"
    assert error.retry_after is not None
    assert 34.4 <= error.retry_after <= 35


# --- parts --------------------------------------------------------------------------------------------------------


def test_parallel_calls_without_ids_get_ids_of_their_own_and_rising_indexes() -> None:
    call = {"functionCall": {"name": "dice", "args": {}}}
    whole = answer(call, call, call)["choices"][0]["message"]
    assert whole["content"] is None
    assert len({one["id"] for one in whole["tool_calls"]}) == 3
    assert all(len(one["id"]) <= 40 and "index" not in one for one in whole["tool_calls"])
    chunks, _ = read_all(stream_codec(), [sse(part_event(call), part_event(call, call, finish="STOP"))])
    check_laws(chunks)
    fragments = [one for chunk in chunks for c in chunk["choices"] for one in c["delta"].get("tool_calls", ())]
    assert [one["index"] for one in fragments] == [0, 1, 2]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    call = answer({"functionCall": {"name": "now"}})["choices"][0]["message"]["tool_calls"][0]
    assert call["function"] == {"name": "now", "arguments": "{}"}


def test_ids_of_two_exchanges_with_one_request_id_differ() -> None:
    first, second = codec(timestamp=1_700_000_000.25), codec(timestamp=1_700_000_000.5)
    body = orjson.dumps(part_event({"functionCall": {"name": "f"}}, finish="STOP"))
    ids = {
        orjson.loads(one.complete(body).raw)["choices"][0]["message"]["tool_calls"][0]["id"] for one in (first, second)
    }
    assert len(ids) == 2


def test_several_candidates_are_several_choices() -> None:
    events = [
        {"candidates": [{"index": 0, "content": {"parts": [{"text": "a"}]}}]},
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}]},
        {"candidates": [{"index": 0, "finishReason": "MAX_TOKENS"}]},
    ]
    chunks, error = read_all(stream_codec({"n": 2}), [sse(*events)])
    assert error is None
    check_laws(chunks)
    reading = read_chunks(chunks)
    assert (reading.text, reading.n_choices, reading.finish_reason) == ("a", 2, "length")
    both = orjson.dumps({"candidates": [{"content": {"parts": [{"text": t}]}, "finishReason": "STOP"} for t in "ab"]})
    choices = orjson.loads(codec({"n": 2}).complete(both).raw)["choices"]
    assert [(c["index"], c["message"]["content"]) for c in choices] == [(0, "a"), (1, "b")]


def test_a_stream_where_one_candidate_has_no_end_was_cut() -> None:
    events = [
        {"candidates": [{"index": 0, "content": {"parts": [{"text": "a"}]}}]},
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}]},
    ]
    assert isinstance(read_all(stream_codec({"n": 2}), [sse(*events)])[1], UpstreamProtocolError)


def test_thoughts_are_reasoning_and_their_fragments_share_an_index() -> None:
    events = [
        part_event({"text": "Let me ", "thought": True}),
        part_event({"text": "think.", "thought": True, "thoughtSignature": "c2ln"}),
        part_event({"text": "Four."}),
        part_event({"text": "Sure?", "thought": True}),
        part_event({"text": "", "thoughtSignature": "ZW5k"}, finish="STOP"),
    ]
    chunks, _ = read_all(stream_codec(), [sse(*events)])
    reading = read_chunks(chunks)
    assert (reading.reasoning, reading.text) == ("Let me think.Sure?", "Four.")
    assert reading.signatures == ["c2ln", "ZW5k"]
    details = [one for chunk in chunks for c in chunk["choices"] for one in c["delta"].get("reasoning_details", ())]
    assert [one["index"] for one in details] == [0, 0, 1, 2]
    assert {one["format"] for one in details} == {"google-gemini-v1"}


def test_the_signature_of_a_call_rides_on_the_call_and_is_kept_under_its_id() -> None:
    store = MemorySignatures()
    part = {"functionCall": {"id": "abc", "name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    message = orjson.loads(codec(store=store).complete(orjson.dumps(part_event(part))).raw)["choices"][0]["message"]
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert message["reasoning_details"][0] == {
        "type": "reasoning.encrypted",
        "data": "c2ln",
        "format": "google-gemini-v1",
        "index": 0,
        "id": "abc",
    }
    assert store.find("gemini:anonymous", "abc") == "c2ln"


def test_tools_that_google_runs_itself_are_not_the_clients() -> None:
    message = answer(
        {"executableCode": {"language": "PYTHON", "code": "1"}},
        {"codeExecutionResult": {"output": "1"}},
        {"toolCall": {"name": "search"}},
        {"text": "One."},
    )["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "One.", "refusal": None}


def test_an_image_is_a_data_uri_beside_the_content() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    message = answer(image)["choices"][0]["message"]
    assert message["content"] is None
    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    chunks, _ = read_all(stream_codec(), [sse(part_event(image, finish="STOP"))])
    assert any(c["delta"].get("images") for chunk in chunks for c in chunk["choices"])


def test_audio_is_openais_audio_object() -> None:
    message = answer({"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}})["choices"][0]["message"]
    assert message["audio"] == {"id": "audio_req-1", "expires_at": 1_700_000_000, "data": "AAAA", "transcript": ""}


def test_web_sources_become_citations_at_places_in_characters() -> None:
    text = "Zürich liegt am See."
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.example/", "title": "A"}}, {"retrievedContext": {"text": "x"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 0, "endIndex": 7, "text": "Zürich"}, "groundingChunkIndices": [0, 1]}
        ],
    }
    wanted = [
        {
            "type": "url_citation",
            "url_citation": {"start_index": 0, "end_index": 6, "url": "https://a.example/", "title": "A"},
        }
    ]
    assert answer({"text": text}, groundingMetadata=grounding)["choices"][0]["message"]["annotations"] == wanted
    events = [
        part_event({"text": text[:3]}),
        part_event({"text": text[3:]}, finish="STOP", groundingMetadata=grounding),
    ]
    chunks, _ = read_all(stream_codec({"web_search_options": {}}), [sse(*events)])
    assert [c["delta"]["annotations"] for chunk in chunks for c in chunk["choices"] if "annotations" in c["delta"]] == [
        wanted
    ]


def test_log_probabilities_come_back_in_openais_shape() -> None:
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "e"}]}],
    }
    wanted = {
        "token": "é",
        "logprob": -0.5,
        "bytes": [195, 169],
        "top_logprobs": [
            {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
            {"token": "e", "logprob": 0.0, "bytes": [101]},
        ],
    }
    choice = answer({"text": "é"}, logprobsResult=result)["choices"][0]
    assert choice["logprobs"] == {"content": [wanted], "refusal": None}
    chunks, _ = read_all(stream_codec(), [sse(part_event({"text": "é"}, finish="STOP", logprobsResult=result))])
    assert any(c.get("logprobs") for chunk in chunks for c in chunk["choices"])


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ({"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}, (10, 5, 15, 0, 0)),
        (
            {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 4, "totalTokenCount": 18},
            (9, 9, 18, 0, 4),
        ),
        (
            {"promptTokenCount": 9, "candidatesTokenCount": 9, "thoughtsTokenCount": 4, "totalTokenCount": 18},
            (9, 9, 18, 0, 4),
        ),
        ({"promptTokenCount": 9, "cachedContentTokenCount": 8, "toolUsePromptTokenCount": 3}, (12, 0, 12, 8, 0)),
        ({"promptTokenCount": 9, "thoughtsTokenCount": 4}, (9, 4, 13, 0, 4)),
    ],
)
def test_token_counts_add_up(counts: dict[str, int], wanted: tuple[int, ...]) -> None:
    value = part_event({"text": "a"}, finish="STOP") | {"usageMetadata": counts}
    reader = codec()
    usage = orjson.loads(reader.complete(orjson.dumps(value)).raw)["usage"]
    assert (
        usage["prompt_tokens"],
        usage["completion_tokens"],
        usage["total_tokens"],
        usage["prompt_tokens_details"]["cached_tokens"],
        usage["completion_tokens_details"]["reasoning_tokens"],
    ) == wanted
    assert reader.summary.usage is not None
    assert reader.summary.usage.total == wanted[2]


def test_the_summary_knows_who_answered() -> None:
    reader = stream_codec()
    read_all(
        reader,
        [
            sse(
                {
                    **part_event({"text": "abc"}, finish="STOP"),
                    "responseId": "r-1",
                    "modelVersion": "gemini-2.5-flash-09",
                }
            )
        ],
    )
    assert reader.summary.upstream_id == "r-1"
    assert reader.summary.model == "gemini-2.5-flash-09"
    assert reader.summary.output_characters == 3


# --- calls in pieces ------------------------------------------------------------------------------------------------


def piece(path: str, value: Any = None, more: bool = False, kind: str = "stringValue") -> dict[str, Any]:
    return {"jsonPath": path, kind: value} | ({"willContinue": True} if more else {})


def test_arguments_in_pieces_are_put_together_by_their_paths() -> None:
    events = [
        part_event({"functionCall": {"name": "f", "willContinue": True}, "thoughtSignature": "c2ln"}),
        part_event({"functionCall": {"partialArgs": [piece("$.a.b[0]", "Bos", True)], "willContinue": True}}),
        part_event({"functionCall": {"partialArgs": [piece("$.a.b[0]", "ton")], "willContinue": True}}),
        part_event(
            {"functionCall": {"partialArgs": [piece("$.a.b[1]", 2.0, kind="numberValue")], "willContinue": True}}
        ),
        part_event(
            {"functionCall": {"partialArgs": [piece("$['x y']", True, kind="boolValue")], "willContinue": True}}
        ),
        part_event({"functionCall": {"partialArgs": [piece("$.n", "NULL_VALUE", kind="nullValue")]}}),
        part_event({"functionCall": {"name": "g", "willContinue": True}}),
        part_event({"functionCall": {}}, finish="STOP"),
    ]
    chunks, error = read_all(stream_codec(), [sse(*events)])
    assert error is None
    check_laws(chunks)
    assert [(name, arguments) for _, name, arguments in read_chunks(chunks).tool_calls] == [
        ("f", {"a": {"b": ["Boston", 2]}, "x y": True, "n": None}),
        ("g", {}),
    ]


@pytest.mark.parametrize("path", ["", "a", "$", "$.", "$[5]", "$.a[999999]", "$..a", "$.a[?(@.b)]", None])
def test_a_path_that_cannot_be_is_a_protocol_error(path: Any) -> None:
    call = {"name": "f", "partialArgs": [{"jsonPath": path, "stringValue": "x"}]}
    _, error = read_all(stream_codec(), [sse(part_event({"functionCall": call}, finish="STOP"))])
    assert isinstance(error, UpstreamProtocolError)


# --- what the client asked in other words ---------------------------------------------------------------------------


def test_a_renamed_function_comes_back_under_the_clients_name() -> None:
    chat = {"tools": [{"type": "function", "function": {"name": "1st-tool"}}]}
    body = orjson.dumps(part_event({"functionCall": {"name": "_1st-tool", "args": {}}}, finish="STOP"))
    message = orjson.loads(codec(chat).complete(body).raw)["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["name"] == "1st-tool"


def test_a_custom_tool_comes_back_as_its_text() -> None:
    chat = {"tools": [{"type": "custom", "custom": {"name": "sql"}}]}
    body = orjson.dumps(part_event({"functionCall": {"name": "sql", "args": {"input": "SELECT 1"}}}, finish="STOP"))
    call = orjson.loads(codec(chat).complete(body).raw)["choices"][0]["message"]["tool_calls"][0]
    assert call["type"] == "custom"
    assert call["custom"] == {"name": "sql", "input": "SELECT 1"}


def test_a_client_of_functions_reads_a_function_call() -> None:
    chat = {"functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}]}
    event = part_event({"functionCall": {"name": "f", "args": {"a": 1}}}, finish="STOP")
    choice = orjson.loads(codec(chat).complete(orjson.dumps(event)).raw)["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    chunks, _ = read_all(stream_codec(chat), [sse(event)])
    deltas = [c["delta"] for chunk in chunks for c in chunk["choices"]]
    assert {"function_call": {"name": "f", "arguments": '{"a":1}'}} in deltas
    assert read_chunks(chunks).finish_reason == "function_call"
