"""Reading media, tool calls and the deprecated form out of a chat request."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gw.chat_parts import (
    Media,
    as_function_call,
    check_tool_results,
    field_path,
    is_deprecated,
    names_by_call_id,
    read_data_uri,
    read_file,
    safe_tool_id,
    sniff_image,
    text_of,
    with_tools,
)
from gw.errors import InvalidRequest
from tests.anthropic_fakes import called, result, user


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("/messages/2/content/0/image_url", "messages[2].content[0].image_url"),
        ("/tools/0", "tools[0]"),
        ("/n", "n"),
        ("/a~1b/c~0d", "a/b.c~d"),
    ],
)
def test_a_pointer_reads_as_a_path(pointer: str, path: str) -> None:
    assert field_path(pointer) == path


@pytest.mark.parametrize(
    ("uri", "media"),
    [
        ("data:image/png;base64,AAAA", Media("image/png", "AAAA")),
        ("DATA:Image/PNG;name=x.png;BASE64,AA\n AA", Media("image/png", "AAAA")),
        ("data:;base64,AA%3D%3D", Media("text/plain", "AA==")),
        ("data:text/plain,a%20b", Media("text/plain", base64.b64encode(b"a b").decode())),
        ("data:,", Media("text/plain", "")),
        ("data:image/png;base64", None),
        ("https://example.com", None),
    ],
)
def test_data_uris(uri: str, media: Media | None) -> None:
    assert read_data_uri(uri) == media


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n____", "image/png"),
        (b"\xff\xd8\xff\xe0____", "image/jpeg"),
        (b"GIF89a____", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"\0\0\0\x20ftypheic____", "image/heic"),
        (b"plain text", None),
        (b"", None),
    ],
)
def test_an_image_is_known_by_its_first_bytes(head: bytes, media_type: str | None) -> None:
    assert sniff_image(base64.b64encode(head).decode()) == media_type
    assert sniff_image(base64.urlsafe_b64encode(head).decode().rstrip("=")) == media_type


def test_a_bare_files_type_is_told_by_its_name() -> None:
    def kind(name: str) -> str:
        source = read_file({"file": {"filename": name, "file_data": "QQ=="}}, "/f", "p").source
        assert isinstance(source, Media)
        return source.media_type

    assert [kind("a.csv"), kind("a.PDF"), kind("")] == ["text/csv", "application/pdf", "application/pdf"]


def test_text_is_put_together_from_all_forms_of_content() -> None:
    assert text_of("a") == "a"
    assert text_of(None) == ""
    assert text_of([{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "refusal", "refusal": "b"}]) == "ab"


@pytest.mark.parametrize("call_id", ["call_1", "toolu_01-X", "a" * 64])
def test_a_safe_id_stays_as_it_is(call_id: str) -> None:
    assert safe_tool_id(call_id) == call_id


def test_an_unsafe_id_gets_a_stable_name_of_its_own() -> None:
    names = {safe_tool_id(unsafe) for unsafe in ("a b", "a.b", "a" * 65, "", "é")}
    assert len(names) == 5
    assert all(name.startswith("call_") and len(name) == 29 for name in names)
    assert safe_tool_id("a b") == safe_tool_id("a b")


def test_names_are_found_by_the_ids_of_calls() -> None:
    custom = {"role": "assistant", "tool_calls": [{"id": "3", "type": "custom", "custom": {"name": "c"}}]}
    assert names_by_call_id([user(), called(("1", "a", ""), ("2", "b", "")), custom]) == {"1": "a", "2": "b", "3": "c"}


@pytest.mark.parametrize(
    "messages",
    [
        [user()],
        [user(), called(("1", "a", "{}")), result("1"), user()],
        [user(), called(("1", "a", "{}"), ("2", "a", "{}")), result("2"), result("1")],
        [user(), called(("1", "a", "{}")), result("1"), called(("1", "a", "{}")), result("1")],
    ],
)
def test_a_whole_history_passes(messages: list[dict[str, Any]]) -> None:
    check_tool_results(messages, "p")


def test_a_missing_result_is_named_with_its_provider() -> None:
    with pytest.raises(InvalidRequest, match="'2' has no result: gemini needs") as caught:
        check_tool_results([user(), called(("1", "a", ""), ("2", "a", "")), result("1"), user()], "gemini")
    assert caught.value.param == "messages[1].tool_calls[1]"


def test_the_deprecated_form_is_recognised_and_modernised() -> None:
    assert not is_deprecated({"messages": [user()]})
    chat = {
        "messages": [
            user(),
            {"role": "assistant", "content": None, "function_call": {"name": "a", "arguments": "{}"}},
            {"role": "function", "name": "a", "content": "r"},
        ],
        "functions": [{"name": "a"}],
        "function_call": "auto",
        "seed": 1,
    }
    assert is_deprecated(chat)
    assert is_deprecated({"messages": chat["messages"]})
    modern = with_tools(chat)
    assert modern["tools"] == [{"type": "function", "function": {"name": "a"}}]
    assert (modern["tool_choice"], modern["seed"]) == ("auto", 1)
    assert "functions" not in modern
    assert modern["messages"][2]["tool_call_id"] == modern["messages"][1]["tool_calls"][0]["id"]
    check_tool_results(modern["messages"], "p")
    assert "function_call" in chat["messages"][1]  # type: ignore[index]


@pytest.mark.parametrize("nothing", [{"functions": None}, {"functions": []}, {"function_call": None}])
def test_a_deprecated_field_that_says_nothing_is_as_good_as_absent(nothing: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "a"}}]
    chat = {"messages": [user()], "tools": tools, **nothing}
    assert not is_deprecated(chat)
    assert with_tools(chat)["tools"] == tools


@pytest.mark.parametrize("asked", [{"functions": [{"name": "a"}]}, {"function_call": "auto"}])
def test_both_forms_at_once_are_refused(asked: dict[str, Any]) -> None:
    chat = {"messages": [user()], "tools": [{"type": "function", "function": {"name": "b"}}], **asked}
    with pytest.raises(InvalidRequest, match="give one of them") as caught:
        with_tools(chat)
    assert caught.value.param == next(iter(asked))


def test_an_answer_is_turned_back() -> None:
    message = called(("1", "a", "{}"))
    as_function_call(message)
    assert message == {"role": "assistant", "content": None, "function_call": {"name": "a", "arguments": "{}"}}


def test_two_calls_of_one_turn_never_share_an_id() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
    ]
    with pytest.raises(InvalidRequest, match="the same id: Gemini pairs") as caught:
        check_tool_results(messages, "Gemini")
    assert caught.value.param == "messages[0].tool_calls"
