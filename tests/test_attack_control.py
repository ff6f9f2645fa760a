"""No field and no header of a request names an upstream, a key, a program, a file or an importable name.

A listener on loopback stands for everything that must never be contacted: requests name it in every way that gateways
have ever obeyed, and nobody comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import orjson
import pytest

from tests.attack_world import CANARY, World, get, post, world
from tests.claude_fakes import FakeClaude, start
from tests.fakes import Asked
from tests.running import Running, running

GOOD = [{"role": "user", "content": "Hi"}]
KEYS = {name: f"key-of-{name}-77de68da" for name in ("a", "openrouter", "anthropic", "gemini", "azure")}
PATHS: dict[str, re.Pattern[str]] = {
    "a": re.compile(r"/v1/chat/completions"),
    "openrouter": re.compile(r"/or/chat/completions"),
    "anthropic": re.compile(r"/an/messages"),
    "gemini": re.compile(
        r"/ge/(models|tunedModels)/[A-Za-z0-9%._~@-]+:(generateContent|streamGenerateContent\?alt=sse)"
    ),
    "azure": re.compile(r"/az/openai/deployments/(?!\.\.?/)[A-Za-z0-9%._~-]+/chat/completions\?api-version=1"),
    "ollama": re.compile(r"/api/chat"),
}
CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


def backends(url: str) -> Mapping[str, Any]:
    azure = {"dialect": "azure", "api_version": "1", "api_key": KEYS["azure"]}
    return {
        "a": {"adapter": "openai", "base_url": f"{url}/v1", "model": "m", "api_key": KEYS["a"]},
        "openrouter": {"adapter": "openrouter", "base_url": f"{url}/or", "api_key": KEYS["openrouter"]},
        "anthropic": {"adapter": "anthropic", "base_url": f"{url}/an", "api_key": KEYS["anthropic"]},
        "gemini": {"adapter": "gemini", "base_url": f"{url}/ge", "api_key": KEYS["gemini"]},
        "azure": {"adapter": "openai", "base_url": f"{url}/az", **azure},
        "ollama": {"adapter": "ollama", "base_url": url},
    }


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # One try each, for ever: the provider answers as OpenAI does, and to the others that is garbage.
    fallback = {"retries": 0, "explicit_fallback": False, "breaker": {"failures": 1_000_000}}
    tables = {"fallback": fallback, "route": {"default_backend": "a"}}
    with world(tmp_path_factory.mktemp("control"), backends=backends, middleware=tables) as attacked:
        yield attacked


def ask(attacked: World, body: dict[str, Any], *lines: str, backend: str = "a") -> list[Asked]:
    """What the provider was asked because of a request; every part of it must be as the operator said."""
    before = len(attacked.provider.asked)
    answer = attacked.ask(post(json.dumps({"backend": backend, **body}).encode(), *lines))
    assert answer.status in (200, 400, 403, 404, 502), answer
    assert answer.status != 502 or backend not in ("a", "openrouter", "azure"), answer
    assert KEYS[backend if backend in KEYS else "a"].encode() not in answer.body
    asked = [each for each in attacked.provider.asked[before:] if b"bystander" not in each.body]
    for each in asked:
        assert PATHS[backend].fullmatch(each.path), each.path
        assert each.method == "POST"
        assert each.headers["host"] == attacked.provider.url.removeprefix("http://")
        sent = " ".join(each.headers[name] for name in CREDENTIALS if name in each.headers)
        assert sent.removeprefix("Bearer ") == KEYS.get(backend, "")
        assert CANARY not in str(each.headers)
        assert attacked.forbidden not in str(each.headers)
    assert len(asked) == (answer.status in (200, 502))
    assert not attacked.was_contacted()
    return asked


# --- fields ------------------------------------------------------------------------------------------------------


def each(names: Sequence[str], value: Any) -> dict[str, Any]:
    """The same value under several names."""
    return {name: value for name in names}  # noqa: C420 (one that can be changed)


def control(place: str) -> dict[str, Any]:
    """Fields by which other gateways were told where to go, with what, and what to run; `place` is where."""
    url = f"http://{place}"
    return {
        **each(
            ("base_url", "api_base", "apiBase", "baseURL", "base-url", "url", "endpoint", "host", "target", "upstream"),
            url,
        ),
        **each(
            ("server", "hostname", "azure_endpoint", "api_url", "custom_host", "target_url", "redirect", "webhook"), url
        ),
        **each(
            ("proxy", "http_proxy", "https_proxy", "proxies", "callback_url", "webhook_url", "schema_url", "image"), url
        ),
        **each(("vertex_api_base", "openai_api_base", "litellm_api_base", "fetch", "mcp_server", "vector_store"), url),
        **each(
            ("api_key", "apiKey", "key", "token", "authorization", "azure_ad_token", "api_key_env", "token_env"), CANARY
        ),
        **each(("openai_api_key", "aws_access_key_id", "organization", "vertex_credentials", "api_keys"), CANARY),
        **each(
            ("token_command", "api_key_helper", "command", "cmd", "exec", "shell", "entrypoint"),
            ["/bin/sh", "-c", "exit 1"],
        ),
        **each(("args", "argv", "cli_args", "extra_args"), ["--dangerously-skip-permissions"]),
        **each(("env", "environ", "environment"), {"PATH": "/evil", "LD_PRELOAD": "/evil.so", "OPENAI_BASE_URL": url}),
        **each(
            ("headers", "extra_headers", "default_headers", "http_headers"), {"Authorization": CANARY, "Host": place}
        ),
        **each(("extra_query", "default_query", "query", "params"), {"key": CANARY, "alt": "x"}),
        **each(("adapter", "use", "import", "plugin", "module", "class", "middleware", "callbacks"), "os:system"),
        **each(
            ("success_callback", "guardrails", "hooks", "handler", "template", "prompt_template"), ["./evil.py:Evil"]
        ),
        **each(
            ("file", "path", "cwd", "config_dir", "config", "settings", "ca_file", "cert", "log_path"), "/etc/passwd"
        ),
        **each(
            ("provider_config", "user_config", "router_settings", "litellm_params"),
            {"api_base": url, "api_key": CANARY},
        ),
        "model_list": [{"model_name": "m", "litellm_params": {"api_base": url}}],
        "fallbacks": [{"model": "m", "api_base": url}],
        "custom_llm_provider": "openai",
        "transport": "httpx",
        "mock_response": CANARY,
        "timeouts": {"total": 0},
        "max_retries": 1000,
        "stream_timeout": 0,
        "api_version": "2?x=",
        "deployment": "../../x",
        "deployment_id": f"{url}/x",
        "cache": {"host": place},
        "mcp_servers": [{"type": "url", "url": url, "name": "x"}],
        "permission_mode": "bypassPermissions",
        "dangerously_skip_permissions": True,
        "allowed_routes": ["*"],
        "principal": "default",
        "user_role": "proxy_admin",
        "extra_body": {"api_base": url, "base_url": url, "api_key": CANARY, "model": "other"},
        "provider": {"base_url": url, "order": ["x"]},
    }


NAMES = sorted(control("x"))


@pytest.mark.parametrize("name", NAMES)
def test_a_field_that_looks_like_control_controls_nothing(attacked: World, name: str) -> None:
    value = control(attacked.forbidden)[name]
    inner: dict[str, Any] = {name: value}
    text = {"type": "text", "text": "Hi", **inner}
    everywhere = {
        "messages": [{"role": "user", "content": [text], **inner}],
        "metadata": {name: json.dumps(value)},
        "extra_body": inner,
        "litellm_params": inner,
        "options": inner,
        "tools": [{"type": "function", "function": {"name": "f", **inner}, **inner}],
        "stream_options": inner,
        "response_format": {"type": "text", **inner},
        "user": json.dumps(inner),
    }
    for fields in (inner, {"metadata": inner}, everywhere):
        for asked in ask(attacked, {"model": "m", "messages": GOOD, **fields}):
            assert asked.json["model"] == "m"  # the rest is passed on as data, and obeyed by nobody here


@pytest.mark.parametrize("backend", [name for name in PATHS if name != "a"])
def test_nor_for_any_other_adapter(attacked: World, backend: str) -> None:
    fields = control(attacked.forbidden)
    del fields["provider"]
    for at in range(0, len(fields), 12):
        some = dict(list(fields.items())[at : at + 12])
        for body in (some, {backend: some}, {"extra_body": some}):
            ask(attacked, {"model": "claude-sonnet-4-5", "messages": GOOD, **body}, backend=backend)


MODELS = (
    "../../../x", "..", ".", "x/../../y", "x?key=" + CANARY, "x#y", "x;y", "x:generateContent/../../y", "%2e%2e%2fx",
    "\\..\\x", "//evil", "http://evil/x",
    "x y", "x%00y", "@evil", "x@evil:80", "{x}", "${x}", "é模型", "x%0d%0aHost:%20evil", "-x", "--help", "/x", "x/",
    "models/../x", "tunedModels/x/../../y",
)  # fmt: skip


@pytest.mark.parametrize("backend", PATHS)
@pytest.mark.parametrize("model", MODELS)
def test_a_models_name_stays_one_segment_of_the_path(attacked: World, backend: str, model: str) -> None:
    for name in (model, f"{backend}/{model}"):
        ask(attacked, {"model": name, "messages": GOOD}, backend=backend)
        ask(
            attacked, {"model": name, "messages": GOOD, "stream": True}, backend=backend
        ) if backend == "gemini" else None


@pytest.mark.parametrize(
    "value", ["a\r\nX-Evil: " + CANARY, "a\nb", "a\0b", "é", "模", "\U0001f600", "a\x7f", "", " ", "a,b", "a" * 5000]
)
def test_what_becomes_part_of_a_header_cannot_add_one(attacked: World, value: str) -> None:
    body = {"model": "claude-sonnet-4-5", "messages": GOOD, "anthropic": {"betas": ["x", value]}}
    for asked in ask(attacked, body, backend="anthropic"):
        assert "x-evil" not in asked.headers


# --- headers -----------------------------------------------------------------------------------------------------

HEADERS = (
    "X-Api-Base", "X-Base-Url", "Api-Base", "X-LiteLLM-Api-Base", "X-LiteLLM-Api-Key", "X-Portkey-Custom-Host",
    "X-Portkey-Config", "X-Portkey-Provider",
    "X-Portkey-Forward-Headers", "Helicone-Target-Url", "Helicone-OpenAI-Api-Base", "X-Target-Url", "X-Upstream",
    "X-Upstream-Host", "X-Proxy-Url", "Proxy",
    "X-Original-Host", "X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-Proto", "X-Host", "X-Backend",
    "X-Backend-Url", "X-Gateway-Backend",
    "X-Gateway-Url", "X-Endpoint", "X-Openai-Host", "Azure-Endpoint", "Destination", "Location", "Link", "Referer",
    "Origin-Trial", "Via", "X-Rewrite-Url",
    "X-Original-Url", "X-Http-Method-Override", "X-Provider", "X-Model", "X-Config", "X-Command", "X-Env",
    "X-Api-Version", "OpenAI-Organization",
    "OpenAI-Project", "Anthropic-Beta", "Anthropic-Version", "X-Goog-User-Project", "X-Stainless-Raw-Response",
    "Cookie", "Traceparent", "User-Agent",
)  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_names_no_place_and_goes_nowhere(attacked: World, header: str) -> None:
    for backend, value in (("a", f"http://{attacked.forbidden}/{CANARY}"), ("anthropic", attacked.forbidden)):
        asked = ask(attacked, {"model": "claude-x", "messages": GOOD}, f"{header}: {value}", backend=backend)
        assert len(asked) == 1


def test_a_target_that_names_another_host_goes_nowhere(attacked: World) -> None:
    body = json.dumps({"model": "m", "messages": GOOD}).encode()
    data = post(body, path=f"http://{attacked.forbidden}/v1/chat/completions")
    assert attacked.ask(data).status == 200
    assert attacked.ask(get(f"http://{attacked.forbidden}/{CANARY}"), "GET").status == 404
    assert not attacked.was_contacted()


# --- media -------------------------------------------------------------------------------------------------------

SCHEMES = ("http://{}/x.png", "HTTP://{}/x.png", "https://{}/x", "file:///etc/passwd", "ftp://{}/x", "gopher://{}/x",
"//{}/x", "\\\\{}\\x", " http://{}/x",
           "http://x@{}/x", "http://{}#.png", "data:text/html,<img src=http://{}>", "blob:http://{}/x",
           "jar:http://{}!/", "http:{}", "http:///{}/x")  # fmt: skip


@pytest.mark.parametrize("backend", ["a", "anthropic", "gemini", "ollama"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_address_of_media_is_not_gone_to_unless_the_operator_says_so(
    attacked: World, scheme: str, backend: str
) -> None:
    url = scheme.format(attacked.forbidden)
    for part in (
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "file", "file": {"file_data": url, "filename": "../../x"}},
        {"type": "file_url", "file_url": {"url": url}},
        {"type": "video_url", "video_url": url},
        {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
    ):
        ask(attacked, {"model": "m", "messages": [{"role": "user", "content": [part]}]}, backend=backend)


# --- programs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, FakeClaude]]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "root").mkdir()
    fake = FakeClaude(folder / "fake")
    with running() as gw:
        start(
            gw,
            folder,
            fake,
            {"middleware": {"rate_limit": {"enabled": False}}},
            roots=[str(folder / "root")],
            allowed_tools=["Read"],
        )
        yield gw, fake


def started(cli: tuple[Running, FakeClaude], body: dict[str, Any]) -> tuple[int, list[Any]]:
    """The status, and how the program was started for a request: what varies by itself taken out."""
    gw, fake = cli
    before = len(fake.starts)
    url = f"{gw.gateway.url}/v1/chat/completions"
    answer = httpx.post(url, json={"messages": GOOD, "backend": "cli", **body}, trust_env=False, timeout=20)
    starts = []
    for entry in fake.starts[before:]:
        own = {name: value for name, value in entry["env"].items() if name not in ("GW_PROCESS", "PWD")}
        starts.append([re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[\w/.-]*/(?=tmp)\S*", "*", " ".join(entry["argv"])), own])
    return answer.status_code, starts


def test_no_field_changes_the_program_its_arguments_or_its_environment(cli: tuple[Running, FakeClaude]) -> None:
    status, usual = started(cli, {})
    assert (status, len(usual)) == (200, 1)
    fields = control("127.0.0.1:9")
    assert started(cli, fields) == (200, usual)
    nested = {"extra_body": fields, "messages": [{"role": "user", "content": "Hi", **fields}]}
    assert started(cli, nested) == (200, usual)


REFUSED: list[dict[str, Any]] = [
    *({"cli_tools": [name]} for name in ("Bash", "--dangerously-skip-permissions", "-p", "", "Read\nBash", "*",
    "Read,Bash", "Bash(*)", "mcp__x")),
    *({"working_directory": path} for path in ("/", "/etc", "..", "../..", "~", "~root", "/proc/self", "/dev", "a\0b",
    "", "$HOME", "file:///", "//etc", "/nothing")),
    *({"session_id": value} for value in ("../x", "--resume", "-c", "x", "", "0" * 36,
    "00000000-0000-0000-0000-000000000000", "$(id)", "a\nb")),
    {"tools": ["Read", {"type": "function", "function": {"name": "Bash"}}]},
    {"allowed_tools": ["--x"]},
    {"disallowed_tools": ["-x"]},
]  # fmt: skip


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: repr(body)[:50])
def test_what_could_widen_what_the_program_may_do_is_refused_and_nothing_starts(
    cli: tuple[Running, FakeClaude], body: dict[str, Any]
) -> None:
    status, starts = started(cli, body)
    assert status in (400, 403, 404)
    assert starts == []


@pytest.mark.parametrize("model", ["--resume=x", "$(id) `id`", "x --dangerously-skip-permissions", "@/etc/passwd"])
def test_a_models_name_is_never_an_argument_of_its_own(cli: tuple[Running, FakeClaude], model: str) -> None:
    _, fake = cli
    before = len(fake.starts)
    for fields in ({}, {"cli_tools": ["Read"]}):
        assert started(cli, {"model": f"cli/{model}", **fields})[0] in (200, 400, 404)
    for entry in fake.starts[before:]:
        assert {argument for argument in entry["argv"] if model in argument} <= {f"--model={model}"}


def test_a_prompt_is_told_on_stdin_and_never_becomes_an_argument(cli: tuple[Running, FakeClaude]) -> None:
    gw, fake = cli
    before = len(fake.starts)
    text = "--dangerously-skip-permissions @/etc/passwd $(touch x)"
    chat = {"messages": [{"role": "system", "content": "Hi"}, {"role": "user", "content": text}], "backend": "cli"}
    assert (
        httpx.post(f"{gw.gateway.url}/v1/chat/completions", json=chat, trust_env=False, timeout=20).status_code == 200
    )
    assert all(text not in argument for entry in fake.starts[before:] for argument in entry["argv"])
    assert text in orjson.dumps(fake.lines).decode()
