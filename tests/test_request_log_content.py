"""What the request log keeps of what was said: whole answers, no media, no secret, and nothing where it is told so."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gw.errors import UpstreamRefused
from gw.known_secrets import KnownSecrets
from gw.request_log.answers import messages_of
from gw.secret import Secret
from tests.exchanges import attempt, chunk, completion, exchange
from tests.request_log_world import only, opened, put, rows, spilled


def test_a_streamed_answer_is_put_together_from_its_chunks(tmp_path: Path) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get", "arguments": ""}}
    pieces = [
        chunk(role="assistant", content=""),
        chunk(content="Let "),
        chunk(content="me see."),
        chunk(tool_calls=[call]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        b'{"choices":[],"usage":{"prompt_tokens":1}}',
    ]
    row = only(tmp_path / "requests.db", exchange=exchange(response=pieces, stream=True))
    assert row["response"] == "Let me see."
    assert json.loads(row["metadata"])["message"] == {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get", "arguments": '{"a":1}'}}],
    }


PIECES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["content", "reasoning_content"]), st.text(max_size=6)), max_size=40
)


@given(PIECES, st.booleans())
def test_a_streamed_answer_is_the_sum_of_its_pieces(pieces: list[tuple[int, str, str]], in_order: bool) -> None:
    if in_order:
        pieces = sorted(pieces, key=lambda piece: piece[:2])
    expected: dict[int, dict[str, str]] = {}
    for index, name, text in pieces:
        said = expected.setdefault(index, {"role": "assistant"})
        said[name] = said.get(name, "") + text
    found = messages_of([chunk(index, **{name: text}) for index, name, text in pieces])
    assert found == [expected[index] for index in sorted(expected)]


def test_chunks_that_only_look_alike_are_told_apart() -> None:
    alike = [chunk(content="a") for _ in range(20)]
    broken = chunk(content="b").replace(b'"b"', rb'"\x"')
    other = chunk(content='"}}]}')
    more = chunk(content="d", refusal="e")
    raw = [*alike, broken, *alike, other, chunk(tool_calls=[{"index": 0, "id": "c"}]), *alike, more, *alike]
    (message,) = messages_of(raw)
    assert message["content"] == "a" * 40 + '"}}]}' + "a" * 20 + "d" + "a" * 20
    assert (message["tool_calls"], message["refusal"]) == ([{"id": "c"}], "e")


def test_the_pieces_of_tool_calls_of_either_type_are_put_together() -> None:
    function = {"id": "x", "type": "function", "function": {"name": "f", "arguments": ""}}
    custom = {"id": "y", "type": "custom", "custom": {"name": "sql", "input": ""}}
    pieces = [
        *({"index": 0} | function, {"index": 1} | custom),
        *({"index": 1, "custom": {"input": "SELECT"}}, {"index": 0, "function": {"arguments": "{}"}}),
        {"index": 1, "custom": {"input": " 1"}},
    ]
    (message,) = messages_of([chunk(tool_calls=[piece]) for piece in pieces])
    assert message["tool_calls"] == [
        function | {"function": {"name": "f", "arguments": "{}"}},
        custom | {"custom": {"name": "sql", "input": "SELECT 1"}},
    ]


def test_a_whole_answer_with_tool_calls_can_be_rebuilt(tmp_path: Path) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    row = only(tmp_path / "requests.db", exchange=exchange(response=[completion(None, tool_calls=calls)]))
    message = json.loads(row["metadata"])["message"]
    assert (row["response"], message["content"], message["tool_calls"]) == ("", None, calls)


def test_several_choices_are_all_kept(tmp_path: Path) -> None:
    one = exchange(response=[chunk(0, content="a"), chunk(1, content="b"), chunk(0, content="c")])
    row = only(tmp_path / "requests.db", exchange=one)
    assert row["response"] == "ac"
    assert [message["content"] for message in json.loads(row["metadata"])["messages"]] == ["ac", "b"]


def test_media_is_elided_to_type_size_and_hash(tmp_path: Path) -> None:
    image, sound = os.urandom(200_001), os.urandom(300)
    encoded, tone = base64.b64encode(image).decode(), base64.b64encode(sound).decode()
    uri = f"data:image/png;base64,{encoded}"
    parts = [
        {"type": "text", "text": f"see ![it]({uri}) and data: that is none, data:a;base64 neither"},
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image_url", "image_url": {"url": "data:image/svg+xml,%3Csvg%3E"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}},
        {"type": "input_audio", "input_audio": {"data": tone, "format": "wav"}},
    ]
    one = exchange(messages=[{"role": "user", "content": parts}], response=[completion(f"here: {uri}")])
    row = only(tmp_path / "requests.db", exchange=one)
    label = f"data:image/png;elided;size=200001;sha256={hashlib.sha256(image).hexdigest()[:16]}"
    text, picture, drawing, link, audio = json.loads(row["prompt"])[0]["content"]
    assert text["text"] == f"see ![it]({label}) and data: that is none, data:a;base64 neither"
    assert picture["image_url"]["url"] == label
    assert drawing["image_url"]["url"].startswith("data:image/svg+xml;elided;size=9;sha256=")
    assert link["image_url"]["url"] == "https://example.org/cat.jpg"
    assert audio["input_audio"]["data"].endswith(f"size=300;sha256={hashlib.sha256(sound).hexdigest()[:16]}")
    assert row["response"] == f"here: {label}"
    assert encoded[:100].encode() not in (tmp_path / "requests.db").read_bytes()


def test_redacted_keeps_roles_and_lengths_only(tmp_path: Path) -> None:
    quoted = UpstreamRefused("you wrote: my password is tulip", code="content_policy")
    one = exchange(
        messages=[
            {"role": "system", "content": "tulip"},
            {"role": "user", "content": [{"type": "text", "text": "tulip"}]},
        ],
        response=[completion("tulips", reasoning_content="a tulip")],
        error=quoted,
        attempts=[attempt(error=quoted)],
        attributes={"team.note": "tulip"},
    )
    path = tmp_path / "requests.db"
    row = only(path, exchange=one, content="redacted")
    assert json.loads(row["prompt"]) == [
        {"role": "system", "content": "[5 characters]"},
        {"role": "user", "content": [{"type": "text", "text": "[5 characters]"}]},
    ]
    assert (row["response"], row["error"]) == ("[6 characters]", "content_policy")
    assert b"tulip" not in path.read_bytes()


def test_none_keeps_no_content_but_the_figures(tmp_path: Path) -> None:
    row = only(tmp_path / "requests.db", exchange=exchange(), content="none")
    assert (row["prompt"], row["response"], row["tokens_input"]) == ("", None, 10)


def test_a_known_secret_is_found_nowhere(tmp_path: Path) -> None:
    canary = 'sk-canary-"0123456789/+é'
    forms = [canary, base64.b64encode(b"user:" + canary.encode()).decode(), "sk-canary-%220123456789%2F%2B%C3%A9"]
    text = " and ".join(forms)
    one = exchange(
        id=canary,
        messages=[{"role": "user", "content": text}],
        response=[completion(text, reasoning_content=text)],
        error=UpstreamRefused(text),
        attempts=[attempt(error=UpstreamRefused(text))],
        session_id=canary,
        path=f"/v1/{canary}/chat",
        attributes={"team.note": text},
    )
    path = tmp_path / "requests.db"
    with opened(path, secrets=KnownSecrets([Secret(canary)])) as log:
        put(log, one)
        for sink in tmp_path.iterdir():
            assert b"canary" not in sink.read_bytes(), sink
            assert forms[1][12:24].encode() not in sink.read_bytes(), sink
    path.unlink()
    path.mkdir()
    with opened(path, secrets=KnownSecrets([Secret(canary)])) as log:
        put(log, one)
        assert spilled(path)
        assert b"canary" not in Path(f"{path}.spill.jsonl").read_bytes()


def test_one_secret_among_many_rows_is_found(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    many = [exchange(id=f"r{n}") for n in range(200)]
    many[150].attempts[0].summary.finish_reason = "sk-canary-0123456789"
    with opened(path, secrets=KnownSecrets([Secret("sk-canary-0123456789")])) as log:
        put(log, *many)
        assert b"canary" not in Path(f"{path}-wal").read_bytes()
    assert b"canary" not in path.read_bytes()
    assert len(rows(path)) == 200
