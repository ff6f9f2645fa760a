"""Every sample of the two founding documents that concerns the main job runs as it is written, but for the port."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from gw import GatewayClient
from tests.fakes import Asked, answers, chunks, completion, sse, streams
from tests.running import Running, running, settings

TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"location":"Tokyo"}'}}


async def _either(asked: Asked, writer: Any) -> None:
    """A provider that streams where it is asked to, calls a tool where it has one, and else says hello."""
    if asked.json.get("stream"):
        await streams(sse(*chunks("An old ", "silent pond")))(asked, writer)
    elif asked.json.get("tools"):
        called = completion("", content=None, tool_calls=[TOOL_CALL])
        await answers(orjson.dumps(called).replace(b'"stop"', b'"tool_calls"'))(asked, writer)
    else:
        await answers(orjson.dumps(completion("Hello!")))(asked, writer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents")


@pytest.fixture(scope="module")
def gw(folder: Path) -> Iterator[Running]:
    with running() as gateway:
        provider = gateway.add_provider(_either)
        common = {"api_key": "sk-x", "base_url": provider.url + "/v1"}
        backends = {
            "openrouter-glm": {"adapter": "openrouter", "model": "z-ai/glm-4.7", "cost_per_request": 0.001} | common,
            "gemini-1.5-pro": {"adapter": "openai", "model": "gemini-1.5-pro", "cost_per_request": 0.002} | common,
        }
        middleware = {
            "rate_limit": {"max": 1000},
            "route": {"prefer_cheapest": True},
            "log": {"path": str(folder / "logs" / "requests.db")},
        }
        gateway.start(settings(folder, backends=backends, middleware=middleware))
        yield gateway


def shell(gw: Running, folder: Path, script: str) -> str:
    """Run a document's shell block against the running gateway."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = script.replace("localhost:3456", f"127.0.0.1:{gw.gateway.port}").replace("curl ", "curl -sS ")
    done = subprocess.run(["bash", "-euc", script], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(gw: Running) -> Asked:
    return gw.providers[0].asked[-1]


def test_a5_chat_without_a_model_goes_to_the_cheapest(gw: Running, folder: Path) -> None:
    out = shell(
        gw,
        folder,
        """curl -X POST http://localhost:3456/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "messages": [{"role": "user", "content": "Hello!"}]
  }'""",
    )
    answer = orjson.loads(out)
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    assert answer["gateway"]["backend"] == "openrouter-glm"
    assert answer["degraded"] is False
    assert asked(gw).json["model"] == "z-ai/glm-4.7"


@pytest.mark.parametrize("name", ["openrouter-glm", "gemini-1.5-pro"])
def test_a14_a_backend_in_the_url_dots_too(gw: Running, folder: Path, name: str) -> None:
    out = shell(
        gw,
        folder,
        f"""curl -X POST http://localhost:3456/v1/{name}/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{{"messages": [{{"role": "user", "content": "Hello"}}]}}'""",
    )
    assert orjson.loads(out)["gateway"]["backend"] == name


def test_a15_a_backend_in_the_body(gw: Running, folder: Path) -> None:
    out = shell(
        gw,
        folder,
        """curl -X POST http://localhost:3456/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "backend": "openrouter-glm",
    "messages": [{"role": "user", "content": "Hello"}]
  }'""",
    )
    assert orjson.loads(out)["gateway"]["backend"] == "openrouter-glm"
    assert "backend" not in asked(gw).json


def test_a19_and_a20_streaming_is_events_and_done(gw: Running, folder: Path) -> None:
    out = shell(
        gw,
        folder,
        """curl -X POST http://localhost:3456/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "messages": [{"role": "user", "content": "Write a haiku about AI"}],
    "stream": true
  }'""",
    )
    events = out.strip().split("\n\n")
    assert all(event.startswith('data: {"id":"chatcmpl-') for event in events[:-1])
    assert all('"object":"chat.completion.chunk"' in event for event in events[:-1])
    assert events[-1] == "data: [DONE]"
    assert len({orjson.loads(event[6:])["id"] for event in events[:-1]}) == 1


def test_a53_health(gw: Running, folder: Path) -> None:
    page = orjson.loads(shell(gw, folder, "curl http://localhost:3456/health"))
    assert (page["status"], page["backend"]) == ("ok", "intelligent-gateway")
    assert page["uptime_seconds"] >= 0
    assert page["timestamp"].endswith("Z")
    assert set(page["routing"]["processPool"]) == {"active", "queued", "maxConcurrent", "utilization"}
    assert page["routing"]["backends"] == {"total": 3, "tool": 0, "api": 3}


def test_a56_queue_status(gw: Running, folder: Path) -> None:
    page = orjson.loads(shell(gw, folder, "curl http://localhost:3456/queue/status"))
    fields = "active queued maxConcurrent maxQueue utilization totalProcessed totalQueued totalFailed"
    assert set(page["processPool"]) == set(fields.split())
    assert set(page["backends"]) == {"total", "tool", "api"}


QUERIES = [
    'sqlite3 logs/requests.db "SELECT id, backend, duration_ms, cost_usd FROM requests '
    'ORDER BY timestamp DESC LIMIT 10;"',
    'sqlite3 logs/requests.db "SELECT backend, COUNT(*) as count FROM requests GROUP BY backend;"',
    'sqlite3 logs/requests.db "SELECT backend, SUM(cost_usd) as total_cost FROM requests GROUP BY backend;"',
    'sqlite3 logs/requests.db "SELECT COUNT(*) FROM requests WHERE degraded = 1;"',
    'sqlite3 logs/requests.db "SELECT COUNT(*) as errors FROM requests WHERE error IS NOT NULL;"',
    'sqlite3 logs/requests.db "SELECT AVG(duration_ms) FROM requests;"',
    'sqlite3 logs/requests.db "SELECT SUM(cost_usd) FROM requests;"',
    'sqlite3 logs/requests.db "SELECT * FROM requests LIMIT 10;"',
]


@pytest.mark.parametrize("query", QUERIES)
def test_a60_the_eight_queries_run_verbatim(gw: Running, folder: Path, query: str) -> None:
    if shutil.which("sqlite3") is None:
        pytest.skip("the sqlite3 command is not installed")
    shell(gw, folder, "curl -X POST http://localhost:3456/v1/chat/completions -H 'Content-Type: application/json' "
          """-d '{"messages":[{"role":"user","content":"test"}]}'""")  # fmt: skip
    assert shell(gw, folder, query).strip()


def test_a61_to_a64_the_python_sdk_example(gw: Running) -> None:
    client = gw.sdk(
        base_url=f"http://localhost:{gw.gateway.port}/v1",
        api_key="not-needed-for-local",  # No auth required for localhost
    )
    response = client.chat.completions.create(
        model="claude-3-5-sonnet-20241022", messages=[{"role": "user", "content": "Hello!"}]
    )
    assert response.choices[0].message.content == "Hello!"
    response = client.chat.completions.create(
        model="claude-3-5-sonnet-20241022",
        messages=[{"role": "user", "content": "Hello!"}],
        extra_body={"backend": "openrouter-glm"},
    )
    assert response.choices[0].message.content == "Hello!"


def test_b28_to_b31_the_client_and_the_shape_of_its_answer(gw: Running) -> None:
    with GatewayClient(base_url=f"http://localhost:{gw.gateway.port}") as client:
        answer = client.chat.completions.create(
            model="gpt-4",
            messages=[
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "Hello, how are you?"},
            ],
            temperature=0.7,
            max_tokens=150,
            stream=False,
        )
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "gpt-4")
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert set(answer.usage) >= {"prompt_tokens", "completion_tokens", "total_tokens"}


