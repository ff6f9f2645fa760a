"""Bodies that are no chat request, or too much of one: a 400 or 413 that says what, and nothing goes further."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from gw.message_checks import MAX_MESSAGES, MAX_PARTS
from gw.server import Limits
from tests.attack_world import World, chat, post, world
from tests.chat_bodies import WRONG

MAX_BODY = 4_000_000
HI = b'"messages":[{"role":"user","content":"Hi"}]'


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("bodies"), limits=Limits(max_body=MAX_BODY)) as attacked:
        yield attacked


def chat_with(member: bytes) -> bytes:
    return b'{"model":"m",' + HI + b"," + member + b"}"


# --- what is no JSON ---------------------------------------------------------------------------------------------

NO_JSON: list[bytes] = [
    *(b"", b" ", b"\0", b"{", b"}", b"[", b'"', b"nul", b"True", b"undefined", b"NaN", b"Infinity", b"-Infinity",
    b"0x10", b"01", b"+1", b".5"),
    *(b"{}{}", b"{} {}", b"{},", b"[1,]", b"{'a':1}", b'{"a":1,}', b"{a:1}", b'{"a"}', b'{"a":}', b'{"a" 1}',
    b"/**/{}", b"{}//", b"#{}", b"\x0b{}"),
    *(b"\xef\xbb\xbf{}", "{}".encode("utf-16"), "{}".encode("utf-16-be"), "{}".encode("utf-32"), b"\x00{}", b"{}\x00",
    b"\x1f\x8b\x08\x00"),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\x41"', b'"\\u12"', b'"\\u{41}"', b'"\xff"', b'"\xc0\xaf"',
    b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"'),
    *(b'"\n"', b'"\x00"', b'"\x1f"', b"1e999", b"-1e999", b"1" * 400, b"model=m&messages=Hi", b"<xml/>",
    b"--x\r\nContent-Disposition: form-data\r\n"),
]  # fmt: skip
IN_A_FIELD = [
    raw for raw in NO_JSON if raw.strip(b" ,") and raw not in (b"}", b"{}{}", b"{} {}", b"{},", b"{}//", b"{}\x00",
    b'"') and b"," not in raw
]  # fmt: skip


@pytest.mark.parametrize(
    "raw", [*NO_JSON, *(chat_with(b'"x":' + raw) for raw in IN_A_FIELD)], ids=lambda raw: repr(raw[-30:])
)
def test_what_is_no_json_is_a_400_and_the_connection_goes_on(attacked: World, raw: bytes) -> None:
    before = len(attacked.reached)
    answer = attacked.attack(post(raw), [400], kept=True)[0]
    assert answer.code == "invalid_json"
    assert len(attacked.reached) == before


@pytest.mark.parametrize("raw", [b"[]", b"null", b"true", b"1", b'"x"', b"[{}]", b"-0", b"1e5"])
def test_what_is_no_object_is_a_400(attacked: World, raw: bytes) -> None:
    assert attacked.attack(post(raw), [400], kept=True)[0].code == "invalid_value"


# --- what is no chat request -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "param"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_field_of_the_wrong_kind_is_a_400_that_names_it(attacked: World, body: dict[str, Any], param: str) -> None:
    before = len(attacked.reached)
    answer = attacked.attack(post(json.dumps(body).encode()), [400], kept=True)[0]
    error = orjson.loads(answer.body)["error"]
    assert (error["code"], error["param"], error["type"]) == ("invalid_value", param, "invalid_request_error")
    assert param in error["message"]
    assert len(attacked.reached) == before


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * levels + closing * levels


def many(item: bytes, count: int) -> bytes:
    return b",".join([item] * count)


MUCH: dict[str, tuple[bytes, str]] = {  # the body, and what the message says
    "64 levels below the object": (chat_with(b'"x":' + nested(64)), "64 levels"),
    "64 levels of objects": (chat_with(b'"x":' + b'{"a":' * 64 + b"1" + b"}" * 64), "64 levels"),
    "300 levels": (chat_with(b'"x":' + nested(300)), "64 levels"),
    "300 levels in a tool": (
        chat_with(b'"tools":[{"type":"function","function":{"name":"f","parameters":{"a":' + nested(300) + b"}}}]"),
        "64 levels",
    ),
    "300 levels in metadata": (chat_with(b'"metadata":' + nested(300)), "64 levels"),
    "1000 levels": (chat_with(b'"x":' + nested(1000)), "64 levels"),
    "100,000 levels": (chat_with(b'"x":' + nested(100_000)), "not valid JSON"),
    "1,100,000 openings": (b"[" * 1_100_000, "500,000"),
    "1,000,000 open objects": (b'{"a":' * 700_000, "500,000"),
    "600,000 numbers in lists": (chat_with(b'"x":[' + b"[]," * 600_000 + b"[]]"), "500,000"),
    "10,001 messages": (b'{"messages":[' + b",".join([b'{"role":"user","content":"x"}'] * (MAX_MESSAGES + 1)) + b"]}",
    "10,001 messages"),
    "10,001 parts": (
        b'{"messages":[{"role":"user","content":[' + many(b'{"type":"text","text":"x"}', MAX_PARTS + 1) + b"]}]}",
        "10,001 content parts",
    ),
    "parts over several messages": (
        b'{"messages":['
        + many(b'{"role":"user","content":[' + many(b'{"type":"text","text":"x"}', 1000) + b"]}", 11)
        + b"]}",
        "content parts",
    ),
    "10,001 tool calls": (
        b'{"messages":[{"role":"assistant","tool_calls":['
        + b",".join([b'{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'] * (MAX_PARTS + 1))
        + b"]}]}",
        "10,001 tool calls",
    ),
    "1025 tools": (chat_with(b'"tools":[' + b",".join([b'{"type":"function","function":{"name":"f"}}'] * 1025) + b"]"),
    "1,025 tools"),
    "1025 functions": (chat_with(b'"functions":[' + b",".join([b'{"name":"f"}'] * 1025) + b"]"), "1,025 functions"),
    "1025 CLI tools": (chat_with(b'"cli_tools":[' + b",".join([b'"Read"'] * 1025) + b"]"), "1,025 names"),
    "257 stops": (chat_with(b'"stop":[' + b",".join([b'"x"'] * 257) + b"]"), "257 strings"),
    "9 modalities": (chat_with(b'"modalities":[' + b",".join([b'"text"'] * 9) + b"]"), "9 modalities"),
    "a long model": (b'{"model":"' + b"m" * 257 + b'",' + HI + b"}", "at most 256"),
    "a long name": (b'{"messages":[{"role":"user","content":"x","name":"' + b"n" * 513 + b'"}]}', "at most 512"),
    "a long directory": (chat_with(b'"working_directory":"' + b"/a" * 2049 + b'"'), "at most 4,096"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUCH)
def test_too_much_is_a_400_that_says_of_what(attacked: World, name: str) -> None:
    body, words = MUCH[name]
    before = len(attacked.reached)
    answer = attacked.attack(post(body), [400], kept=True)[0]
    assert words in orjson.loads(answer.body)["error"]["message"]
    assert len(attacked.reached) == before


def test_a_body_over_the_limit_is_a_413_whether_it_is_told_or_counted(attacked: World) -> None:
    image = chat("data:image/png;base64," + "A" * MAX_BODY)
    assert attacked.attack(post(image)[:2000], [413], kept=False)[0].code == "request_too_large"
    pieces = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (image[at : at + 65536] for at in range(0, len(image), 65536))
    )
    coded = post(b"", "Transfer-Encoding: chunked", length=False) + pieces
    assert attacked.attack(coded, [413], kept=False)[0].code == "request_too_large"
    assert attacked.reached == [] or all(len(body) < MAX_BODY for body in attacked.reached)


# --- what is taken is what is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "member",
    [
        *(b'"seed":18446744073709551616', b'"seed":-9223372036854775809', b'"x":1e308', b'"x":5e-324', b'"x":-0.0'),
        *(b'"x":18446744073709551615', b'"user":"\\u0000"', b'"x":"\\ud83d\\ude00"', b'"x":{"":{"":[]}}'),
        *(b'"x":' + nested(61), b'"x":"' + b"[" * 500 + b'"', b'"\\u0078":"\\u2028"', b'"x":"\x7f"'),
    ],
    ids=lambda member: repr(member[:30]),
)  # fmt: skip
def test_odd_values_go_through_as_they_came(attacked: World, member: bytes) -> None:
    raw = chat_with(member)
    assert attacked.attack(post(raw), [200], kept=True)
    assert attacked.reached[-1] == raw
    streamed = chat_with(member + b',"stream_options":null')  # has to be written anew
    attacked.attack(post(streamed), [200], kept=True)
    sent = orjson.loads(attacked.reached[-1])
    assert {**orjson.loads(streamed), "stream_options": None} == {**sent, "stream_options": None}


TWICE: list[tuple[bytes, dict[str, Any]]] = [
    (b'{"model":"a","model":"m",' + HI + b"}", {"model": "m"}),
    (b'{"stream":"x","stream":false,"model":"m",' + HI + b"}", {"stream": False}),
    (b'{"model":"m","messages":[],' + HI + b"}", {"messages": [{"role": "user", "content": "Hi"}]}),
    (b'{"model":"m","messages":[{"role":"x","role":"user","content":"Hi"}]}', {"messages": [{"role": "user",
    "content": "Hi"}]}),
    (b'{"mod\\u0065l":"a","model":"m",' + HI + b"}", {"model": "m"}),
    (b'{"model":"a","mod\\u0065l":"m",' + HI + b"}", {"model": "m"}),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "wanted"), TWICE, ids=lambda value: repr(value)[:40])
def test_of_two_members_of_one_name_the_provider_sees_the_one_that_was_checked(
    attacked: World, raw: bytes, wanted: dict[str, Any]
) -> None:
    attacked.attack(post(raw), [200], kept=True)
    sent = attacked.reached[-1]
    seen: list[tuple[str, Any]] = json.loads(sent, object_pairs_hook=lambda pairs: pairs)
    assert len({name for name, _ in seen}) == len(seen), "a name twice"
    value = orjson.loads(sent)
    assert {name: value[name] for name in wanted} == wanted
    assert sent.count(b'"role"') == 1


@pytest.mark.parametrize(
    "name", ["Model", "MODEL", "Messages", "STREAM", "Tools", "\u017ftream", "Bac\u212aend", "TEMPERATURE"]
)
def test_a_field_in_other_letters_is_refused_because_some_servers_would_obey_it(attacked: World, name: str) -> None:
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], name: "x"}).encode()
    answer = attacked.attack(post(raw), [400], kept=True)[0]
    assert "write `" in orjson.loads(answer.body)["error"]["message"]


@pytest.mark.parametrize(
    "media_type",
    [
        *("", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
        *("application/jsonx", "application/json-patch", "text/plain, application/json", "json", "*/*", "image/png"),
        "application/json, text/plain",
    ],
)  # fmt: skip
def test_what_does_not_call_itself_json_is_a_415(attacked: World, media_type: str) -> None:
    data = post(chat()).replace(b"Content-Type: application/json", f"Content-Type: {media_type}".encode())
    assert attacked.attack(data, [415], kept=True)[0].code == "unsupported_media_type"


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/x+json",
        "application/json;",
    ],
)
def test_what_calls_itself_json_is_read(attacked: World, media_type: str) -> None:
    data = post(chat()).replace(b"Content-Type: application/json", f"Content-Type: {media_type}".encode())
    attacked.attack(data, [200], kept=True)
