"""Another configuration while requests run: what is in flight ends as it began, and what is the same stays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gw.config import read
from gw.errors import ConfigError
from gw.message import Request, Response
from gw.pipeline import Handler
from gw.reload import changes, held_to
from tests.fakes import Asked, LoopbackProvider, Script, answers, chunks, completion, sse
from tests.running import Running, running, settings

HI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
FILE = "[server]\nport = 0\n[middleware.log]\npath = 'requests.db'\n"
OK = answers(orjson.dumps(completion()))


@pytest.fixture(name="gw")
def _gw() -> Iterator[Running]:
    with running() as gw:
        yield gw


@pytest.fixture(name="http")
def _http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client


def backend(url: str, **options: Any) -> dict[str, Any]:
    return {"adapter": "openai", "base_url": f"{url}/v1", "model": "m", **options}


def tables(folder: Path, **more: Any) -> dict[str, Any]:
    middleware = {"rate_limit": {"enabled": False}} | more.pop("middleware", {})
    return settings(folder, middleware=middleware, **more)


def ask(http: httpx.Client, url: str, name: str = "a", **fields: Any) -> httpx.Response:
    return http.post(f"{url}/v1/{name}/chat/completions", json=HI | fields)


def reload(gw: Running, table: Any) -> list[str]:
    return gw.run(gw.gateway.reload(table))


def figure(http: httpx.Client, url: str, name: str) -> float:
    page = http.get(f"{url}/metrics?format=json").json()
    return float(sum(series["value"] for series in page[name]))


class Held:
    """A provider's script that streams one chunk, and the rest when it is let go."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        first, *rest = chunks("Hello", " world")[1:]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(sse(first, done=False))
        await self.may_end.wait()
        writer.write(sse(*rest))
        writer.close()

    def let_go(self, gw: Running) -> None:
        gw.run(_set(self.may_end))


async def _set(event: asyncio.Event) -> None:
    event.set()


# --- requests in flight -----------------------------------------------------------------------------------------


def test_a_stream_in_flight_ends_on_the_pipeline_that_began_it(gw: Running, http: httpx.Client, tmp_path: Path) -> None:
    held = Held()
    old, new = gw.add_provider(held), gw.add_provider(OK)
    url = gw.start(tables(tmp_path, backends={"a": backend(old.url)}))
    with http.stream("POST", f"{url}/v1/a/chat/completions", json=HI | {"stream": True}) as stream:
        pieces = stream.iter_bytes()
        assert b"Hello" in next(pieces)
        reload(gw, tables(tmp_path, backends={"b": backend(new.url)}))
        assert ask(http, url, "a").status_code == 404
        assert ask(http, url, "b").status_code == 200
        held.let_go(gw)
        rest = b"".join(pieces)
    assert b" world" in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    assert b'"backend":"a"' in rest


class Counting:
    """Middleware that holds something open: it notes its life in a list."""

    events: list[str] = []  # noqa: RUF012 (of the test that runs)

    def __init__(self, *, name: str, fails: bool = False) -> None:
        self._name = name
        self._fails = fails

    async def __aenter__(self) -> None:
        if self._fails:
            raise OSError("no such disk")
        self.events.append(f"+{self._name}")

    async def __aexit__(self, *exc: object) -> None:
        self.events.append(f"-{self._name}")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        return await call_next(request)


def counting(folder: Path, url: str, *names: str, **fields: Any) -> dict[str, Any]:
    own = {name: {"use": "tests.test_reload:Counting", "name": name, **fields} for name in names}
    pipeline = ["auth", "route", "fallback", "log", *names, "translate"]
    return settings(folder, pipeline=pipeline, middleware=own, backends={"a": backend(url)})


def test_what_the_older_one_held_is_closed_in_reverse_when_its_last_request_has_ended(
    gw: Running, http: httpx.Client, tmp_path: Path
) -> None:
    events = Counting.events = []
    held = Held()
    provider = gw.add_provider(held)
    url = gw.start(counting(tmp_path, provider.url, "x", "y", "z"))
    with http.stream("POST", f"{url}/v1/a/chat/completions", json=HI | {"stream": True}) as stream:
        pieces = stream.iter_bytes()
        next(pieces)
        reload(gw, counting(tmp_path, provider.url, "y", "w"))
        assert events == ["+x", "+y", "+z", "+w"], "nothing is closed while somebody uses it; y is the same"
        assert http.get(f"{url}/health").status_code == 200
        held.let_go(gw)
        b"".join(pieces)
    gw.run(gw.gateway.settled())
    assert events == ["+x", "+y", "+z", "+w", "-z", "-x"]
    gw.run(gw.gateway.close())
    assert events[6:] == ["-w", "-y"]


