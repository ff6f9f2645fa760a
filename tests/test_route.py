"""Routing: the one fixed order of contract 1.5."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gw.backend import Backend, Backends, Price
from gw.errors import Forbidden, GatewayError, InvalidRequest, NotFound, Unavailable
from gw.message import Principal, Request, Response
from gw.middleware.route import Route, RuleTable
from gw.routing import Target
from gw.rules import parse_rule
from tests.fakes import FakeClock, chat_request, fake_backend
from tests.lint import Lint

ALL = frozenset({"functions", "images", "stream"})
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]
TOOL = {"type": "function", "function": {"name": "f"}}


def route(*backends: Backend, **options: Any) -> Route:
    return Route(backends=Backends(backends), **options)


def chosen(router: Route, request: Request | None = None, **chat: Any) -> list[tuple[str, str]]:
    decision = router.decide(request or chat_request(chat))
    return [(candidate.backend.name, candidate.model) for candidate in decision.candidates]


def test_the_backend_in_the_url_is_used_and_gets_the_model_as_named() -> None:
    router = route(fake_backend("a"), fake_backend("gemini-1.5-pro", models={"x": "y"}))
    request = chat_request({"model": "gpt-4"}, parameters={"backend": "gemini-1.5-pro"})
    assert chosen(router, request) == [("gemini-1.5-pro", "gpt-4")]


def test_the_backend_in_the_body_is_used() -> None:
    assert chosen(route(fake_backend("a"), fake_backend("b")), backend="b") == [("b", "gpt-4")]


def test_a_model_written_backend_slash_model_names_the_backend() -> None:
    router = route(fake_backend("a"), fake_backend("b"))
    assert chosen(router, model="b/llama3") == [("b", "llama3")]
    assert chosen(router, model="meta/llama3")[0] == ("a", "meta/llama3")


def test_a_name_that_is_listed_means_just_that_even_where_it_begins_with_a_backends_name() -> None:
    openai = fake_backend("openai", models={"gpt-5": "gpt-5"}, problem="no key, set OPENAI_API_KEY")
    rule = RuleTable(when="model: openai/fast", backend="b")
    router = route(openai, fake_backend("a", models={"openai/gpt-4o": "x"}), fake_backend("b", model="y"), rules=[rule])
    assert set(router.model_names()) >= {"openai/gpt-4o", "openai/fast"}
    assert chosen(router, model="openai/gpt-4o")[0] == ("a", "x")
    assert chosen(router, model="openai/fast") == [("b", "y")]
    with pytest.raises(Unavailable, match='backend "openai" is not ready'):
        router.decide(chat_request({"model": "openai/gpt-4o-mini"}))
    with pytest.raises(Unavailable, match='backend "openai" is not ready'):
        router.decide(chat_request({"model": "openai/gpt-4o", "backend": "openai"}))


def test_url_and_body_that_differ_are_refused() -> None:
    router = route(fake_backend("a"), fake_backend("b"))
    with pytest.raises(InvalidRequest, match="name one"):
        router.decide(chat_request({"backend": "b"}, parameters={"backend": "a"}))


def test_an_unknown_backend_is_a_404_with_the_near_name() -> None:
    with pytest.raises(NotFound, match='did you mean "openrouter-glm"') as caught:
        route(fake_backend("openrouter-glm")).decide(chat_request({"backend": "openrouter-gml"}))
    assert caught.value.code == "backend_not_found"


def test_an_explicit_backend_that_is_not_ready_is_an_error_with_its_cure() -> None:
    router = route(fake_backend("a"), fake_backend("b", problem="no key, set B_KEY"))
    with pytest.raises(Unavailable, match="no key, set B_KEY"):
        router.decide(chat_request({"backend": "b"}))


def test_the_first_matching_rule_decides() -> None:
    rules = [
        RuleTable(when="model: claude-*", backend="claude"),
        RuleTable(when="has_tools: true", backend="tools"),
        RuleTable(when="has_images: true", backend="eyes"),
    ]
    router = route(fake_backend("claude"), fake_backend("tools"), fake_backend("eyes"), fake_backend("d"), rules=rules)
    assert chosen(router, model="claude-3", tools=[TOOL]) == [("claude", "claude-3")]
    assert chosen(router, tools=[TOOL])[0][0] == "tools"
    assert chosen(router, messages=IMAGE)[0][0] == "eyes"
    assert chosen(router)[0][0] == "claude"  # no rule: the first in order


def test_a_rule_may_list_candidates_with_models_of_their_own() -> None:
    rule = RuleTable(when="model: fast", backends=[Target("a", "gpt-5-mini"), Target("b", "llama3")])
    backends = [fake_backend("a", models={"x": "y"}), fake_backend("b"), fake_backend("c")]
    router = route(*backends, rules=[rule])
    assert chosen(router, model="fast") == [("a", "gpt-5-mini"), ("b", "llama3")]
    assert "fast" in router.model_names()


def test_a_rules_conditions_are_joined_by_and() -> None:
    rule = RuleTable(when="model: gpt-* and stream: true", backend="b")
    router = route(fake_backend("a"), fake_backend("b"), rules=[rule])
    assert chosen(router, stream=True)[0][0] == "b"
    assert chosen(router)[0][0] == "a"


@pytest.mark.parametrize("text", ["has_tols: true", "has_tools: maybe", "model", "tokens: many"])
def test_a_rule_that_cannot_be_read_is_refused_at_load(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|true or false|comparison"):
        parse_rule(text)


def test_a_rule_may_look_at_headers_keys_and_size() -> None:
    rules = [
        RuleTable(when="header X-Team: red*", backend="red"),
        RuleTable(when="key: ci", backend="ci"),
        RuleTable(when="tokens: > 100", backend="big"),
    ]
    router = route(fake_backend("d"), fake_backend("red"), fake_backend("ci"), fake_backend("big"), rules=rules)
    assert chosen(router, chat_request(headers={"X-Team": "redish"}))[0][0] == "red"
    assert chosen(router, chat_request(principal=Principal("ci")))[0][0] == "ci"
    assert chosen(router, messages=[{"role": "user", "content": "x" * 500}])[0][0] == "big"


def test_an_unknown_model_is_openais_404() -> None:
    router = route(fake_backend("a", models={"gpt-4": "x"}))
    with pytest.raises(NotFound, match="The model `invalid-model` does not exist") as caught:
        router.decide(chat_request({"model": "invalid-model"}))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_an_unknown_model_is_only_a_hint_where_so_configured() -> None:
    router = route(fake_backend("a", models={"gpt-4": "x"}), unknown_model="route")
    assert chosen(router, model="claude-3-5-sonnet-20241022") == [("a", "x")]


def test_a_mapping_names_the_upstream_model_and_the_client_reads_its_own_name() -> None:
    router = route(fake_backend("a", models={"gpt-4": "gemini-1.5-pro"}))
    candidate = router.decide(chat_request()).candidates[0]
    assert (candidate.model, candidate.answers_as) == ("gemini-1.5-pro", "gpt-4")


def test_auto_and_no_model_leave_the_choice_to_the_gateway() -> None:
    router = route(Backend(name="a", kind="openai"), fake_backend("b", model="glm"))
    for chat in ({"model": "auto"}, {"model": None}):
        candidate = router.decide(chat_request(chat)).candidates[0]
        assert (candidate.backend.name, candidate.model, candidate.answers_as) == ("b", "glm", "glm")


def test_a_backend_without_a_model_is_asked_for_those_that_clients_name_and_never_listed() -> None:
    router = route(Backend(name="groq", kind="openai"), fake_backend("any", model="cheap"))
    assert router.model_names() == ["any"]
    assert chosen(router, model="llama-x") == [("groq", "llama-x"), ("any", "cheap")]
    with pytest.raises(InvalidRequest, match='"groq" has no model of its own: name one in `model`'):
        router.decide(chat_request({"model": "groq"}))
    mapped = route(Backend(name="groq", kind="openai"), fake_backend("any", models={"groq": "cheap"}))
    assert chosen(mapped, model="groq") == [("any", "cheap")]


def test_echo_does_not_answer_for_a_ready_backend_that_has_to_be_told_a_model() -> None:
    echo = fake_backend("echo", model="echo", explicit_only=True)
    with pytest.raises(InvalidRequest, match='"groq" has no model of its own: name one in `model`'):
        route(Backend(name="groq", kind="openai"), echo).decide(chat_request({"model": "auto"}))
    waiting = Backend(name="groq", kind="openai", problem="no key, set GROQ_API_KEY")
    assert chosen(route(waiting, echo), model="auto") == [("echo", "echo")]


def test_a_backend_that_answers_by_itself_needs_no_model_to_be_chosen() -> None:
    assert chosen(route(fake_backend("parrot")), model="auto") == [("parrot", "parrot")]
    assert chosen(route(fake_backend("parrot")), model="parrot") == [("parrot", "parrot")]


def test_echo_answers_only_when_nobody_else_is_ready() -> None:
    echo = fake_backend("echo", model="echo", explicit_only=True)
    other = fake_backend("a", model="m", problem="no key")
    assert chosen(route(echo, other), model="auto") == [("echo", "echo")]
    other.problem = None
    assert chosen(route(echo, other), model="auto") == [("a", "m")]
    assert chosen(route(echo, other), model="echo")[0] == ("echo", "echo")


def test_a_capability_that_nobody_has_is_a_400_that_names_it() -> None:
    router = route(fake_backend("a", capabilities=frozenset({"stream"})))
    with pytest.raises(InvalidRequest, match="cannot read images") as caught:
        router.decide(chat_request({"messages": IMAGE}))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "messages")
    with pytest.raises(InvalidRequest, match="CLI tools"):
        router.decide(chat_request({"tools": ["Read", "Glob"]}))


def test_tools_as_objects_do_not_go_to_a_cli_backend_and_strings_go_only_there() -> None:
    cli = fake_backend("cli", capabilities=frozenset({"cli_tools", "stream"}))
    router = route(fake_backend("api"), cli)
    assert chosen(router, tools=["Read"]) == [("cli", "gpt-4")]
    assert chosen(router, tools=[TOOL]) == [("api", "gpt-4")]
    assert chosen(router, working_directory="/x") == [("cli", "gpt-4")]


def test_plain_chat_goes_to_a_cli_backend_only_as_the_last_resort() -> None:
    cli = fake_backend("cli", capabilities=frozenset({"cli_tools", "stream"}))
    assert [name for name, _ in chosen(route(cli, fake_backend("api"), prefer_cheapest=True))] == ["api", "cli"]
    assert chosen(route(cli)) == [("cli", "gpt-4")]


def test_a_request_whose_tools_nobody_can_run_is_answered_without_them_if_so_configured() -> None:
    backends = Backends([fake_backend("a")])
    backends.drop_tools = True
    router = Route(backends=backends)
    seen: list[Request] = []

    async def terminal(request: Request) -> Response:
        seen.append(request)
        return Response(b"")

    request = chat_request({"tools": ["Read"], "working_directory": "/x"})
    asyncio.run(router(request, terminal))
    assert "tools" not in seen[0].chat
    assert "working_directory" not in seen[0].chat
    assert request.exchange.degraded


def test_the_cheapest_is_reckoned_from_the_price_of_this_request() -> None:
    dear_input = fake_backend("in", price=Price(input=10, output=0))
    dear_output = fake_backend("out", price=Price(input=0.1, output=10))
    flat = fake_backend("flat", cost_per_request=0.02)
    unknown = fake_backend("unknown")
    router = route(unknown, flat, dear_input, dear_output, prefer_cheapest=True)
    assert [name for name, _ in chosen(router)] == ["in", "out", "flat", "unknown"]
    long = [{"role": "user", "content": "x" * 40_000}]
    assert [name for name, _ in chosen(router, messages=long)] == ["out", "flat", "in", "unknown"]


def test_the_default_backend_comes_first_then_the_chain() -> None:
    backends = Backends([fake_backend("a"), fake_backend("b"), fake_backend("c"), fake_backend("d", price=Price(1))])
    backends.chain = ("d", "a")
    router = Route(backends=backends, default_backend="c")
    assert next(name for name, _ in chosen(router)) == "c"
    backends = Backends([fake_backend(name, kind=name) for name in "abcd"])
    backends.chain = ("d", "a")
    assert [name for name, _ in chosen(Route(backends=backends, default_backend="c"))] == ["c", "d", "a"]


def test_equals_take_turns_and_others_do_not() -> None:
    one, two = (fake_backend(name, models={"gpt-4": "gemini-1.5-pro"}) for name in ("one", "two"))
    other = fake_backend("other", models={"gpt-4": "claude"}, kind="anthropic")
    router = route(one, two, other)
    assert [chosen(router)[0][0] for _ in range(4)] == ["one", "two", "one", "two"]


def test_all_who_serve_the_model_take_turns_where_so_configured() -> None:
    one = fake_backend("one", models={"gpt-4": "gemini"})
    two = fake_backend("two", models={"gpt-4": "claude"}, kind="anthropic")
    router = route(one, two, balance="all")
    assert [chosen(router)[0][0] for _ in range(4)] == ["one", "two", "one", "two"]


def test_turns_go_by_weight() -> None:
    one, two = fake_backend("one", weight=3), fake_backend("two")
    router = route(one, two)
    assert [chosen(router)[0][0] for _ in range(4)] == ["one", "one", "two", "one"]


def test_a_backend_that_cools_down_is_left_out_and_the_answer_is_degraded() -> None:
    clock = FakeClock()
    a, b = (fake_backend(name, kind=name, clock=clock) for name in "ab")
    a.cool(10)
    decision = route(a, b).decide(chat_request())
    assert [candidate.backend.name for candidate in decision.candidates] == ["b"]
    assert decision.degraded
    clock.now += 11
    assert not route(a, b).decide(chat_request()).degraded


def test_all_cooling_is_a_503_with_the_soonest_return() -> None:
    clock = FakeClock()
    a, b = (fake_backend(name, clock=clock) for name in "ab")
    a.cool(30)
    b.cool(12.2)
    with pytest.raises(Unavailable, match="No backends currently available") as caught:
        route(a, b).decide(chat_request())
    assert caught.value.retry_after == 13


def test_a_long_prompt_goes_to_the_longest_context() -> None:
    small, large = fake_backend("s", context_length=200_000), fake_backend("l", kind="l", context_length=1_000_000)
    router = route(small, large, long_context_tokens=1000)
    long = [{"role": "user", "content": "x" * 8000}]
    assert chosen(router, messages=long)[0][0] == "l"
    assert chosen(router)[0][0] == "s"


def test_a_prompt_that_fits_nowhere_is_context_length_exceeded() -> None:
    with pytest.raises(InvalidRequest) as caught:
        route(fake_backend("a", context_length=10)).decide(
            chat_request({"messages": [{"role": "user", "content": "x" * 100}]})
        )
    assert caught.value.code == "context_length_exceeded"


def test_a_key_uses_only_what_it_may() -> None:
    router = route(fake_backend("a"), fake_backend("b"))
    principal = Principal("ci", backends=frozenset({"b"}), models=frozenset({"gpt-4"}))
    assert chosen(router, chat_request(principal=principal)) == [("b", "gpt-4")]
    for chat in ({"backend": "a"}, {"model": "gpt-5"}):
        with pytest.raises(Forbidden) as caught:
            router.decide(chat_request(chat, principal=principal))
        assert caught.value.code == "forbidden_backend"


def test_an_unknown_session_is_a_404() -> None:
    with pytest.raises(NotFound) as caught:
        route(fake_backend("a")).decide(chat_request({"session_id": "0" * 8}))
    assert caught.value.code == "session_not_found"


def test_route_writes_the_candidates_and_touches_nothing_else() -> None:
    outer, inner = Lint("outer"), Lint("inner")
    router = route(fake_backend("a"))
    seen: list[Request] = []

    async def terminal(request: Request) -> Response:
        seen.append(request)
        return Response(b"")

    async def run() -> None:
        request = chat_request()
        before = request.document.raw if request.document else b""
        await outer(request, lambda r: router(r, lambda q: inner(q, terminal)))
        assert seen[0].document is request.document
        assert request.document is not None
        assert not request.document.is_opened
        assert request.document.raw is before

    asyncio.run(run())
    assert seen[0].candidate.backend.name == "a"


def test_nobody_at_all_says_why_for_each() -> None:
    router = route(fake_backend("a", problem="no key, set A_KEY"), fake_backend("b", enabled=False))
    with pytest.raises(GatewayError, match="a: no key, set A_KEY; b: disabled"):
        router.decide(chat_request({"model": "auto"}))
