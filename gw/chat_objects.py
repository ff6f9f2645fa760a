"""OpenAI's chat objects, the canonical form of everything inside the gateway.

The TypedDicts name what is known; a field that OpenAI or a provider adds next week passes through unchanged. They are
for people and for type checkers: nothing that runs imports them, for making them takes 15 million instructions.

https://platform.openai.com/docs/api-reference/chat/create, and `openai.types.chat` of openai-python 3.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

# --- what is asked ----------------------------------------------------------------------------------------------

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class TextPart(TypedDict):
    type: Literal["text"]
    text: str
    cache_control: NotRequired[dict[str, Any] | None]  # Anthropic's, taken from clients too


class ImageURL(TypedDict):
    url: str  # http(s) or a data URI
    detail: NotRequired[Literal["auto", "low", "high", "original"] | None]


class ImagePart(TypedDict):
    type: Literal["image_url"]
    image_url: ImageURL


class InputAudio(TypedDict):
    data: str  # base64
    format: str  # wav, mp3, ...


class AudioPart(TypedDict):
    type: Literal["input_audio"]
    input_audio: InputAudio


class File(TypedDict, total=False):
    file_data: str | None  # a data URI
    file_id: str | None
    filename: str | None


class FilePart(TypedDict):
    type: Literal["file"]
    file: File


class RefusalPart(TypedDict):
    type: Literal["refusal"]
    refusal: str


Part = TextPart | ImagePart | AudioPart | FilePart | RefusalPart


class FunctionCall(TypedDict):
    name: str
    arguments: str  # JSON text, as the model wrote it: it may be invalid


class CustomCall(TypedDict):
    name: str
    input: str


class ToolCall(TypedDict):
    id: str
    type: NotRequired[Literal["function", "custom"]]
    function: NotRequired[FunctionCall]
    custom: NotRequired[CustomCall]


class Message(TypedDict):
    role: Role
    content: NotRequired[str | list[Part] | None]
    name: NotRequired[str | None]
    tool_calls: NotRequired[list[ToolCall] | None]
    tool_call_id: NotRequired[str]
    refusal: NotRequired[str | None]
    function_call: NotRequired[FunctionCall | None]
    audio: NotRequired[dict[str, Any] | None]
    reasoning_content: NotRequired[str | None]
    reasoning_details: NotRequired[list[dict[str, Any]] | None]


class FunctionDefinition(TypedDict):
    name: str
    description: NotRequired[str | None]
    parameters: NotRequired[dict[str, Any] | None]  # JSON Schema
    strict: NotRequired[bool | None]


class CustomDefinition(TypedDict):
    name: str
    description: NotRequired[str | None]
    format: NotRequired[dict[str, Any] | None]


class Tool(TypedDict):
    type: NotRequired[str]  # function where absent; custom; or a provider's own
    function: NotRequired[FunctionDefinition]
    custom: NotRequired[CustomDefinition]


class StreamOptions(TypedDict, total=False):
    include_usage: bool | None
    include_obfuscation: bool | None


class ChatRequest(TypedDict, total=False):
    """One chat request. Only `messages` must be there; null stands for absent."""

    messages: list[Message]
    model: str | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    n: int | None
    max_tokens: int | None
    max_completion_tokens: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    stop: str | list[str] | None
    seed: int | None
    logprobs: bool | None
    top_logprobs: int | None
    logit_bias: dict[str, float] | None
    stream: bool | None
    stream_options: StreamOptions | None
    tools: list[Tool] | list[str] | None  # strings are the names of CLI tools
    tool_choice: str | dict[str, Any] | None
    parallel_tool_calls: bool | None
    functions: list[FunctionDefinition] | None
    function_call: str | dict[str, Any] | None
    response_format: dict[str, Any] | None
    reasoning_effort: str | None
    reasoning: dict[str, Any] | None  # OpenRouter's
    verbosity: str | None
    modalities: list[str] | None
    audio: dict[str, Any] | None
    prediction: dict[str, Any] | None
    metadata: dict[str, str] | None
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    service_tier: str | None
    store: bool | None
    web_search_options: dict[str, Any] | None
    # the gateway's own
    backend: str | None
    session_id: str | None
    working_directory: str | None
    cli_tools: list[str] | None
    allowed_tools: list[str] | None
    disallowed_tools: list[str] | None


# --- what is answered -------------------------------------------------------------------------------------------


class PromptTokensDetails(TypedDict, total=False):
    cached_tokens: int
    cache_write_tokens: int
    audio_tokens: int


class CompletionTokensDetails(TypedDict, total=False):
    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class CompletionUsage(TypedDict):
    prompt_tokens: int  # cached and cache-written ones included
    completion_tokens: int  # reasoning included
    total_tokens: int
    prompt_tokens_details: NotRequired[PromptTokensDetails | None]
    completion_tokens_details: NotRequired[CompletionTokensDetails | None]


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: NotRequired[str | None]
    tool_calls: NotRequired[list[ToolCall]]
    function_call: NotRequired[FunctionCall]
    annotations: NotRequired[list[dict[str, Any]]]
    audio: NotRequired[dict[str, Any] | None]
    images: NotRequired[list[dict[str, Any]]]
    reasoning_content: NotRequired[str | None]
    reasoning_details: NotRequired[list[dict[str, Any]]]


class Choice(TypedDict):
    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: NotRequired[dict[str, Any] | None]
    native_finish_reason: NotRequired[str | None]


class ChatCompletion(TypedDict):
    """One whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int  # Unix seconds
    model: str
    choices: list[Choice]
    usage: NotRequired[CompletionUsage | None]
    system_fingerprint: NotRequired[str | None]
    service_tier: NotRequired[str | None]
    degraded: NotRequired[bool]  # the last three are the gateway's own
    session_id: NotRequired[str]
    gateway: NotRequired[dict[str, Any]]


class FunctionCallDelta(TypedDict, total=False):
    name: str
    arguments: str  # the next piece of the JSON text


class CustomCallDelta(TypedDict, total=False):
    name: str
    input: str  # the next piece


class ToolCallDelta(TypedDict):
    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function", "custom"]]
    function: NotRequired[FunctionCallDelta]
    custom: NotRequired[CustomCallDelta]


class Delta(TypedDict, total=False):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ToolCallDelta]
    function_call: FunctionCallDelta
    reasoning_content: str | None
    reasoning_details: list[dict[str, Any]]


class ChunkChoice(TypedDict):
    index: int
    delta: Delta
    finish_reason: FinishReason | None
    logprobs: NotRequired[dict[str, Any] | None]


class ChatCompletionChunk(TypedDict):
    """One piece of a streamed answer. `choices` is empty in the piece that carries the usage."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[CompletionUsage | None]
    system_fingerprint: NotRequired[str | None]
    degraded: NotRequired[bool]
    session_id: NotRequired[str]
    gateway: NotRequired[dict[str, Any]]