def test_where_a_component_cannot_be_opened_nothing_has_changed(
    gw: Running, http: httpx.Client, tmp_path: Path
) -> None:
    events = Counting.events = []
    provider = gw.add_provider(OK)
    url = gw.start(counting(tmp_path, provider.url, "x"))
    broken = counting(tmp_path, provider.url, "x", "y", "z")
    broken["middleware"]["z"]["fails"] = True
    with pytest.raises(OSError, match="no such disk"):
        reload(gw, broken)
    assert events == ["+x", "+y", "-y"]
    assert ask(http, url).status_code == 200


# --- what stays -------------------------------------------------------------------------------------------------


def test_limits_metrics_and_uptime_go_on(gw: Running, http: httpx.Client, tmp_path: Path) -> None:
    table = tables(tmp_path, middleware={"rate_limit": {"max": 3}}, backends={"a": backend(gw.add_provider(OK).url)})
    url = gw.start(table)
    assert [ask(http, url).status_code for _ in range(2)] == [200, 200]
    other = {**table, "backends": {**table["backends"], "b": {"adapter": "echo"}}}
    reload(gw, other)
    assert [ask(http, url).status_code for _ in range(2)] == [200, 429]
    assert figure(http, url, "gw_attempts_total") == 3
    assert figure(http, url, "gw_log_rows_total") >= 0


def test_a_backend_that_is_the_same_keeps_its_connections_and_its_breaker(
    gw: Running, http: httpx.Client, tmp_path: Path
) -> None:
    ports: list[int] = []

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername")[1])
        await OK(asked, writer)

    url_of_a = gw.add_provider(script).url
    backends = {"a": backend(url_of_a), "b": backend(url_of_a)}
    url = gw.start(tables(tmp_path, backends=backends))
    assert ask(http, url).status_code == 200
    gw.gateway.backends["b"].cool(60.0)
    reload(gw, tables(tmp_path, backends=backends | {"c": {"adapter": "echo"}}, models={"m": {"input": 1.0}}))
    assert ask(http, url).status_code == 200
    assert len(set(ports)) == 1
    assert http.get(f"{url}/health").json()["backends"]["b"]["cooling_seconds"] > 50
    reload(gw, tables(tmp_path, backends=backends | {"b": backend(url_of_a, weight=2)}))
    assert "cooling_seconds" not in http.get(f"{url}/health").json()["backends"]["b"]


def test_sessions_go_on(gw: Running, http: httpx.Client, tmp_path: Path) -> None:
    provider = gw.add_provider(OK)
    url = gw.start(tables(tmp_path, backends={"a": backend(provider.url)}))
    session = ask(http, url).json()["session_id"]
    reload(gw, tables(tmp_path, backends={"a": backend(provider.url, weight=2)}))
    assert ask(http, url, session_id=session).json()["session_id"] == session
    assert len(provider.asked[-1].json["messages"]) == 3


def test_a_log_that_moves_loses_no_row(gw: Running, http: httpx.Client, tmp_path: Path) -> None:
    import sqlite3

    backends = {"a": backend(gw.add_provider(OK).url)}
    url = gw.start(tables(tmp_path, backends=backends))
    for _ in range(5):
        ask(http, url)
    reload(gw, tables(tmp_path, middleware={"log": {"path": str(tmp_path / "other.db")}}, backends=backends))
    for _ in range(7):
        ask(http, url)
    assert figure(http, url, "gw_log_lost_rows_total") == 0
    gw.run(gw.gateway.close())
    for name, rows in (("requests.db", 5), ("other.db", 7)):
        database = sqlite3.connect(tmp_path / name)
        assert database.execute("SELECT count(*) FROM requests WHERE state = 'done'").fetchone() == (rows,)
        database.close()


def test_the_same_file_again_remakes_nothing_that_holds_something_open(
    gw: Running, http: httpx.Client, tmp_path: Path
) -> None:
    events = Counting.events = []
    url = gw.start(counting(tmp_path, gw.add_provider(OK).url, "x"))
    provider = gw.gateway.backends["a"]
    for _ in range(3):
        reload(gw, counting(tmp_path, gw.providers[0].url, "x"))
    assert events == ["+x"]
    assert gw.gateway.backends["a"] is provider
    assert ask(http, url).status_code == 200


# --- what changes -----------------------------------------------------------------------------------------------


