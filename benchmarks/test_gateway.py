"""A request through the whole gateway, beside the same request to the provider itself and through bare nginx.

`pytest benchmarks/test_gateway.py`: one client, one connection, everything on loopback. For load see the harness.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.harness import processes as p
from benchmarks.harness.load import REQUEST

HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-client"}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, p.Program]]:
    if p.nginx_path() is None:
        pytest.skip("nginx, which plays the provider, is not installed")
    folder: Path = tmp_path_factory.mktemp("gateway")
    with ExitStack() as stack:
        provider = stack.enter_context(p.provider(folder))
        yield {
            "direct": provider,
            "nginx": stack.enter_context(p.proxy(provider, folder)),
            "gw": stack.enter_context(p.gateway(provider, folder)),
        }


@pytest.mark.parametrize("server", ["direct", "nginx", "gw"])
def test_a_whole_answer(benchmark: BenchmarkFixture, servers: dict[str, p.Program], server: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", servers[server].port, timeout=10)

    def ask() -> int:
        connection.request("POST", "/v1/chat/completions", REQUEST, HEADERS)
        response = connection.getresponse()
        assert b"chat.completion" in response.read()
        return response.status

    assert benchmark(ask) == 200
    connection.close()


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[p.Program, str]]]:
    folder: Path = tmp_path_factory.mktemp("streams")
    with ExitStack() as stack:
        source = stack.enter_context(p.event_source(folder))
        gateway = stack.enter_context(p.gateway(source, folder, path="/openai/20/0"))
        servers = {"direct": (source, "/openai/20/0/x"), "gw": (gateway, "/v1/chat/completions")}
        if p.nginx_path() is not None:
            servers["nginx"] = (stack.enter_context(p.proxy(source, folder)), "/openai/20/0/x")
        yield servers


@pytest.mark.parametrize("server", ["direct", "nginx", "gw"])
def test_a_stream_of_20_events(
    benchmark: BenchmarkFixture, streaming: dict[str, tuple[p.Program, str]], server: str
) -> None:
    if server not in streaming:
        pytest.skip("nginx is not installed")
    program, path = streaming[server]
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=10)
    body = b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hi"}]}'

    def ask() -> bytes:
        connection.request("POST", path, body, HEADERS)
        return connection.getresponse().read()

    assert benchmark(ask).endswith(b"data: [DONE]\n\n")
    connection.close()
