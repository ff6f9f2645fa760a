"""`gw explain`: which backend a request would go to and why, from a file, standard input or a curl command."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from gw.assembly import Built, build
from gw.backend import Price
from gw.config import Config
from gw.endpoints.chat import ChatCompletions
from gw.errors import GatewayError
from gw.explain import as_text, explain
from gw.known_secrets import KnownSecrets
from gw.message import Headers, Request, Response
from gw.models import Catalogue, catalogue
from gw.paths import CHAT, find_page

CHAT_PATH = "/v1/chat/completions"
_CREDENTIALS = ("authorization", "x-api-key", "api-key")
_HEADER = frozenset(("-H", "--header"))
_DATA = frozenset(("-d", "--data", "--data-raw", "--data-binary", "--data-ascii", "--json"))
# Of curl's other options, those that take a value.
_OTHER = frozenset(
    ("-X", "--request", "-o", "--output", "-m", "--max-time", "-u", "--user", "-A", "--user-agent", "-w")
)
_WITH_VALUE = _HEADER | _DATA | _OTHER | {"--url"}


class Unreadable(Exception):
    """What `gw explain` was given is no request; the message says what to give."""


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def read(self) -> bytes:
        return self._content


def explain_request(config: Config, words: Sequence[str], *, as_json: bool) -> int:
    """Print the decision. `words` is a file, `-`, or a curl command.

    0: it would be asked; 1: it would be refused; 2: it cannot be read.
    """
    try:
        request = _request(words)
    except Unreadable as problem:
        print(f"gw explain: {problem}", file=sys.stderr)
        return 2
    built = _build(config)
    try:
        request = asyncio.run(_decoded(request, built))
    except GatewayError as error:
        print(f"refused: {error.status} {error.code}: {error.message}")
        return 1
    page = explain(request, dict(built.middleware)["route"].router, built.backends, KnownSecrets(config.secrets))
    print(orjson.dumps(page, option=orjson.OPT_INDENT_2).decode() if as_json else as_text(page))
    return 1 if "error" in page else 0


def _build(config: Config) -> Built:
    """The same objects, with the same prices, as a gateway that serves."""
    models = catalogue().changed(config.models) if config.models else catalogue()
    built = build(config, {Catalogue: models})
    for backend in built.backends:
        backend.prices = partial(_list_price, models)
    return built


def _list_price(models: Catalogue, name: str) -> Price | None:
    model = models.find(name)
    return None if model is None else model.price


async def _decoded(request: Request, built: Built) -> Request:
    """The request with its body read; for the key that it carries, where it carries one."""
    auth = dict(built.middleware).get("auth")
    if auth is not None and any(name in request.headers for name in _CREDENTIALS):
        found = [request]

        async def remember(passed: Request) -> Response:
            found.append(passed)
            return Response(b"")

        await auth(request, remember)
        request = found[-1]
    await ChatCompletions().decode(request)
    return request


def _request(words: Sequence[str]) -> Request:
    path, headers, body = CHAT_PATH, [(b"content-type", b"application/json")], b""
    if words and (words[0] == "curl" or words[0].startswith("curl ")):
        path, headers, body = _curl(_split(words[0]) if len(words) == 1 else list(words))
    elif len(words) == 1 and words[0] != "-":
        body = _content(words[0])
    elif not words or list(words) == ["-"]:
        body = sys.stdin.buffer.read()
    else:
        raise Unreadable(f"it takes one file, - or a curl command in quotes; found {len(words)} words")
    page = find_page(path)
    if page.operation != CHAT:
        raise Unreadable(f"{path} is no chat request: it explains {CHAT_PATH} and /v1/BACKEND/chat/completions")
    request = Request(
        method="POST", path=path, headers=Headers(headers), client="127.0.0.1", id="explain", body=_Body(body)
    )
    request.operation = request.exchange.operation = CHAT
    request.parameters = page.parameters
    return request


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command.replace("\\\n", " "))
    except ValueError as error:
        raise Unreadable(f"the curl command cannot be read: {error}") from error


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Unreadable(f"{name} cannot be read: {error.strerror}; give a file with the JSON body") from error


def _curl(words: list[str]) -> tuple[str, list[tuple[bytes, bytes]], bytes]:
    """The path, the headers and the body of a curl command such as the README's."""
    path, body = CHAT_PATH, b""
    headers: list[tuple[bytes, bytes]] = []
    rest = iter(words[1:])
    for word in rest:
        option, value = _option(word)
        if option in _WITH_VALUE:
            value = value or next(rest, "")
        if option in _HEADER:
            name, _, text = value.partition(":")
            headers.append((_latin(name).lower(), _latin(text)))
        elif option in _DATA:
            is_file = value.startswith("@") and option != "--data-raw"
            body += _content(value[1:]) if is_file else value.encode()
            if option == "--json":
                headers.append((b"content-type", b"application/json"))
        elif option == "--url" or not word.startswith("-"):
            path = _path(value or word)
    return path, headers, body


def _path(url: str) -> str:
    return urlsplit(url if "//" in url else f"//{url}").path or CHAT_PATH


def _option(word: str) -> tuple[str, str]:
    """`--data=x` and `-dx` as curl reads them: the option and its value, which may be the next word."""
    if word.startswith("--"):
        option, _, value = word.partition("=")
        return option, value
    if word[:2] in _WITH_VALUE:
        return word[:2], word[2:]
    return word, ""


def _latin(text: str) -> bytes:
    return text.strip().encode("latin-1", "replace")
