"""An OpenAI chat request as the body of Anthropic's Messages API, byte for byte the same for the same conversation.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from gw.adapters.anthropic.limits import asked_limit, default_limit, sampling, stop_sequences
from gw.adapters.anthropic.messages import Conversation, trim_prefill, used_tools
from gw.adapters.anthropic.plan import Plan
from gw.adapters.anthropic.thinking import Thinking, asked_thinking, without
from gw.adapters.anthropic.tools import choose, closed, encode_tools, stub_tools, web_search
from gw.chat_parts import is_deprecated, refusal, with_tools
from gw.json_schema import may_be_input
from gw.losses import NEUTRAL, escape

# Fields that are carried over, or that are the gateway's own business.
_KNOWN = frozenset(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "n",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "reasoning",
        "user",
        "safety_identifier",
        "service_tier",
        "modalities",
        "audio",
        "web_search_options",
        "anthropic",
        "functions",
        "function_call",
        "backend",
        "session_id",
    ]
)
_PLAIN = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature", "top_p"}
    | {"stop", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "backend"}
    | {"session_id"}
)
# Values that say nothing: leaving them out loses nothing.
_HARMLESS: dict[str, Any] = {**NEUTRAL, "logit_bias": {}, "metadata": {}, "prompt_cache_key": ""}
_FIXED = ("model", "stream", "messages")  # what the `anthropic` field may not replace
# E-mail addresses and telephone numbers are refused as metadata.user_id.
_PERSONAL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+|\+?[\d\s().-]{7,20}")
_MAX_USER_ID = 256  # characters


def encode(chat: Mapping[str, Any], plan: Plan, model: str, max_tokens: int | None) -> dict[str, Any]:
    """The body for `model`, with what it cost noted in the plan. `max_tokens` is the configured default.

    Keys stand in a fixed order with `messages` last, so that a conversation that grew by a turn has the same prefix.
    Raises InvalidRequest for what Claude cannot do.
    """
    is_plain = chat.keys() <= _PLAIN  # most requests: nothing of what is looked for below is in them
    if not is_plain:
        _tell_unknown(chat, plan)
        _refuse_impossible(chat, plan)
    if is_deprecated(chat):
        plan.is_deprecated = True
        plan.lose("/functions", "emulated", "they travel as tools")
        chat = with_tools(chat)
    tools = encode_tools(chat.get("tools"), plan)
    is_tools_stubbed = False
    if not tools and (names := used_tools(chat["messages"])):
        tools, is_tools_stubbed = stub_tools(names, plan), True
    conversation = Conversation(plan)
    conversation.read(chat["messages"])
    limit = asked_limit(chat, plan)
    thinking = _thinking(chat, limit, conversation, plan)
    tools, choice, instruction = choose(chat, tools, thinking.is_on, plan)
    if is_tools_stubbed:
        choice, instruction = {"type": "none"}, ""
    search = chat.get("web_search_options")
    if search is not None and choice is not None and choice["type"] == "none":
        choice, instruction = None, "Call no tool but web_search."  # "none" would forbid that too
        if not is_tools_stubbed:
            plan.lose("/tool_choice", "emulated", "Claude is told to call none of them, and may search")
    # A call that is forced is no search: the form then is asked for in words.
    form = _Form(chat.get("response_format"), tools, choice, thinking.is_on or search is not None, plan)
    system = conversation.system
    for text in (instruction, form.instruction):
        if text:
            system.append({"type": "text", "text": text})
    if search is not None:
        form.tools.append(web_search(search, plan))
    if plan.marked:
        plan.limit_marks()
    body: dict[str, Any] = {"model": model, "max_tokens": limit or default_limit(max_tokens, thinking.budget, plan)}
    if chat.get("stream"):
        body["stream"] = True
        options = chat.get("stream_options")
        if isinstance(options, dict) and options.get("include_obfuscation"):
            plan.lose("/stream_options/include_obfuscation", "dropped", "Claude does not pad its stream")
    body |= sampling(chat, thinking.is_on, plan)
    _put(body, "stop_sequences", stop_sequences(chat, plan))
    _put(body, "thinking", thinking.config)
    _put(body, "output_config", form.output_config(thinking))
    if not is_plain:
        _put(body, "metadata", _metadata(chat, plan))
        _put(body, "service_tier", _service_tier(chat, plan))
    _put(body, "tool_choice", form.choice)
    _put(body, "tools", form.tools)
    _put(body, "system", system)
    if not is_plain:
        _add_own(chat, body, plan)
    body["messages"] = conversation.turns
    return body


def _put(body: dict[str, Any], name: str, value: Any) -> None:
    if value:
        body[name] = value


def _tell_unknown(chat: Mapping[str, Any], plan: Plan) -> None:
    for name, value in chat.items():
        if name not in _KNOWN and value is not None and not (name in _HARMLESS and value == _HARMLESS[name]):
            plan.lose(f"/{escape(name)}", "dropped")


def _refuse_impossible(chat: Mapping[str, Any], plan: Plan) -> None:
    if chat.get("n") not in (None, 1):
        raise plan.cannot("/n", "give several choices: ask with n = 1, several times")
    if chat.get("audio") is not None or "audio" in (chat.get("modalities") or ()):
        raise plan.cannot("/audio" if chat.get("audio") is not None else "/modalities", "speak: only text is written")
    if set(chat.get("modalities") or ()) - {"text"}:
        raise plan.cannot("/modalities", "answer in anything but text")


def _thinking(chat: Mapping[str, Any], limit: int | None, conversation: Conversation, plan: Plan) -> Thinking:
    thinking = asked_thinking(chat, limit, plan)
    cap = plan.model.max_output
    if cap is not None and thinking.budget >= cap:
        thinking = without(thinking, f"a budget of {thinking.budget} leaves nothing of {cap} tokens", plan)
    if conversation.ends_with_assistant:
        if not plan.model.has("prefill"):
            last = len(chat["messages"]) - 1
            raise plan.cannot(f"/messages/{last}", f"continue an assistant message with {plan.model.name}")
        thinking = without(thinking, "Claude continues a text without thinking", plan)
        trim_prefill(conversation.turns)
    elif thinking.budget and conversation.is_loop_unsigned and conversation.ends_in_loop:
        # Only with a budget: with adaptive thinking earlier turns need not begin with a thinking block
        # (platform.claude.com, "Adaptive thinking", "Validation changes").
        thinking = without(thinking, "the signed thinking of this tool loop is lost", plan)
    return thinking


def _metadata(chat: Mapping[str, Any], plan: Plan) -> dict[str, Any] | None:
    sent: dict[str, Any] | None = None
    for name in ("safety_identifier", "user"):
        user = chat.get(name)
        if not user or (sent is not None and sent["user_id"] == user):
            continue
        if sent is not None:
            plan.lose("/" + name, "dropped", "Claude is told of one user, and that is the safety_identifier")
            continue
        if not isinstance(user, str) or len(user) > _MAX_USER_ID or _PERSONAL.fullmatch(user.strip()):
            plan.lose("/" + name, "dropped", "an e-mail address, a telephone number or too long")
            continue
        sent = {"user_id": user}
    return sent


def _service_tier(chat: Mapping[str, Any], plan: Plan) -> str | None:
    tier = chat.get("service_tier")
    if tier in (None, "auto"):
        return tier
    if tier == "default":
        return "standard_only"
    plan.lose("/service_tier", "dropped", "Anthropic knows auto and default")
    return None


def _add_own(chat: Mapping[str, Any], body: dict[str, Any], plan: Plan) -> None:
    """Let Anthropic's own parameters through, from the field `anthropic`; they win over what was translated."""
    own = chat.get("anthropic")
    if own is None:
        return
    if not isinstance(own, dict):
        raise refusal("/anthropic", "anthropic must be an object of the Messages API's own parameters")
    for name, value in own.items():
        if name in _FIXED:
            raise refusal(f"/anthropic/{name}", f"{name} is set by the request itself")
        if name != "betas":
            body[name] = value