def test_a_key_that_was_taken_out_is_refused_at_once(gw: Running, http: httpx.Client, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("GATEWAY_KEY_CI=first-key-0123456789\nGATEWAY_KEY_WEB=second-key-0123456789\n")
    (tmp_path / "gateway.toml").write_text(
        f"{FILE}[middleware.auth.keys.ci]\ntoken_env = 'GATEWAY_KEY_CI'\n"
        "[middleware.auth.keys.web]\ntoken_env = 'GATEWAY_KEY_WEB'\n"
    )
    url = gw.start(tmp_path / "gateway.toml")

    def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        return http.get(f"{url}/v1/models", headers=headers).status_code

    assert [status("first-key-0123456789"), status("second-key-0123456789")] == [200, 200]
    env.write_text("GATEWAY_KEY_CI=third-key-0123456789\nGATEWAY_KEY_WEB=second-key-0123456789\n")
    gw.run(gw.gateway.reload())
    assert [status(f"{n}-key-0123456789") for n in ("first", "second", "third")] == [401, 200, 200]


def test_own_code_that_has_changed_is_taken_up_and_told(gw: Running, http: httpx.Client, tmp_path: Path) -> None:
    code = "class Mine:\n    async def chat_completion(self, request, config):\n        return 'ONE'\n"
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "gateway.toml").write_text(f"{FILE}[backends.a]\nadapter = './mine.py:Mine'\n")
    url = gw.start(tmp_path / "gateway.toml")
    said, told = [], []
    for word in ("ONE", "TWO", "SIX"):  # of one length, within one second: byte code on disk would look fresh
        (tmp_path / "mine.py").write_text(code.replace("ONE", word))
        former = gw.gateway.config
        gw.run(gw.gateway.reload())
        told.append(changes(former, gw.gateway.config))
        said.append(ask(http, url).json()["choices"][0]["message"]["content"])
    assert said == ["ONE", "TWO", "SIX"]
    assert told == [[], ["backend a changed"], ["backend a changed"]]


# --- what is refused --------------------------------------------------------------------------------------------


def test_a_bad_file_changes_nothing_and_health_says_why(gw: Running, http: httpx.Client, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    good = "[server]\nport = 0\n[middleware.log]\npath = 'requests.db'\n[middleware.rate_limit]\nmax = 50\n"
    file.write_text(good)
    url = gw.start(file)
    file.write_text("[server]\nprot = 1\n[middleware.rate_limit]\nmax = 'many'\n[backends.x]\nadapter = 'opnai'\n")
    with pytest.raises(ConfigError) as raised:
        gw.run(gw.gateway.reload())
    paths = [problem.partition(":")[0] for problem in raised.value.problems]
    assert sorted(paths) == ["backends.x.adapter", "middleware.rate_limit.max", "server.prot"]
    page = http.get(f"{url}/health").json()
    assert page["status"] == "degraded"
    assert "the last reload was refused" in page["problems"][0]
    assert "server.prot" in page["problems"][0]
    assert ask(http, url, "echo").headers["X-RateLimit-Limit"] == "50"
    assert figure(http, url, "gw_reload_refused") == 1
    file.write_text(good)
    gw.run(gw.gateway.reload())
    assert http.get(f"{url}/health").json()["status"] == "ok"


def test_what_needs_a_restart_is_told_by_name_and_the_rest_is_done(
    gw: Running, http: httpx.Client, tmp_path: Path
) -> None:
    url = gw.start(settings(tmp_path))
    told = reload(gw, settings(tmp_path, server={"port": 1, "workers": 3}, middleware={"rate_limit": {"max": 7}}))
    assert [text.partition(":")[0] for text in told] == ["server.port", "server.workers"]
    assert ask(http, url, "echo").headers["X-RateLimit-Limit"] == "7"


def test_a_gateway_that_others_reach_keeps_its_last_key_whatever_the_new_file_says_of_its_address() -> None:
    reachable = read({"server": {"host": "0.0.0.0"}}, environ={"API_AUTH_TOKEN": "a-key-0123456789"})
    inward = read({"server": {"host": "127.0.0.1"}}, environ={})
    with pytest.raises(ConfigError, match=r"server\.host.*no key protects it"):
        held_to(reachable, inward)


def test_a_table_of_a_program_is_not_read_again(gw: Running, tmp_path: Path) -> None:
    gw.start(settings(tmp_path))
    with pytest.raises(ConfigError, match="give `reload` the new one"):
        gw.run(gw.gateway.reload())


def test_a_reload_under_way_and_the_next_one_do_not_mix(gw: Running, http: httpx.Client, tmp_path: Path) -> None:
    url = gw.start(settings(tmp_path))

    async def several() -> None:
        limits = [settings(tmp_path, middleware={"rate_limit": {"max": number}}) for number in range(1, 9)]
        await asyncio.gather(*(gw.gateway.reload(limit) for limit in limits))

    gw.run(several())
    assert ask(http, url, "echo").headers["X-RateLimit-Limit"] == "8"


def test_close_waits_for_what_an_older_configuration_still_holds(
    gw: Running, http: httpx.Client, tmp_path: Path
) -> None:
    events = Counting.events = []
    held = Held()
    provider = gw.add_provider(held)
    url = gw.start(counting(tmp_path, provider.url, "x"))
    with http.stream("POST", f"{url}/v1/a/chat/completions", json=HI | {"stream": True}) as stream:
        next(stream.iter_bytes())
        reload(gw, counting(tmp_path, provider.url, "y"))
        gw.run(gw.gateway.close(grace=0))
    assert events == ["+x", "+y", "-x", "-y"]


__all__ = ["LoopbackProvider", "Script"]
