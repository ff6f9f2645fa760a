"""Secrets are planted wherever there may be one, and everything that the gateway says or keeps is searched for them.

A real process serves, refuses, fails, spills and explains, with every key put into every place that a request has.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest
import tomli_w

from tests.claude_fakes import FakeClaude, until
from tests.fakes import Asked, completion, sse
from tests.running import running

# One of each kind; the odd characters make their URL, JSON and base64 forms differ from the plain one.
CALLER = "canary+caller/7f3a==&x"
NAMED = "canary-named-c81e728d9d4c"
PROVIDER = "sk-canary-provider-1679091c5a88"
INLINE = 'canary"inline\\8f14e45fceea'
HEADER = "canary-header-c9f0f895fb98"
ANTHROPIC = "canary-anthropic-45c48cce2e2d"
UNUSED = "canary-unused-d3d9446802a4"  # in the environment only
SENT = (CALLER, NAMED, PROVIDER, INLINE, HEADER, ANTHROPIC)
SECRETS = (*SENT, UNUSED)

CRASH = """
class Crash:
    async def __call__(self, request, call_next):
        text = request.exchange.request.peek()["messages"][-1]["content"]
        key = request.headers.get("authorization")
        if text == "crash":
            raise RuntimeError(f"cannot work with {key}")
        if text == "chain":
            try:
                raise ValueError(key)
            except ValueError as error:
                raise RuntimeError(str(request.headers.pairs)) from error
        if text == "log":
            import logging
            logging.getLogger("mine").error("asked with %s", key, extra={"key": key})
            print(request, request.headers, request.exchange)
        return await call_next(request)