def test_b37_an_image_by_url_is_passed_on(gw: Running) -> None:
    parts = [
        {"type": "text", "text": "What's in this image?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/image.jpg", "detail": "auto"}},
    ]
    with GatewayClient(base_url=f"http://localhost:{gw.gateway.port}") as client:
        client.chat.completions.create(model="gpt-4-vision", messages=[{"role": "user", "content": parts}])
    assert asked(gw).json["messages"][0]["content"] == parts


def test_b54_an_unknown_model_where_names_are_mapped(folder: Path, tmp_path: Path) -> None:
    with running() as gateway:
        backend = {"adapter": "openai", "base_url": "http://127.0.0.1:9/v1", "models": {"gpt-4": "x"}}
        gateway.start(settings(tmp_path, backends={"a": backend}))
        client = gateway.sdk()
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="invalid-model", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.body == {
        "message": "The model `invalid-model` does not exist",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


FETCH = """
const response = await fetch('http://localhost:3000/v1/chat/completions', {
 method: 'POST',
  headers: {
    'Content-Type': 'application/json'
  },
  body: JSON.stringify({
    model: 'gpt-4',
    messages: [
      { role: 'user', content: 'Hello, world!' }
    ]
  })
});

const data = await response.json();
console.log(data.choices[0].message.content);
"""

FETCH_STREAM = r"""
const response = await fetch('http://localhost:3000/v1/chat/completions', {
 method: 'POST',
  headers: {
    'Content-Type': 'application/json'
  },
  body: JSON.stringify({
    model: 'gpt-4',
    messages: [
      { role: 'user', content: 'Write a short poem' }
    ],
    stream: true
  })
});

const reader = response.body.getReader();
const decoder = new TextDecoder();

try {
  while (true) {
    const { done, value } = await reader.read();
    if (done) break;

    const chunk = decoder.decode(value);
    const lines = chunk.split('\n');

    for (const line of lines) {
      if (line.startsWith('data: ')) {
        const data = line.slice(6);
        if (data === '[DONE]') break;

        try {
          const parsed = JSON.parse(data);
          if (parsed.choices && parsed.choices[0].delta?.content) {
            process.stdout.write(parsed.choices[0].delta.content);
          }
        } catch (e) {
          // Skip invalid JSON lines
        }
      }
    }
  }
} finally {
 reader.releaseLock();
}
"""

FETCH_TOOLS = """
const response = await fetch('http://localhost:3000/v1/chat/completions', {
 method: 'POST',
  headers: {
    'Content-Type': 'application/json'
 },
  body: JSON.stringify({
    model: 'gpt-4',
    messages: [
      { role: 'user', content: 'What is the weather in Tokyo?' }
    ],
    tools: [{
      type: 'function',
      function: {
        name: 'get_weather',
        description: 'Get weather information for a location',
        parameters: {
          type: 'object',
          properties: {
            location: { type: 'string' }
          },
          required: ['location']
        }
      }
    }],
    tool_choice: 'auto'
 })
});

const data = await response.json();
console.log('Tool calls:', data.choices[0].message.tool_calls);
"""


@pytest.mark.parametrize(
    ("sample", "printed"),
    [(FETCH, "Hello!"), (FETCH_STREAM, "An old silent pond"), (FETCH_TOOLS, "get_weather")],
    ids=["b68", "b69", "b70"],
)
def test_the_javascript_examples_run(gw: Running, folder: Path, sample: str, printed: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = sample.replace("localhost:3000", f"127.0.0.1:{gw.gateway.port}")
    done = subprocess.run(
        [node, "--input-type=module", "-e", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
