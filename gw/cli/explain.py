"""`gw explain`: which backend a request would go to and why, from a file, standard input or a curl command."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from gw.config import Config, build
from gw.endpoints.chat import ChatCompletions
from gw.errors import ConfigError, GatewayError
from gw.explain import as_text, explain
from gw.known_secrets import KnownSecrets
from gw.message import Headers, Request
from gw.paths import CHAT, find_page

CHAT_PATH = "/v1/chat/completions"


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self) -> bytes:
        return self._content


def explain_request(config: Config, words: Sequence[str], *, as_json: bool) -> int:
    """Print the decision. `words` is a file, `-`, or a curl command; 1 where the request would be refused."""
    try:
        request = _request(words)
        built = build(config)
        router = dict(built.middleware)["route"].router
        decoded = asyncio.run(ChatCompletions().decode(request))
    except GatewayError as error:
        print(f"refused: {error.status} {error.code}: {error.message}")
        return 1
    page = explain(decoded, router, built.backends, KnownSecrets(config.secrets))
    print(orjson.dumps(page, option=orjson.OPT_INDENT_2).decode() if as_json else as_text(page))
    return 1 if "error" in page else 0


def _request(words: Sequence[str]) -> Request:
    path, headers, body = CHAT_PATH, [(b"content-type", b"application/json")], b""
    if words and (words[0] == "curl" or words[0].startswith("curl ")):
        path, headers, body = _curl(shlex.split(words[0]) if len(words) == 1 else list(words))
    elif len(words) == 1 and words[0] != "-":
        try:
            body = Path(words[0]).read_bytes()
        except OSError as error:
            raise ConfigError(
                [f"{words[0]} cannot be read: {error.strerror}; give a file with the JSON body"]
            ) from error
    elif not words or words == ["-"]:
        body = sys.stdin.buffer.read()
    else:
        raise ConfigError([f"explain takes one file, - or a curl command; found {len(words)} words"])
    request = Request(
        method="POST", path=path, headers=Headers(headers), client="127.0.0.1", id="explain", body=_Body(body)
    )
    page = find_page(path)
    request.operation = request.exchange.operation = CHAT
    request.parameters = page.parameters
    return request


def _curl(words: list[str]) -> tuple[str, list[tuple[bytes, bytes]], bytes]:
    """The path, the headers and the body of a curl command such as the README's."""
    path, body = CHAT_PATH, b""
    headers: list[tuple[bytes, bytes]] = []
    rest = iter(words[1:])
    for word in rest:
        if word in ("-H", "--header"):
            name, _, value = next(rest, "").partition(":")
            headers.append(
                (name.strip().lower().encode("latin-1", "replace"), value.strip().encode("latin-1", "replace"))
            )
        elif word in ("-d", "--data", "--data-raw", "--data-binary", "--json"):
            data = next(rest, "")
            body = Path(data[1:]).read_bytes() if data.startswith("@") else data.encode()
            if word == "--json":
                headers.append((b"content-type", b"application/json"))
        elif word in ("-X", "--request", "-o", "--output", "-m", "--max-time", "-u", "--user"):
            next(rest, None)
        elif not word.startswith("-"):
            path = urlsplit(word if "//" in word else f"//{word}").path or CHAT_PATH
    return path, headers, body


def _latin(text: str) -> bytes:
    return text.strip().encode("latin-1", "replace")
