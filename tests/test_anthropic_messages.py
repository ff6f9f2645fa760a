"""Roles, content and history as Claude wants them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gw.adapters.anthropic import Anthropic
from gw.errors import InvalidRequest
from tests.anthropic_fakes import (
    ADAPTIVE,
    BUDGET,
    OLD,
    body_of,
    called,
    codec_of,
    encoded,
    function,
    pointers,
    request_of,
    result,
    user,
)
from tests.codecs import opened_untouched

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
PDF = base64.b64encode(b"%PDF-1.7 ...").decode()


def turns_of(messages: list[dict[str, Any]], model: str = BUDGET, **fields: Any) -> list[tuple[str, Any]]:
    body = body_of({"messages": messages} | fields, model)
    return [(turn["role"], turn["content"]) for turn in body["messages"]]


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def refused(chat: dict[str, Any], model: str = BUDGET) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        codec_of(chat, model)
    assert caught.value.status == 400
    return caught.value


def test_leading_system_and_developer_messages_become_the_system_prompt() -> None:
    body = body_of(
        {
            "messages": [
                {"role": "system", "content": "One."},
                {"role": "developer", "content": [text("Two."), text("Three.")]},
                user(),
            ]
        }
    )
    assert body["system"] == [text("One."), text("Two."), text("Three.")]
    assert body["messages"] == [{"role": "user", "content": [text("Hi")]}]


def test_a_later_system_message_stays_where_it_is() -> None:
    messages = [user("A"), {"role": "assistant", "content": "B"}, {"role": "system", "content": "S"}, user("C")]
    assert turns_of(messages, ADAPTIVE)[2:] == [("system", [text("S")]), ("user", [text("C")])]
    body, losses = encoded({"messages": messages}, BUDGET)
    assert "system" not in body
    assert body["messages"][2]["content"] == [text("<system>S</system>"), text("C")]
    assert pointers(losses) == [("/messages/2", "changed")]


def test_consecutive_messages_of_one_role_are_one_turn() -> None:
    assert turns_of([user("A"), user("B"), {"role": "assistant", "content": "C"}, user("D")]) == [
        ("user", [text("A"), text("B")]),
        ("assistant", [text("C")]),
        ("user", [text("D")]),
    ]


def test_blank_texts_are_left_out() -> None:
    content = [text(""), text(" \n"), text("A")]
    assert turns_of([{"role": "system", "content": ""}, user(content)]) == [("user", [text("A")])]


def test_a_user_message_left_empty_is_refused() -> None:
    error = refused({"messages": [user("A"), user([text("  ")])]})
    assert error.param == "messages[1].content"
    assert "anthropic" in error.message


def test_an_empty_assistant_message_is_dropped_and_told() -> None:
    body, losses = encoded({"messages": [user("A"), {"role": "assistant", "content": ""}, user("B")]})
    assert [turn["role"] for turn in body["messages"]] == ["user"]
    assert pointers(losses) == [("/messages/1", "dropped")]


def test_all_results_of_a_turn_stand_in_one_user_message_before_its_text() -> None:
    tools = [function("a"), function("b")]
    turns = turns_of(
        [user(), called(("1", "a", "{}"), ("2", "b", '{"x":1}')), result("1", "one"), result("2", "two"), user("Go")],
        tools=tools,
    )
    assert turns[1] == (
        "assistant",
        [
            {"type": "tool_use", "id": "1", "name": "a", "input": {}},
            {"type": "tool_use", "id": "2", "name": "b", "input": {"x": 1}},
        ],
    )
    assert turns[2] == (
        "user",
        [
            {"type": "tool_result", "tool_use_id": "1", "content": [text("one")]},
            {"type": "tool_result", "tool_use_id": "2", "content": [text("two")]},
            text("Go"),
        ],
    )


def test_an_assistants_text_stands_before_its_calls() -> None:
    message = called(("1", "look", ""), content="Looking.", refusal=None)
    turns = turns_of([user(), message, result("1", "")], tools=[function()])
    assert turns[1][1] == [text("Looking."), {"type": "tool_use", "id": "1", "name": "look", "input": {}}]
    assert turns[2][1] == [{"type": "tool_result", "tool_use_id": "1"}]


def test_a_refusal_travels_as_text() -> None:
    turns = turns_of([user(), {"role": "assistant", "content": None, "refusal": "No."}, user("Why?")])
    assert turns[1] == ("assistant", [text("No.")])


def test_media_in_a_tool_result_stays_inside_it() -> None:
    content = [text("Here"), {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    turns = turns_of([user(), called(("1", "look", "{}")), result("1", content, is_error=True)], tools=[function()])
    assert turns[2][1][0]["is_error"] is True
    assert [block["type"] for block in turns[2][1][0]["content"]] == ["text", "image"]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([user(), called(("1", "look", "{}")), user("And?")], "messages[1].tool_calls[0]"),
        ([user(), called(("1", "look", "{}"))], "messages[1].tool_calls[0]"),
        ([user(), called(("1", "a", "{}"), ("2", "b", "{}")), result("1")], "messages[1].tool_calls[1]"),
        ([user(), called(("1", "look", "{}")), result("1"), result("9")], "messages[3].tool_call_id"),
        ([user(), result("1")], "messages[1].tool_call_id"),
        ([user(), called(("1", "look", "{oops")), result("1")], "messages[1].tool_calls[0].function.arguments"),
        ([user(), called(("1", "look", "[1]")), result("1")], "messages[1].tool_calls[0].function.arguments"),
        ([user([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}])], "messages[0].content[0]"),
        ([user([{"type": "video_url", "video_url": {"url": "https://x"}}])], "messages[0].content[0]"),
        ([user([{"type": "mystery"}])], "messages[0].content[0].type"),
        ([user(7)], "messages[0].content"),
        ([{"role": "wizard", "content": "A"}], "messages[0].role"),
        ([{"role": "system", "content": "A"}], "messages"),
        ([user([{"type": "image_url", "image_url": {"url": "ftp://x/y"}}])], "messages[0].content[0].image_url.url"),
        ([user([{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,Qk0="}}])],
         "messages[0].content[0].image_url.url"),
        ([user([{"type": "file", "file": {"file_id": "file-1"}}])], "messages[0].content[0].file.file_id"),
        ([user([{"type": "file", "file": {"file_data": "data:video/mp4;base64,AAAA"}}])],
         "messages[0].content[0].file.file_data"),
    ],
)  # fmt: skip
def test_what_claude_cannot_read_is_refused_by_its_place(messages: list[dict[str, Any]], param: str) -> None:
    error = refused({"messages": messages, "tools": [function(), function("a"), function("b")]})
    assert error.param == param
    assert error.message


def test_an_image_says_what_its_bytes_are() -> None:
    url = f"data:image/jpeg;base64,{PNG[:10]}\n{PNG[10:]}"
    body, losses = encoded({"messages": [user([{"type": "image_url", "image_url": {"url": url, "detail": "high"}}])]})
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    assert body["messages"][0]["content"] == [{"type": "image", "source": source}]
    assert pointers(losses) == [("/messages/0/content/0/image_url/detail", "dropped")]


def test_an_image_address_is_left_to_the_provider() -> None:
    turns = turns_of([user([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])])
    assert turns[0][1] == [{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}]


def test_files_become_documents() -> None:
    csv = base64.b64encode(b"a,b\n1,2").decode()
    parts = [
        {"type": "file", "file": {"filename": "r.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
        {"type": "file", "file": {"filename": "t.csv", "file_data": f"data:text/csv;base64,{csv}"}},
        {"type": "file", "file": {"filename": "i.png", "file_data": f"data:image/png;base64,{PNG}"}},
        {"type": "file", "file": {"file_data": "https://example.com/r.pdf"}},
    ]
    blocks = turns_of([user(parts)])[0][1]
    assert blocks[0]["source"] == {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert blocks[0]["title"] == "r.pdf"
    assert blocks[1]["source"] == {"type": "text", "media_type": "text/plain", "data": "a,b\n1,2"}
    assert blocks[2]["type"] == "image"
    assert blocks[3]["source"] == {"type": "url", "url": "https://example.com/r.pdf"}


def test_a_foreign_tool_id_gets_the_same_safe_name_everywhere_and_every_time() -> None:
    chat = {"messages": [user(), called(("a b/é", "look", "{}")), result("a b/é")], "tools": [function()]}
    first, second = body_of(chat), body_of(chat)
    call_id = first["messages"][1]["content"][0]["id"]
    assert call_id == first["messages"][2]["content"][0]["tool_use_id"]
    assert call_id.replace("_", "").isalnum()
    assert call_id.isascii()
    assert first == second


def test_a_last_assistant_message_is_continued_only_where_the_model_does_so() -> None:
    messages = [user(), {"role": "assistant", "content": "Once upon a \n"}]
    assert turns_of(messages, OLD)[1] == ("assistant", [text("Once upon a")])
    error = refused({"messages": messages}, ADAPTIVE)
    assert error.param == "messages[1]"
    assert ADAPTIVE in error.message


def test_what_a_message_carries_beyond_that_is_told() -> None:
    losses = encoded(
        {
            "messages": [
                user() | {"name": "ann"},
                {
                    "role": "assistant",
                    "content": "A",
                    "audio": {"id": "a1"},
                    "annotations": [],
                    "reasoning_content": "Hm",
                },
                user(),
            ]
        }
    )[1]
    assert pointers(losses) == [
        ("/messages/0/name", "dropped"),
        ("/messages/1/audio", "dropped"),
        ("/messages/1/reasoning_content", "dropped"),
    ]


def test_cache_markers_are_carried_over() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    body = body_of(
        {
            "messages": [
                {"role": "system", "content": [text("S") | {"cache_control": mark}]},
                user("A") | {"cache_control": {"type": "ephemeral"}},
                user([text("B") | {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}]),
            ],
            "tools": [function() | {"cache_control": mark}],
        }
    )
    assert body["system"][0]["cache_control"] == mark
    assert [block["cache_control"] for block in body["messages"][0]["content"]] == [{"type": "ephemeral"}, mark]
    assert body["tools"][0]["cache_control"] == mark


def test_a_fifth_cache_marker_is_one_too_many() -> None:
    marked = [text(str(at)) | {"cache_control": {"type": "ephemeral"}} for at in range(6)]
    body, losses = encoded({"messages": [user(marked)]})
    kept = [block["text"] for block in body["messages"][0]["content"] if "cache_control" in block]
    assert kept == ["0", "3", "4", "5"]
    assert pointers(losses) == [("/messages", "changed")]


def test_a_conversation_that_grew_by_a_turn_has_the_same_bytes_before_it() -> None:
    tools = [function("look", {"type": "object", "properties": {"x": {"type": "string"}, "a": {"type": "integer"}}})]
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        user([text("A"), {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]),
    ]
    steps = [
        [called(("call/1", "look", '{"x": "y", "a": 1}')), result("call/1", "r")],
        [{"role": "assistant", "content": "B"}, user("C")],
        [{"role": "assistant", "content": "D"}, {"role": "system", "content": "E"}, user("F")],
    ]
    former = b""
    for step in ([], *steps):
        history += step
        codec = codec_of({"messages": history, "tools": tools, "reasoning_effort": "high", "stream": True}, ADAPTIVE)
        content = codec.wire.content
        assert content.startswith(former.removesuffix(b"]}"))
        former = content


def test_the_clients_own_document_is_never_changed() -> None:
    chat = {
        "messages": [
            user([text("A") | {"cache_control": {"type": "ephemeral"}}] * 6),
            called(("1", "x y", "{}")),
            result("1"),
            {"role": "system", "content": [text("S")]},
        ],
        "tools": [
            function("x y") | {"cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "w"},
        ],
        "response_format": {"type": "json_object"},
    }
    opened_untouched(Anthropic(), request_of(chat))
