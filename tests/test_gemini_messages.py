"""Roles, media, calls and their results as Gemini wants them; one more turn only adds to the bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gemini_fakes import PNG, TOOL, USER, call, contents, detail, losses, open_codec, result, sent

# --- messages -----------------------------------------------------------------------------------------------------


def test_leading_system_messages_are_the_system_instruction_and_later_ones_keep_their_place() -> None:
    body = sent(
        {
            "messages": [
                {"role": "system", "content": "A"},
                {"role": "developer", "content": [{"type": "text", "text": "B"}]},
                USER,
                {"role": "system", "content": "C"},
                USER,
            ]
        }
    )
    assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "Hi"}, {"text": "<system>C</system>"}, {"text": "Hi"}]}
    ]


def test_turns_of_one_role_become_one() -> None:
    found = contents([USER, USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, USER])
    assert [(one["role"], len(one["parts"])) for one in found] == [("user", 2), ("model", 2), ("user", 1)]


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG[:20]}\n{PNG[20:]}"}},
            {"inlineData": {"mimeType": "image/png", "data": PNG}},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
            {"inlineData": {"mimeType": "audio/mpeg", "data": "SUQz"}},
        ),
        (
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
            {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}},
        ),
        (
            {"type": "video_url", "video_url": {"url": "https://youtu.be/abc"}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://youtu.be/abc"}},
        ),
        (
            {
                "type": "image_url",
                "image_url": {"url": "https://generativelanguage.googleapis.com/v1beta/files/abc"},
            },
            {
                "fileData": {
                    "mimeType": "image/jpeg",
                    "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc",
                }
            },
        ),
    ],
    ids=["image", "pdf", "wav", "mp3", "video", "youtube", "files"],
)
def test_media_go_in_line(part: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert contents([{"role": "user", "content": [{"type": "text", "text": "See"}, part]}])[0]["parts"] == [
        {"text": "See"},
        wanted,
    ]


def test_results_are_one_content_with_one_response_a_call_in_the_order_of_the_calls() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": "Wait", "tool_calls": [call("1"), call("2", "g", ""), call("3")]},
        result("3", "three"),
        result("1", [{"type": "text", "text": "one"}]),
        result("2", "two", is_error=True),
        USER,
    ]
    found = contents(messages)
    assert found[1] == {
        "role": "model",
        "parts": [
            {"text": "Wait"},
            {"functionCall": {"name": "f", "args": {"a": 1}}},
            {"functionCall": {"name": "g", "args": {}}},
            {"functionCall": {"name": "f", "args": {"a": 1}}},
        ],
    }
    assert found[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "f", "response": {"output": "one"}}},
            {"functionResponse": {"name": "g", "response": {"error": "two"}}},
            {"functionResponse": {"name": "f", "response": {"output": "three"}}},
            {"text": "Hi"},
        ],
    }


def test_ids_of_calls_go_to_models_that_know_them_only() -> None:
    messages = [USER, {"role": "assistant", "tool_calls": [call("c1")]}, result("c1")]
    _, model, user = contents(messages, "gemini-3-flash-preview")
    assert model["parts"][0]["functionCall"]["id"] == "c1"
    assert user["parts"][0]["functionResponse"]["id"] == "c1"
    assert "c1" not in json.dumps(contents(messages, "gemini-2.5-flash"))


def test_media_in_a_result_stand_inside_it_from_gemini_3_on_and_beside_it_before() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    messages = [USER, {"role": "assistant", "tool_calls": [call("c1")]}, result("c1", [image])]
    inline = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    assert contents(messages, "gemini-3-flash-preview")[2]["parts"][0]["functionResponse"]["parts"] == [inline]
    assert contents(messages)[2]["parts"] == [{"functionResponse": {"name": "f", "response": {"output": ""}}}, inline]


def test_a_deprecated_function_call_and_its_result_become_a_pair() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "ok"},
    ]
    found = contents(messages, functions=[{"name": "f"}], function_call={"name": "f"})
    assert found[1]["parts"] == [{"functionCall": {"name": "f", "args": {}}}]
    assert found[2]["parts"] == [{"functionResponse": {"name": "f", "response": {"output": "ok"}}}]


def test_a_custom_call_of_history_is_a_function_with_one_text() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    messages = [USER, {"role": "assistant", "tool_calls": [custom]}, result("c")]
    assert contents(messages)[1]["parts"] == [{"functionCall": {"name": "sql", "args": {"input": "SELECT 1"}}}]


def test_refusals_and_images_of_the_model_go_back_to_it() -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "", "images": [{"image_url": {"url": f"data:image/png;base64,{PNG}"}}]},
        USER,
    ]
    assert contents(messages)[1]["parts"] == [{"text": "No."}, {"inlineData": {"mimeType": "image/png", "data": PNG}}]
    messages[1]["content"] = "I began"
    assert contents(messages)[1]["parts"][:2] == [{"text": "I began"}, {"text": "No."}]


def test_parts_of_the_assistant_travel_in_their_order_and_what_does_not_is_told() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    parts = [
        {"type": "text", "text": "Before", "cache_control": {"type": "ephemeral"}},
        image,
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": ", and "},
        {"type": "text", "text": "after."},
    ]
    messages = [USER, {"role": "assistant", "content": parts}, USER]
    assert contents(messages)[1]["parts"] == [
        {"text": "Before"},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"text": ", and after."},
    ]
    assert losses({"messages": messages}) == {
        "/messages/1/content/0/cache_control": "dropped",
        "/messages/1/content/2": "dropped",
    }


# --- prompt caches --------------------------------------------------------------------------------------------------


def test_one_more_turn_only_adds_to_the_bytes() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        USER,
        {"role": "assistant", "tool_calls": [call("1")], "reasoning_details": [detail("c2ln", id="1")]},
        result("1"),
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "More"},
        {"role": "assistant", "tool_calls": [call("2")]},
        result("2"),
    ]
    before = b""
    for count in (2, 4, 5, 6, 8):
        content = open_codec({"messages": turns[:count], "tools": [TOOL]}, "gemini-3-flash-preview").wire.content
        prefix = content.partition(b'],"tools"')[0].removesuffix(b"]}")
        assert content.startswith(before)
        before = prefix.removesuffix(b"]}")
