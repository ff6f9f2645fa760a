"""Access lines are one line each, whatever the client sends."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any, Literal

import httpx
import orjson
import pytest

from gw.access_line import AccessLines
from gw.errors import ClientGone, InvalidRequest, NotFound, UpstreamConnectionError
from gw.known_secrets import KnownSecrets
from gw.message import Exchange, Usage
from gw.secret import Secret
from tests.exchanges import attempt, exchange, refused
from tests.fakes import answers
from tests.running import running, settings


def written(*exchanges: Exchange, format: Literal["text", "json"] = "text", **options: Any) -> str:
    output = io.BytesIO()
    lines = AccessLines(format=format, output=output, **options)
    lines.start()
    for one in exchanges:
        lines.write(one)
    assert lines.close(60.0)
    assert lines.dropped == 0
    return output.getvalue().decode("utf-8")


def test_a_line_tells_what_happened() -> None:
    assert written(exchange(first_content=100.0123)) == (
        "2023-11-14T22:13:20.000Z POST /v1/chat/completions 200 fast fast-model 500.0ms first=12.3ms in=10 out=20 "
        "cost=$0.500000 key=anonymous client=127.0.0.1 id=req-1\n"
    )


def test_fallback_estimates_and_errors_are_told() -> None:
    failed = attempt("flat", error=UpstreamConnectionError("refused"))
    answered = attempt(usage=Usage(7, 9, source="estimated"))
    line = written(
        exchange(attempts=[failed, answered], degraded=True, ended=112.0, error=UpstreamConnectionError("it broke"))
    )
    assert " 12.00s in=~7 out=~9 attempts=2 degraded key=" in line
    assert line.endswith(' error=upstream_error "it broke"\n')


def test_a_refused_request_has_a_line() -> None:
    line = written(refused(NotFound("no such model", code="model_not_found"), model=None))
    assert " 404 - - 500.0ms key=" in line


def test_json_has_one_object_a_line() -> None:
    first, second = written(exchange(), refused(NotFound("no")), format="json").splitlines()
    found = json.loads(first)
    assert (found["status"], found["backend"], found["tokens_output"], found["cost_usd"]) == (200, "fast", 20, 0.5)
    assert (json.loads(second)["backend"], json.loads(second)["code"]) == (None, "not_found")


EVIL = [
    "a\nfake line",
    "a\r\nfake",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "\u2028line\u2029",
    "\u202edesrever",
    "nul\0",
    "del\x7f",
    'quo"te back\\slash',
    "\ud800",
    "x" * 10_000,
]


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("format", ["text", "json"])
def test_nothing_of_a_request_breaks_its_line(evil: str, format: Literal["text", "json"]) -> None:
    one = exchange(
        id=evil, path=f"/{evil}", method=evil, model=evil, client=evil, attempts=[], error=NotFound(evil, code=evil)
    )
    output = written(one, format=format)
    assert output.count("\n") == 1
    assert output.endswith("\n")
    assert output[:-1].isprintable()
    assert len(output) < 6_000
    if format == "json":
        assert json.loads(output)["model"] == evil[:500]


def test_a_value_cannot_pose_as_another_field() -> None:
    assert 'id="1 status=200 key=root"' in written(exchange(id="1 status=200 key=root"))


def test_a_known_secret_is_not_shown() -> None:
    secrets = KnownSecrets([Secret('sk-canary-"123')])
    formats: tuple[Literal["text", "json"], ...] = ("text", "json")
    for format in formats:
        output = written(exchange(error=NotFound('the key sk-canary-"123 is wrong')), format=format, secrets=secrets)
        assert "canary" not in output


SAID = "Invalid prompt: the patient has cancer"


@pytest.mark.parametrize("format", ["text", "json"])
def test_where_nothing_is_to_be_kept_an_error_is_told_by_its_code(format: Literal["text", "json"]) -> None:
    refused_by_us = refused(InvalidRequest(SAID, code="invalid_value"))
    refused_by_them = exchange(error=InvalidRequest(SAID))
    left = exchange(error=ClientGone("the client hung up"))
    lines = written(refused_by_us, refused_by_them, left, format=format, may_quote=False)
    assert "patient" not in lines
    first, second, last = lines.splitlines()
    assert "invalid_value" in first
    assert "invalid_value" in second
    assert "the client hung up" in last
    assert "patient" in written(refused_by_us, format=format)


@pytest.mark.parametrize("table", [{"content": "none"}, {"content": "redacted"}, {"content": "none", "enabled": False}])
@pytest.mark.parametrize("format", ["text", "json"])
def test_what_the_log_does_not_keep_is_not_on_stdout_either(
    table: dict[str, Any], format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = orjson.dumps({"error": {"message": SAID, "type": "invalid_request_error"}})
    with running() as gw:
        provider = gw.add_provider(answers(answer, status=400))
        backend = {"adapter": "openai", "base_url": f"{provider.url}/v1", "api_key": "sk-test-key", "model": "m"}
        tables = settings(tmp_path, backends={"a": backend}, server={"log_format": format})
        tables["middleware"] = tables["middleware"] | {"log": tables["middleware"]["log"] | table}
        url = gw.start(tables)
        for body in (
            {"messages": "the patient has cancer"},
            {"messages": [{"role": "the patient has cancer"}]},
            {"messages": [{"role": "user", "content": "the patient has cancer"}]},
        ):
            assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 400
    told = capfd.readouterr().out
    assert told.count("/v1/chat/completions") == 3
    assert "patient" not in told


def test_lines_are_in_order_and_whole_pieces_fit_a_pipe() -> None:
    pieces: list[bytes] = []

    class Output(io.BytesIO):
        def write(self, data: Any, /) -> int:
            pieces.append(bytes(data))
            return len(data)

    lines = AccessLines(output=Output())
    for number in range(500):
        lines.write(exchange(id=f"r{number}"))
    lines.start()
    assert lines.close(60.0)
    assert [line.rpartition(b"id=")[2] for line in b"".join(pieces).splitlines()] == [b"r%d" % n for n in range(500)]
    assert all(len(piece) <= 4096 and piece.endswith(b"\n") for piece in pieces)
    assert len(pieces) < 100


def test_lines_come_out_while_the_gateway_runs() -> None:
    output = io.BytesIO()
    lines = AccessLines(output=output)
    lines.start()
    lines.write(exchange())
    assert lines.flush(60.0)
    assert output.getvalue().count(b"\n") == 1
    assert lines.close(60.0)


def test_a_reader_who_is_gone_costs_lines_only() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as output:
        lines = AccessLines(output=output)
        lines.start()
        lines.write(exchange())
        assert lines.flush(60.0)
        lines.write(exchange())
        assert lines.close(60.0)
    assert lines.dropped == 2


def test_a_reader_who_does_not_read_stalls_nobody() -> None:
    gate = threading.Event()

    class Stuck(io.BytesIO):
        def write(self, data: Any, /) -> int:
            gate.wait(10.0)
            return len(data)

    lines = AccessLines(output=Stuck(), queue=10)
    lines.start()
    for _ in range(1000):
        lines.write(exchange())
    assert not lines.close(0.05)
    gate.set()
    assert lines.close(60.0)
    assert lines.dropped >= 1000 - 2 * 256 - 10