"""


def forms(secret: str) -> set[bytes]:
    """Every form in which a secret might be found."""
    raw = secret.encode()
    found = {
        raw,
        quote(secret, safe="").encode(),
        quote_plus(secret).encode(),
        orjson.dumps(secret)[1:-1],
        raw.hex().encode(),
        raw[::-1],
    }
    found |= {hashlib.sha256(raw).hexdigest().encode(), repr(secret)[1:-1].encode(), raw[: len(raw) - 4], raw[4:]}
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + raw).rstrip(b"=")
        found.add(text[(0, 2, 3)[offset] : len(text) - (1 if (offset + len(raw)) % 3 else 0)])
    return found


def seen(where: str, data: bytes) -> list[str]:
    """The secrets that are in these bytes, each with its place and form."""
    return [f"{where}: {form.decode()}" for secret in SECRETS for form in forms(secret) if form in data]


async def script(asked: Asked, writer: Any) -> None:
    """A provider that tells all it knows in its errors."""
    told = " ".join([*asked.headers.values(), PROVIDER, base64.b64encode(PROVIDER.encode()).decode()])
    body, status, kind = orjson.dumps(completion()), 200, "application/json"
    text = asked.body.decode()
    if "please 401" in text:
        status, body = (
            401,
            orjson.dumps({"error": {"message": f"Incorrect API key provided: {told}", "code": "invalid_api_key"}}),
        )
    elif "please 400" in text:
        status, body = (
            400,
            orjson.dumps(
                {
                    "error": {
                        "message": f"bad: {told}",
                        "type": "invalid_request_error",
                        "code": told[:60],
                        "param": told,
                    }
                }
            ),
        )
    elif "please 500" in text:
        status, body = 500, f"<html>{told}</html>".encode()
    elif "please garbage" in text:
        body = told.encode()
    elif "please break" in text:
        body, kind = (
            sse(
                completion() | {"object": "chat.completion.chunk", "choices": []},
                {"error": {"message": told}},
                done=False,
            ),
            "text/event-stream",
        )
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nX-Told: {PROVIDER}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


class Process:
    """`python -m gw` in a folder, and every answer that it gave."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        } | environ
        self.answers = b""
        self._output = (folder / "output").open("wb")
        arguments = [sys.executable, "-m", "gw", "--port", "0"]
        self._popen = subprocess.Popen(
            arguments, cwd=folder, env=self.environ, stdout=self._output, stderr=subprocess.STDOUT
        )
        until(lambda: re.search(rb"http://127\.0\.0\.1:(\d+)", self.output) is not None)
        found = re.search(rb"http://127\.0\.0\.1:(\d+)", self.output)
        assert found is not None
        self.port = int(found[1])

    @property
    def output(self) -> bytes:
        return (self.folder / "output").read_bytes()

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> int:
        """Ask, and keep the answer, unless the request itself holds a secret: a client may read its own words."""
        words = [
            path.encode(),
            body or b"",
            *(value.encode() for name, value in headers.items() if name != "Authorization"),
        ]
        is_own = any(seen("", word) for word in words)
        with (
            closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as client,
            suppress(http.client.HTTPException),
        ):
            client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = client.getresponse()
            told = str(answer.getheaders()).encode() + answer.read() + b"\n"
            self.answers += b"" if is_own else told
            return answer.status
        return 0

    def chat(self, text: str, key: str = CALLER, **fields: Any) -> int:
        body = orjson.dumps({"messages": [{"role": "user", "content": text}], **fields})
        return self.ask(
            "POST", "/v1/chat/completions", body, Authorization=f"Bearer {key}", Content_Type="application/json"
        )

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Another command in the same folder: all that it prints."""
        command = [sys.executable, "-m", "gw", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, input=stdin, capture_output=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def stop(self) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(20)
        finally:
            self._popen.kill()
            self._output.close()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, FakeClaude]]:
    folder = tmp_path_factory.mktemp("canaries")
    fake = FakeClaude(folder / "fake")
    (folder / "crash.py").write_text(CRASH)
    with running() as gw:
        url = gw.add_provider(script).url
        config = {
            "pipeline": ["cors", "auth", "rate_limit", "route", "fallback", "log", "crash", "translate"],
            "server": {"log_level": "debug", "log_format": "json"},
            "middleware": {
                "auth": {"keys": {"ci": {"token_env": "CI_KEY"}}},
                "rate_limit": {"enabled": False},
                "route": {"default_backend": "a"},
                "fallback": {"retries": 0, "breaker": {"failures": 1000}},
                "log": {"path": "requests.db"},
                "crash": {"use": "./crash.py:Crash"},
            },
            "backends": {
                "a": {
                    "adapter": "openai",
                    "base_url": f"{url}/v1",
                    "model": "m",
                    "api_key_env": "PROVIDER_KEY",
                    "headers": {"X-Corp-Token": HEADER},
                },
                "inline": {"adapter": "openai", "base_url": f"{url}/v1", "model": "m", "api_key": INLINE},
                "claude": {
                    "adapter": "anthropic",
                    "base_url": f"{url}/v1",
                    "model": "claude-x",
                    "api_key_env": "ANTHROPIC_API_KEY",
                },
                "cli": fake.table(),
            },
        }
        (folder / "gateway.toml").write_text(tomli_w.dumps(config))
        (folder / "gateway.toml").chmod(0o600)
        (folder / ".env").write_text(f"PROVIDER_KEY={PROVIDER}\nANTHROPIC_API_KEY={ANTHROPIC}\n")
        process = Process(
            folder, {"API_AUTH_TOKEN": CALLER, "CI_KEY": NAMED, "OPENAI_API_KEY": UNUSED, "GEMINI_API_KEY": UNUSED}
        )
        try:
            provoke(process)
            yield process, fake
        finally:
            process.stop()


def provoke(process: Process) -> None:
    """Use the gateway well and badly, with every secret in every place."""
    for text in (
        "Hi",
        "please 401",
        "please 400",
        "please 500",
        "please garbage",
        "please break",
        "crash",
        "chain",
        "log",
    ):
        for backend in ("a", "inline", "claude"):
            process.chat(text, backend=backend)
            process.chat(text, backend=backend, stream=True, key=NAMED)
    assert process.chat("Hi", backend="cli") == 200
    for path in (
        "/metrics",
        "/metrics?format=json",
        "/health",
        "/queue/status",
        "/v1/models",
        "/v1/sessions",
        "/nothing",
    ):
        process.ask("GET", path, Authorization=f"Bearer {CALLER}")
    for secret in SENT:
        quoted = quote(secret, safe="")
        encoded = base64.b64encode(secret.encode()).decode()
        for key in (CALLER, secret):
            process.chat(f"my key is {secret}, {encoded} and {quoted}", key=key)
            for name in (
                "model",
                "backend",
                "session_id",
                "temperature",
                "user",
                "tools",
                "metadata",
                "tool_choice",
                "working_directory",
            ):
                process.chat("x", key=key, **{name: secret})
            process.chat("x", key=key, metadata={secret: secret}, **{secret: secret})
        authorized = {"Authorization": f"Bearer {CALLER}"}
        for path in (
            f"/{quoted}",
            f"/v1/models/{quoted}",
            f"/v1/{quoted}/chat/completions",
            f"/v1/models?key={quoted}",
        ):
            process.ask("GET", path, None, **authorized)
            process.ask("POST", path, b"{}", **authorized)
            process.ask("GET", path)
        process.ask("GET", "/v1/models", Authorization=f"Basic {base64.b64encode(f'user:{secret}'.encode()).decode()}")
        process.ask("GET", "/v1/models", Authorization=f"Bearer {secret}x", X_API_Key=f"{secret}y", Cookie=secret)
        process.ask(
            "GET",
            f"/v1/models?api_key={quoted}",
            X_Request_ID=f"id-{secret}",
            Referer=secret,
            User_Agent=secret,
            **authorized,
        )
        process.ask("POST", "/v1/chat/completions", secret.encode(), Content_Type="application/json", **authorized)
        process.ask(
            "POST", "/v1/chat/completions", b"{}", Content_Type=f"text/{re.sub('[^a-z0-9-]', '', secret)}", **authorized
        )
        process.ask(re.sub("[^A-Za-z0-9-]", "", secret), "/v1/models", None, **authorized)
        body = orjson.dumps(
            {"messages": [{"role": "user", "content": f"{secret} {encoded}"}], "backend": "a", "user": secret}
        )
        process.ask("POST", "/route", body, Content_Type="application/json", **authorized)


def test_no_secret_is_in_anything_that_is_said_or_kept(process: tuple[Process, FakeClaude]) -> None:
    gateway, fake = process
    for table in ("a", "inline", "claude"):  # what a request would look like, keys masked
        request = orjson.dumps({"messages": [{"role": "user", "content": "x"}], "backend": table})
        gateway.ask("POST", "/route", request, Authorization=f"Bearer {CALLER}", Content_Type="application/json")
        told = gateway.run("explain", "-", stdin=request)
        assert b"sends POST" in told
        assert seen("gw explain", told) == []
        assert seen("gw explain --json", gateway.run("explain", "--json", "-", stdin=request)) == []
    assert seen("gw check", gateway.run("check")) == []
    # The database is held by somebody else: rows go to the spill.
    with closing(sqlite3.connect(gateway.folder / "requests.db", timeout=20)) as other:
        until(lambda: _locks(other))
        for secret in SENT:
            gateway.chat(f"my key is {secret}", model=secret)
        spill = gateway.folder / "requests.db.spill.jsonl"
        until(lambda: any(path.stat().st_size for path in gateway.folder.glob("requests.db*spill*")))
        spilt = b"".join(path.read_bytes() for path in gateway.folder.glob("*spill*"))
        assert spilt, spill
        assert seen("spill", spilt) == []
        other.rollback()
    assert seen("an answer", gateway.answers) == []
    for entry in fake.entries:
        assert seen("what a child got", orjson.dumps({**entry, "line": ""})) == []
    assert len(fake.starts) >= 1
    gateway.stop()
    assert seen("stdout and stderr", gateway.output) == []
    assert b"Traceback" in gateway.output
    for path in gateway.folder.rglob("requests.db*"):
        assert seen(path.name, path.read_bytes()) == []
    with closing(sqlite3.connect(gateway.folder / "requests.db")) as database:
        assert database.execute("SELECT count(*) FROM requests").fetchone()[0] > 100


def _locks(database: sqlite3.Connection) -> bool:
    try:
        database.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return False
    return True
