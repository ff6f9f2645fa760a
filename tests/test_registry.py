"""Names to classes: built-in, registered, entry point, dotted path, file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gw.backend import Backend
from gw.custom_backend import BackendConfig, CustomBackend
from gw.document import Completion, Document
from gw.errors import ConfigError, GatewayError, RateLimited, UpstreamError, UpstreamProtocolError
from gw.message import Candidate, Request, Response
from gw.options import check
from gw.registry import ADAPTER, MIDDLEWARE, DefaultBackendRegistry, find, register_custom_backend
from gw.stream import Stream, begun


def problem_of(name: str, folder: Path | None = None, kind: Any = MIDDLEWARE) -> str:
    with pytest.raises(ConfigError) as caught:
        find(kind, name, folder)
    (problem,) = caught.value.problems
    return problem


def test_a_short_name_is_the_built_in() -> None:
    assert find(MIDDLEWARE, "route").__name__ == "Route"


def test_an_unknown_name_is_told_with_the_near_one() -> None:
    assert problem_of("rate_limt").startswith(
        'unknown middleware "rate_limt"; did you mean "rate_limit"? (known: auth, '
    )
    assert 'unknown adapter "opnai"; did you mean "openai"?' in problem_of("opnai", kind=ADAPTER)
    assert '"claude-cli"' in problem_of("claude-cl", kind=ADAPTER)


def test_a_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "audit.py").write_text("class Audit:\n    async def __call__(self, request, call_next): ...\n")
    assert find(MIDDLEWARE, "./audit.py:Audit", tmp_path).__name__ == "Audit"


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"class Same:\n    where = {folder!r}\n")
    a, b = (find(MIDDLEWARE, f"./{folder}/same.py:Same", tmp_path) for folder in ("a", "b"))
    assert (a.where, b.where) == ("a", "b")
    assert "same" not in sys.modules


def test_a_dataclass_in_a_file_can_be_an_option(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Limit:\n    max: int\n\n"
        "class Mine:\n    def __init__(self, *, limit: Limit) -> None: ...\n"
    )
    mine = find(MIDDLEWARE, "./mine.py:Mine", tmp_path)
    assert check(mine, {"limit": {"max": "x"}}, "middleware.mine")[1] == [
        'middleware.mine.limit.max: expected an integer, found "x"'
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\ndef broken(:\n", "SyntaxError: invalid syntax (broken.py, line 2)"),
        ("import json\n\njson.loads('{')\n", "(broken.py, line 3)"),
        ("x = 1\n", "the module has no Audit"),
        ("class Audits: ...\n", 'did you mean "Audits"?'),
    ],
)
def test_what_is_wrong_with_a_file_names_the_file_and_the_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    assert told in problem_of("./broken.py:Audit", tmp_path)


def test_a_missing_file_and_a_missing_module_are_told(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere.py") in problem_of("./nowhere.py:Audit", tmp_path)
    assert "there is no module nowhere_at_all" in problem_of("nowhere_at_all.audit:Audit")


def test_a_module_that_fails_to_import_something_else_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "No module named 'not_installed_here'" in problem_of("needs_more:Audit")


def test_a_class_of_an_installed_package_is_found() -> None:
    assert find(MIDDLEWARE, "collections:OrderedDict").__name__ == "OrderedDict"


def plug_in(folder: Path, name: str) -> None:
    """An installed distribution with one module and one entry point of that name."""
    (folder / "plug_in_module.py").write_text("class Plug:\n    async def __call__(self, request, call_next): ...\n")
    info = folder / "plug_in-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[gw.middleware]\n{name} = plug_in_module:Plug\n")


def test_an_entry_point_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, "plugged")
    monkeypatch.syspath_prepend(tmp_path)
    assert find(MIDDLEWARE, "plugged").__name__ == "Plug"


def test_a_plug_in_cannot_take_a_built_ins_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, "route")
    monkeypatch.syspath_prepend(tmp_path)
    assert find(MIDDLEWARE, "route").__name__ == "Route"


# --- document B's backends ---------------------------------------------------------------------------------------


class Parrot:
    type = "parrot"

    async def chat_completion(self, request: dict[str, Any], config: BackendConfig) -> Any:
        return {"choices": [{"message": {"content": f"{config.id} says {request['messages'][-1]['content']}"}}]}

    async def chat_completion_stream(self, request: dict[str, Any], config: BackendConfig) -> AsyncIterator[Any]:
        yield "Hel"
        yield "lo"

    def supports_streaming(self) -> bool:
        return True

    def supports_tools(self) -> bool:
        return False

    def supports_images(self) -> bool:
        return False


def ask(backend: Any, *, stream: bool = False) -> Response:
    provider = CustomBackend(backend, BackendConfig("mine", "parrot"), now=lambda: 1000.0)
    request = Request(method="POST", path="/v1/chat/completions")
    request.document = Document(value={"model": "any", "messages": [{"role": "user", "content": "hi"}]})
    request.exchange.stream = stream
    request.candidates = [Candidate(Backend("mine", "parrot"), "parrot-1", "any")]
    return asyncio.run(provider.answer(request))


def chunks_of(response: Response) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        assert isinstance(response.content, Stream)
        stream = await begun(response.content)
        return [orjson.loads(chunk.raw) async for chunk in stream]

    return asyncio.run(collect())


def test_a_registered_class_is_an_adapters_name() -> None:
    DefaultBackendRegistry().register_custom_backend("my-custom-backend", Parrot)
    assert find(ADAPTER, "my-custom-backend") is Parrot


@pytest.mark.parametrize(
    ("name", "cls", "told"),
    [
        ("openai", Parrot, "built-in"),
        ("claude-cli", Parrot, "built-in"),
        ("a b", Parrot, "letters, digits"),
        ("other", dict, "no chat_completion"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: str, cls: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        register_custom_backend(name, cls)


def test_a_custom_answer_is_completed_to_openais_object() -> None:
    response = ask(Parrot())
    assert isinstance(response.content, Completion)
    answer = orjson.loads(response.content.raw)
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer == {
        "object": "chat.completion",
        "created": 1000,
        "model": "parrot-1",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "mine says hi"},
            }
        ],
    }
    assert response.summary.finish_reason == "stop"
    assert response.summary.output_characters == len("mine says hi")


def test_what_a_custom_answer_says_itself_stays() -> None:
    whole = {
        "id": "own-1",
        "created": 5,
        "model": "own",
        "choices": [{"message": {"tool_calls": [{"id": "c"}]}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        "extra": True,
    }

    class Own(Parrot):
        async def chat_completion(self, request: dict[str, Any], config: BackendConfig) -> Any:
            return whole

    response = ask(Own())
    assert isinstance(response.content, Completion)
    answer = response.content.data
    assert (answer["id"], answer["created"], answer["model"], answer["extra"]) == ("own-1", 5, "own", True)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert response.summary.usage is not None
    assert (response.summary.usage.prompt, response.summary.usage.completion) == (3, 4)


def test_a_custom_stream_of_text_has_one_id_a_role_first_and_a_finish_last() -> None:
    chunks = chunks_of(ask(Parrot(), stream=True))
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_a_custom_stream_of_chunks_keeps_its_finish_and_its_usage() -> None:
    class Chunked(Parrot):
        async def chat_completion_stream(self, request: dict[str, Any], config: BackendConfig) -> AsyncIterator[Any]:
            yield {"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}]}
            yield {"id": "2", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
            yield {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}

    response = ask(Chunked(), stream=True)
    chunks = chunks_of(response)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, "length"]
    assert chunks[-1]["usage"]["completion_tokens"] == 2
    assert response.summary.usage is not None
    assert response.summary.finish_reason == "length"


def test_an_exception_in_a_custom_backend_is_a_502_that_does_not_show_its_text() -> None:
    class Broken(Parrot):
        async def chat_completion(self, request: dict[str, Any], config: BackendConfig) -> Any:
            raise RuntimeError("my key is sk-123")

        async def chat_completion_stream(self, request: dict[str, Any], config: BackendConfig) -> AsyncIterator[Any]:
            yield "a"
            raise RuntimeError("my key is sk-123")

    with pytest.raises(UpstreamError, match='backend "mine" failed: RuntimeError') as caught:
        ask(Broken())
    assert caught.value.status == 502
    assert "sk-123" not in caught.value.message
    response = ask(Broken(), stream=True)
    with pytest.raises(UpstreamError):
        chunks_of(response)


def test_a_gateway_error_of_a_custom_backend_passes_as_it_is() -> None:
    class Limited(Parrot):
        async def chat_completion(self, request: dict[str, Any], config: BackendConfig) -> Any:
            raise RateLimited("slow down")

    with pytest.raises(GatewayError) as caught:
        ask(Limited())
    assert caught.value.status == 429


@pytest.mark.parametrize("answer", [None, 5, {}, {"choices": 5}, {"choices": [5]}, {"choices": [{}]}])
def test_an_answer_that_is_none_is_a_protocol_error(answer: Any) -> None:
    class Odd(Parrot):
        async def chat_completion(self, request: dict[str, Any], config: BackendConfig) -> Any:
            return answer

    with pytest.raises(UpstreamProtocolError):
        ask(Odd())


def test_closing_a_custom_stream_runs_its_finally() -> None:
    ended = []

    class Endless(Parrot):
        async def chat_completion_stream(self, request: dict[str, Any], config: BackendConfig) -> AsyncIterator[Any]:
            try:
                while True:
                    yield "a"
            finally:
                ended.append(True)

    async def leave_early() -> None:
        stream = ask_stream.content
        assert isinstance(stream, Stream)
        await stream.read()
        await stream.aclose()
        await stream.aclose()
        assert await stream.read() == ()

    ask_stream = ask(Endless(), stream=True)
    asyncio.run(leave_early())
    assert ended == [True]


def test_a_custom_backends_capabilities_are_what_it_says() -> None:
    assert CustomBackend(Parrot(), BackendConfig("mine", "parrot")).capabilities == {"stream"}


@pytest.mark.parametrize(
    ("verdict", "problems"),
    [
        ({"valid": True, "errors": []}, []),
        ({"valid": False, "errors": ["no region"]}, ["no region"]),
        ({"valid": False}, ["validate_config refused it without saying why"]),
        (None, ['validate_config must return {"valid": bool, "errors": [...]}']),
    ],
)
def test_validate_config_speaks_at_load(verdict: Any, problems: list[str]) -> None:
    class Validating(Parrot):
        def validate_config(self, config: BackendConfig) -> Any:
            return verdict

    assert CustomBackend(Validating(), BackendConfig("mine", "parrot")).problems() == problems
