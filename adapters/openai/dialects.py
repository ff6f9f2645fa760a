"""Hosts that speak OpenAI's chat completions, and where each departs from it: rows of data, one a provider.

A row says what the provider's API refuses or names otherwise in a request. What it does differently in an answer is
repaired for everybody alike (`answers.py`, `streams.py`), because no provider is hurt by a repair it does not need.

From the providers' API references and recorded traffic, November 2026.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One provider's departures from OpenAI's request. The defaults are what an unknown compatible server takes."""

    name: str
    hosts: tuple[str, ...] = ()  # itself or any name below it
    key_env: str | None = None  # the environment variable that by custom holds its key
    key_header: Literal["bearer", "api-key"] = "bearer"
    developer: bool = False  # takes the role `developer`
    functions: bool = False  # takes the deprecated `functions` and `function_call`
    usage_option: bool = True  # takes stream_options.include_usage
    limit: Literal["any", "max_tokens", "by_model"] = "any"  # its name for the limit of output tokens
    drop: frozenset[str] = frozenset()  # fields of a request that it refuses or ignores
    rename: Mapping[str, str] = field(default_factory=dict)  # fields that it calls otherwise
    message_drop: frozenset[str] = frozenset()  # fields of a message that it refuses
    # Where the text of an assistant's reasoning goes back: as it came, nowhere, into a field, or into Mistral's parts.
    reasoning: Literal["as it came", "dropped", "reasoning_content", "reasoning", "thinking parts"] = "as it came"
    several_choices: bool = True  # takes n > 1
    tool_choice: Literal["openai", "mistral", "ignored"] = "openai"
    tool_images: bool = True  # takes images in a tool's result
    remote_images: bool = True  # fetches http(s) images itself
    json_schema: bool = True  # takes response_format json_schema
    short_ids: bool = False  # tool call ids are nine letters or digits
    answers_results: bool = False  # some of its models want an assistant's turn between a tool's result and a user


MISTRAL_FORMAT = "mistral-v1"  # `reasoning_details[].format` of what Mistral signed
_OPENAI_ONLY = frozenset({"store", "prediction", "moderation", "service_tier", "safety_identifier"})
_LOGPROBS = frozenset({"logprobs", "top_logprobs", "logit_bias"})
_PENALTIES = frozenset({"frequency_penalty", "presence_penalty"})
_MESSAGE_EXTRAS = frozenset({"name", "refusal", "annotations", "audio", "function_call"})

OPENAI = Dialect(
    name="openai",
    hosts=("api.openai.com",),
    key_env="OPENAI_API_KEY",
    developer=True,
    functions=True,
    limit="by_model",
    reasoning="dropped",
    tool_images=False,
)
GENERIC = Dialect(name="generic")

DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        OPENAI,
        GENERIC,
        Dialect(
            name="azure",
            hosts=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
            key_env="AZURE_OPENAI_API_KEY",
            key_header="api-key",
            developer=True,
            functions=True,
            limit="by_model",
            reasoning="dropped",
            tool_images=False,
        ),
        Dialect(name="openrouter", hosts=("openrouter.ai",), key_env="OPENROUTER_API_KEY", developer=True),
        Dialect(
            name="groq",
            hosts=("api.groq.com",),
            key_env="GROQ_API_KEY",
            drop=_LOGPROBS | _PENALTIES | {"store", "prediction", "moderation"},
            message_drop=_MESSAGE_EXTRAS,
            reasoning="dropped",
            several_choices=False,
        ),
        Dialect(
            name="mistral",
            hosts=("api.mistral.ai",),
            key_env="MISTRAL_API_KEY",
            usage_option=False,  # it reports usage unasked, and refuses fields it does not know
            limit="max_tokens",
            drop=_LOGPROBS | _OPENAI_ONLY | {"user", "verbosity", "modalities", "audio", "stream_options"},
            rename={"seed": "random_seed"},
            message_drop=_MESSAGE_EXTRAS,
            reasoning="thinking parts",
            tool_choice="mistral",
            short_ids=True,
            answers_results=True,
        ),
        Dialect(
            name="deepseek",
            hosts=("api.deepseek.com",),
            key_env="DEEPSEEK_API_KEY",
            limit="max_tokens",
            reasoning="reasoning_content",  # its tool turns are refused without
            json_schema=False,
        ),
        Dialect(
            name="cerebras",
            hosts=("api.cerebras.ai",),
            key_env="CEREBRAS_API_KEY",
            drop=_PENALTIES | {"logit_bias"},
            reasoning="dropped",
        ),
        Dialect(
            name="together",
            hosts=("api.together.xyz", "api.together.ai"),
            key_env="TOGETHER_API_KEY",
            limit="max_tokens",
        ),
        Dialect(name="xai", hosts=("api.x.ai",), key_env="XAI_API_KEY"),
        Dialect(
            name="perplexity",
            hosts=("api.perplexity.ai",),
            key_env="PERPLEXITY_API_KEY",
            usage_option=False,  # every chunk carries it
            limit="max_tokens",
        ),
        Dialect(
            name="zai",
            hosts=("api.z.ai", "open.bigmodel.cn"),
            key_env="ZAI_API_KEY",
            usage_option=False,  # the last chunk carries it
            limit="max_tokens",
            reasoning="reasoning_content",
        ),
        Dialect(
            name="alibaba",
            hosts=("aliyuncs.com",),
            key_env="DASHSCOPE_API_KEY",
            limit="max_tokens",
            reasoning="reasoning_content",
        ),
        Dialect(
            name="moonshot",
            hosts=("api.moonshot.ai", "api.moonshot.cn"),
            key_env="MOONSHOT_API_KEY",
            limit="max_tokens",
            reasoning="reasoning_content",  # its tool turns are refused without
        ),
        Dialect(
            name="gemini",
            hosts=("generativelanguage.googleapis.com",),
            key_env="GEMINI_API_KEY",
            drop=frozenset({"logit_bias", "store", "prediction", "moderation"}),
        ),
        Dialect(name="huggingface", hosts=("huggingface.co",), key_env="HF_TOKEN"),
        Dialect(name="fireworks", hosts=("api.fireworks.ai",), key_env="FIREWORKS_API_KEY", limit="max_tokens"),
        Dialect(name="vllm"),
        Dialect(name="llama.cpp", limit="max_tokens"),
        Dialect(name="gpustack", limit="max_tokens", reasoning="reasoning_content"),
        Dialect(
            name="ollama",
            hosts=("ollama.com",),
            key_env="OLLAMA_API_KEY",
            limit="max_tokens",
            reasoning="reasoning",
            tool_choice="ignored",
            remote_images=False,
        ),
    )
}


def dialect_of(host: str, port: int | None = None) -> Dialect:
    """The row for a host; GENERIC where nobody is known to live there."""
    host = host.lower().rstrip(".")
    for row in DIALECTS.values():
        if any(host == known or host.endswith("." + known) for known in row.hosts):
            return row
    return DIALECTS["ollama"] if port == 11434 and is_loopback(host) else GENERIC


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: `localhost`, names below it, 127.0.0.0/8 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
