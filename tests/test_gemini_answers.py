"""Gemini's answers part by part, whole and streamed, as an OpenAI client reads them, beyond what recordings reach."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gw.chat_checks import check_chat
from gw.errors import UpstreamProtocolError
from gw.signatures import MemorySignatures
from tests.accumulators import accumulated
from tests.codecs import read_all
from tests.gemini_fakes import USER, answer, codec, part_event, sse, stream_codec
from tests.recordings import check_laws, read_chunks

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


def test_a_number_in_a_call_keeps_all_its_digits_there_and_back() -> None:
    digits = "12345678901234567890123"
    body = orjson.dumps(part_event({"functionCall": {"name": "f", "args": {"id": 0}}}, finish="STOP"))
    body = body.replace(b'"id":0', b'"id":' + digits.encode())
    message = orjson.loads(codec().complete(body).raw)["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == f'{{"id":{digits}}}'
    chunks, _ = read_all(stream_codec(), [b"data: " + body + b"\r\n\r\n"])
    assert read_chunks(chunks).tool_calls[0][2] == {"id": int(digits)}
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "ok"}
    assert f'"args":{{"id":{digits}}}'.encode() in codec({"messages": [USER, message, result]}).wire.content


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
    assert message["content"] == ""
    assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    chunks, _ = read_all(stream_codec(), [sse(part_event(image, finish="STOP"))])
    assert any(c["delta"].get("images") for chunk in chunks for c in chunk["choices"])


def test_a_draft_of_an_image_that_stands_among_the_thoughts_is_no_part_of_the_answer() -> None:
    draft = {"thought": True, "inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    message = answer({"text": "First a sketch.", "thought": True}, draft, {"text": "Here."})["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Here.", "First a sketch.")
    assert "images" not in message


def test_images_citations_and_audio_in_pieces_are_put_together_by_openais_own_package() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}}
    sources = {"groundingChunks": [{"web": {"uri": "https://a.example/"}}, {"web": {"uri": "https://b.example/"}}]}
    events = [
        part_event(image, sound, groundingMetadata=sources),
        part_event(image, image),
        part_event(sound),
        part_event({"text": "."}, finish="STOP", groundingMetadata=sources),
    ]
    chunks, _ = read_all(stream_codec(), [sse(*events)])
    message = accumulated(chunks)["choices"][0]["message"]
    assert [one["index"] for one in message["images"]] == [0, 1, 2]
    assert [one["index"] for one in message["annotations"]] == [0, 1, 2, 3]
    assert message["audio"]["id"] == "audio_req-1"
    assert message["audio"]["expires_at"] == 1_700_000_000
    assert message["audio"]["data"] == "AAAAAAAA"


@pytest.mark.parametrize(
    "body",
    [
        part_event({"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}, finish="STOP"),
        part_event({"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA"}}, finish="STOP"),
        part_event({"text": "Hm.", "thought": True}, finish="MAX_TOKENS"),
        {"candidates": [{"finishReason": "SAFETY"}]},
        {"promptFeedback": {"blockReason": "SAFETY"}},
    ],
    ids=["image", "audio", "thought", "filtered", "blocked"],
)
def test_an_answer_without_a_text_is_a_message_that_may_be_sent_back(body: dict[str, Any]) -> None:
    message = orjson.loads(codec().complete(orjson.dumps(body)).raw)["choices"][0]["message"]
    check_chat({"model": "m", "messages": [USER, message, USER]})


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
    asked: dict[str, Any] = {"web_search_options": {}}
    for chat in (asked, {}):  # Gemini cites its sources unasked, too
        chunks, _ = read_all(stream_codec(chat), [sse(*events)])
        found = [c["delta"].get("annotations") for chunk in chunks for c in chunk["choices"]]
        assert [one for one in found if one] == [[{"index": 0, **wanted[0]}]]


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
