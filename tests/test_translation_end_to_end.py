"""Translation through a running gateway: losses are told everywhere, the same dialect keeps its bytes, limits stay."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.fakes import Script, answers, chunk, chunks, completion, sse, streams
from tests.running import Running, running, settings

CLAUDE = orjson.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "From Claude"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
)
LOSSY = {
    "model": "gpt-4",
    "messages": [{"role": "user", "content": "Hi", "name": "Ann"}],
    "seed": 1,
    "response_format": {"type": "json_object"},
}


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


def start(gw: Running, folder: Path, claude: dict[str, Any], *others: Script, **tables: Any) -> str:
    """A gateway over a Claude on loopback, with these options, and OpenAI-compatible providers a, b, ... behind it."""
    url = gw.add_provider(answers(CLAUDE)).url
    backends: dict[str, Any] = {
        "claude": {"adapter": "anthropic", "base_url": url + "/v1", "api_key": "k", "model": "claude-sonnet-4-5"}
        | claude
    }
    for name, script in zip("abc", others, strict=False):
        backends[name] = {"adapter": "openai", "base_url": gw.add_provider(script).url + "/v1", "api_key": "k"}
    chain = {"fallback": {"chain": list(backends)}, "route": {"prefer_cheapest": False, "default_backend": "claude"}}
    middleware = {"log": {"path": str(folder / "requests.db"), "durability": "durable"}} | chain
    return gw.start(settings(folder, backends=backends, middleware=middleware, **tables))


def post(url: str, body: Any, path: str = "/v1/chat/completions") -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return httpx.post(url + path, content=content, headers={"content-type": "application/json"}, timeout=30)


def rows(folder: Path) -> list[Any]:
    with sqlite3.connect(folder / "requests.db") as database:
        return [orjson.loads(text) if text else None for (text,) in database.execute("SELECT losses FROM requests")]


# --- losses -------------------------------------------------------------------------------------------------------


def test_a_loss_is_told_in_a_header_a_row_and_a_metric(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, {})
    answer = post(url, LOSSY)
    assert answer.json()["choices"][0]["message"]["content"] == "From Claude"
    assert set(answer.headers["x-gateway-dropped"].split(", ")) == {"/seed", "/messages/0/name"}
    assert answer.headers["x-gateway-changed"] == "/response_format"
    told = {(loss["pointer"], loss["kind"]) for loss in rows(tmp_path)[0]}
    assert told == {("/seed", "dropped"), ("/messages/0/name", "dropped"), ("/response_format", "emulated")}
    metrics = httpx.get(url + "/metrics").text
    assert re.search(r'gw_losses_total\{backend="claude",kind="dropped"\} 2(\.0)?\n', metrics)
    assert re.search(r'gw_losses_total\{backend="claude",kind="emulated"\} 1(\.0)?\n', metrics)


def test_a_stream_tells_its_losses_too(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, {}, streams(sse(*chunks("Hi"))))
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "functions": [{"name": "f"}], "stream": True}
    answer = post(url, body, "/v1/a/chat/completions")
    assert answer.headers["x-gateway-changed"] == "/functions"


def test_nothing_lost_tells_nothing(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, {})
    answer = post(url, {"messages": [{"role": "user", "content": "Hi"}]})
    assert "x-gateway-dropped" not in answer.headers
    assert "x-gateway-changed" not in answer.headers
    assert rows(tmp_path) == [None]


def test_reject_refuses_before_anything_is_sent(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, {"on_loss": "reject"}, answers(orjson.dumps(completion("From a"))))
    answer = post(url, LOSSY)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    assert "/seed" in answer.json()["error"]["message"]
    assert [len(provider.asked) for provider in gw.providers] == [0, 0]


def test_reroute_asks_the_next_that_can_carry_it(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, {"on_loss": "reroute"}, answers(orjson.dumps(completion("From a"))))
    answer = post(url, LOSSY)
    assert answer.json()["choices"][0]["message"]["content"] == "From a"
    assert "x-gateway-dropped" not in answer.headers
    assert [len(provider.asked) for provider in gw.providers] == [0, 1]
    whole = post(
        url, {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
    )  # what Claude can carry still goes to it
    assert whole.json()["choices"][0]["message"]["content"] == "From Claude"


def test_a_rerouted_request_is_told_in_its_row_and_its_metric(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, {"on_loss": "reroute"}, answers(orjson.dumps(completion("From a"))))
    assert post(url, LOSSY).json()["degraded"] is True
    with sqlite3.connect(tmp_path / "requests.db") as database:
        tries = database.execute("SELECT backend, status, error FROM attempts ORDER BY number").fetchall()
        (fallback_from,) = database.execute("SELECT fallback_from FROM requests").fetchone()
    database.close()
    assert [(backend, status) for backend, status, _ in tries] == [("claude", None), ("a", 200)]
    assert "/seed" in tries[0][2]
    assert fallback_from == "claude"
    metrics = httpx.get(url + "/metrics").text
    assert re.search(r'gw_losses_total\{backend="claude",kind="dropped"\} 2(\.0)?\n', metrics)


def test_a_stream_is_rerouted_too(gw: Running, tmp_path: Path) -> None:
    url = start(gw, tmp_path, {"on_loss": "reroute"}, streams(sse(*chunks("From a"))))
    answer = post(url, LOSSY | {"stream": True})
    assert answer.status_code == 200
    assert '"From a"' in answer.text
    assert [len(provider.asked) for provider in gw.providers] == [0, 1]


def test_where_nobody_can_carry_it_the_field_is_named(gw: Running, tmp_path: Path) -> None:
    answer = post(start(gw, tmp_path, {"on_loss": "reroute"}), LOSSY)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "unsupported_parameter"
    assert "claude" in error["message"]
    assert "/seed" in error["message"]
    assert not gw.providers[0].asked


# --- what a provider cannot do ------------------------------------------------------------------------------------

HI = {"role": "user", "content": "Hi"}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


def called(arguments: str) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


RESULT = {"role": "tool", "tool_call_id": "c1", "content": "x"}
IMPOSSIBLE: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    # what is asked; the field; backend -> how it is called
    "several choices": ({"messages": [HI], "n": 2}, "n", {"anthropic": "anthropic", "ollama": "Ollama"}),
    "audio": (
        {"messages": [{"role": "user", "content": [AUDIO]}]},
        "messages[0].content[0]",
        {"anthropic": "anthropic", "ollama": "Ollama"},
    ),
    "arguments that are no JSON": (
        {"messages": [HI, called("{oops"), RESULT]},
        "messages[1].tool_calls[0].function.arguments",
        {"anthropic": "anthropic", "gemini": "Gemini", "ollama": "Ollama"},
    ),
    "a missing result": (
        {"messages": [HI, called("{}"), HI]},
        "messages[1].tool_calls[0]",
        {"anthropic": "anthropic", "gemini": "Gemini"},
    ),
    "a stray result": (
        {"messages": [HI, RESULT]},
        "messages[1].tool_call_id",
        {"anthropic": "anthropic", "gemini": "Gemini"},
    ),
    "a forced call without tools": ({"messages": [HI], "tool_choice": "required"}, "tool_choice", {"ollama": "Ollama"}),
    "six stop sequences": ({"messages": [HI], "stop": list("abcdef")}, "stop", {"gemini": "Gemini"}),
}


@pytest.mark.parametrize("impossible", IMPOSSIBLE)
def test_what_a_provider_cannot_do_is_a_400_before_anything_is_sent(
    gw: Running, tmp_path: Path, impossible: str
) -> None:
    body, field, called_as = IMPOSSIBLE[impossible]
    provider = gw.add_provider(answers(CLAUDE))
    models = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash", "ollama": "llama3"}
    tables = {
        name: {"adapter": name, "base_url": provider.url, "api_key": "k", "model": models[name]} for name in called_as
    }
    url = gw.start(settings(tmp_path, backends=tables))
    for is_stream in (False, True):
        for backend, name in called_as.items():
            answer = post(url, body | {"stream": is_stream}, f"/v1/{backend}/chat/completions")
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert error["type"] == "invalid_request_error"
            assert error["param"].startswith(field)
            assert name in error["message"]
    assert not provider.asked


# --- same dialect, same bytes -------------------------------------------------------------------------------------

STRANGE = (
    b'{ "messages" : [ {"role":"user", "content":"caf\xc3\xa9 \\u00e9 \\/ \\ud83d\\ude00", "x":1.0} ],\n'
    b'\t"future_field" : {"a":[1e3, 1.50, 12345678901234567890]}, "model" : "asked-for" , "temperature":0.70 }\r\n'
)


def test_an_openai_provider_gets_the_clients_bytes_with_another_model_name(gw: Running, tmp_path: Path) -> None:
    url = gw.add_provider(answers(orjson.dumps(completion()))).url
    table = {"adapter": "openai", "base_url": url + "/v1", "api_key": "k", "models": {"asked-for": "theirs"}}
    gateway = gw.start(settings(tmp_path, backends={"a": table}))
    assert post(gateway, STRANGE).status_code == 200
    assert gw.providers[0].asked[0].body == STRANGE.replace(b'"asked-for"', b'"theirs"')


def test_a_client_gets_the_providers_bytes_but_for_the_model_and_the_extras(gw: Running, tmp_path: Path) -> None:
    theirs = (
        b'{ "id":"chatcmpl-9", "object" : "chat.completion","created":17, "model":"their-own", "future":[1.50, {}],\n'
        b' "choices":[ {"index":0,"message":{"role":"assistant","content":"caf\\u00e9 \\/","refusal":null,"new":1e3},'
        b'"finish_reason":"stop","x":"y"} ], "usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2} }'
    )
    url = start(gw, tmp_path, {}, answers(theirs))
    answer = post(url, {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}, "/v1/a/chat/completions")
    kept = theirs.replace(b'"their-own"', b'"gpt-4"').rstrip(b" }")
    assert answer.content.startswith(kept), answer.content
    extras = orjson.loads(b'{"x":0' + answer.content[len(kept) :].lstrip(b" }"))
    assert extras.keys() - {"session_id"} == {"x", "degraded", "gateway"}


def test_a_client_gets_the_providers_events_but_for_the_model_and_the_extras(gw: Running, tmp_path: Path) -> None:
    events = [chunk({"role": "assistant", "content": ""}, model="theirs")]
    events += [chunk({"content": text}, model="theirs") | {"fp": 1.5} for text in ("caf\u00e9", "a\n", '"q"', "\\")]
    pieces = [b"data: " + orjson.dumps(event) + b"\n\n" for event in events]
    pieces[2] = pieces[2].replace(b"1.5", b"1.50")  # a spelling of their own
    end = chunk({}, "stop", model="theirs")
    url = start(gw, tmp_path, {}, streams(*pieces, sse(end)))
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    answer = post(url, body, "/v1/a/chat/completions")
    assert answer.content.startswith(b"".join(pieces).replace(b'"theirs"', b'"gpt-4"'))
    rest = answer.content[sum(len(piece) - 1 for piece in pieces) :].split(b"\n\n")
    assert rest[-2:] == [b"data: [DONE]", b""]


# --- limits of the provider ---------------------------------------------------------------------------------------


def test_a_providers_limits_never_pass_as_the_gateways_own(gw: Running, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "x_ratelimit_limit_requests": "7",
        "x_ratelimit_remaining_requests": "6",
        "x_ratelimit_limit": "8",
    }
    url = start(gw, tmp_path, {}, answers(orjson.dumps(completion()), retry_after="9", **fields))
    answer = post(url, {"messages": [{"role": "user", "content": "Hi"}]}, "/v1/a/chat/completions")
    limits = {name: value for name, value in answer.headers.items() if "ratelimit" in name}
    assert limits.keys() == {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}
    assert limits["x-ratelimit-limit"] == "60"
    assert "retry-after" not in answer.headers