class _Form:
    """How a `response_format` is asked for: natively, by a forced tool, or by an instruction."""

    __slots__ = ("_native", "choice", "instruction", "tools")

    def __init__(
        self,
        form: Any,
        tools: list[dict[str, Any]],
        choice: dict[str, Any] | None,
        is_free: bool,
        plan: Plan,
    ) -> None:
        """`is_free`: no call may be forced."""
        self.tools = tools
        self.choice = choice
        self.instruction = ""
        self._native: dict[str, Any] | None = None
        if form is None:
            return
        kind = form.get("type") if isinstance(form, dict) else None
        if kind == "text":
            return
        if kind == "json_object":
            self.instruction = "Answer with one JSON object and nothing else: no prose, no code fence."
            plan.lose("/response_format", "emulated", "asked for in words")
        elif kind == "json_schema" and isinstance(form.get("json_schema"), dict):
            self._use_schema(form["json_schema"], is_free, plan)
        else:
            raise refusal("/response_format/type", "response_format is text, json_object or json_schema with a schema")

    def _use_schema(self, named: Mapping[str, Any], is_free: bool, plan: Plan) -> None:
        pointer = "/response_format/json_schema/schema"
        schema = named.get("schema")
        if not isinstance(schema, dict):
            raise refusal(pointer, "json_schema needs a schema")
        fitted = closed(schema, pointer) if plan.model.has("structured") else None
        if named.get("strict") and (fitted is None or fitted.losses):
            plan.strict_schema = schema
        if fitted is not None:
            self._native = {"type": "json_schema", "schema": fitted.schema}
            plan.losses += fitted.losses
        elif plan.model.has("forced_tool") and not is_free and self._may_force():
            self._use_tool(named, schema, plan)
        else:
            text = orjson.dumps(schema).decode()
            self.instruction = (
                "Answer with one JSON value and nothing else, no prose and no code fence. "
                f"It must be valid against this JSON schema: {text}"
            )
            held = "is checked" if plan.strict_schema is not None else "is not checked without strict"
            plan.lose("/response_format", "emulated", f"asked for in words; the answer {held}")

    def _may_force(self) -> bool:
        # A tool that the client itself forces must be called; the answer's form then matters in a later turn.
        return self.choice is None or self.choice["type"] in ("auto", "none")

    def _use_tool(self, named: Mapping[str, Any], schema: dict[str, Any], plan: Plan) -> None:
        taken = {tool["name"] for tool in self.tools}
        name = "json_answer"
        while name in taken:
            name += "_"
        plan.answer_tool = name
        plan.answer_wrapped = not may_be_input(schema)
        if plan.answer_wrapped:
            definitions: dict[str, Any] = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
            answer = {name: value for name, value in schema.items() if name not in definitions}
            schema = {"type": "object", "properties": {"answer": answer}, "required": ["answer"], **definitions}
        tool: dict[str, Any] = {"name": name, "description": "Give the final answer.", "input_schema": schema}
        if isinstance(named.get("description"), str):
            tool["description"] = f"Give the final answer: {named['description']}"
        others = self.tools if self.choice is None or self.choice["type"] == "auto" else []
        self.tools = [*self.tools, tool]
        forced: dict[str, Any] = {"type": "any"} if others else {"type": "tool", "name": name}
        if self.choice is not None and self.choice.get("disable_parallel_tool_use"):
            forced["disable_parallel_tool_use"] = True
        self.choice = forced
        plan.lose("/response_format", "emulated", "the answer is the input of a tool that Claude must call")

    def output_config(self, thinking: Thinking) -> dict[str, Any]:
        """Claude's `output_config`; {} where there is nothing to say."""
        config: dict[str, Any] = {}
        if thinking.effort:
            config["effort"] = thinking.effort
        if self._native is not None:
            config["format"] = self._native
        return config


def betas_of(chat: Mapping[str, Any]) -> list[str]:
    """The beta names that a client asks for in `anthropic.betas`."""
    own = chat.get("anthropic")
    betas = own.get("betas") if isinstance(own, dict) else None
    return [beta for beta in betas if isinstance(beta, str)] if isinstance(betas, list) else []
