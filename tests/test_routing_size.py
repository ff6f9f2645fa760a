"""The size of a request: what it costs where, whose context it fits in, and how it is estimated."""

from __future__ import annotations

from typing import Any

import pytest

from gw.backend import Backend, Backends, Price
from gw.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from gw.message import Principal, Request
from gw.middleware.route import Route, RuleTable
from gw.models import LongPrice, catalogue
from gw.wants import estimated_tokens, survey
from tests.fakes import chat_request, fake_backend

TOOL = {"type": "function", "function": {"name": "f", "description": "d" * 4000}}


def route(*backends: Backend, **options: Any) -> Route:
    return Route(backends=Backends(backends), **options)


def order(router: Route, **chat: Any) -> list[str]:
    return [candidate.backend.name for candidate in router.decide(chat_request(chat)).candidates]


def text(tokens: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "x" * 4 * tokens}]


def test_the_answers_cap_counts_in_the_price() -> None:
    dear_answers = fake_backend("answers", price=Price(1, 100))
    dear_prompts = fake_backend("prompts", price=Price(20, 1))
    router = route(dear_answers, dear_prompts, prefer_cheapest=True)
    assert order(router, messages=text(1000))[0] == "prompts"
    assert order(router, messages=text(1000), max_tokens=5)[0] == "answers"
    assert order(router, messages=text(1000), max_completion_tokens=5)[0] == "answers"
    assert order(router, messages=text(1000), max_tokens=50_000)[0] == "prompts"  # a high cap says nothing
    assert order(router, messages=text(1000), max_tokens=50, n=20)[0] == "prompts"


def test_functions_are_part_of_the_prompt() -> None:
    assert estimated_tokens({"messages": text(10), "tools": [TOOL]}) > 1000
    assert estimated_tokens({"messages": text(10), "tools": ["Read"]}) == 10
    router = route(fake_backend("a"), rules=[RuleTable(when="tokens: > 900", backend="a")])
    assert router.decide(chat_request({"tools": [TOOL]})).candidates[0].reason.startswith("rule")


def test_what_calls_said_and_pictures_are_part_of_the_prompt() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "y" * 400}}
    messages = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "z" * 40}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
    ]
    asked, tokens = survey({"messages": messages})
    assert asked.images
    assert tokens == 110 + 800


def test_a_price_that_rises_with_the_prompt_is_the_price_of_this_prompt() -> None:
    rising = fake_backend("rising", price=LongPrice(1, 1, above=10_000, long=Price(4, 4)))
    steady = fake_backend("steady", price=Price(2, 2))
    router = route(rising, steady, prefer_cheapest=True)
    assert order(router, messages=text(5_000))[0] == "rising"
    assert order(router, messages=text(50_000))[0] == "steady"


def test_list_prices_are_those_of_the_model_that_would_be_asked() -> None:
    prices = {"large": Price(10, 10), "small": Price(1, 1)}
    one = fake_backend("one", models={"gpt-4": "large", "gpt-mini": "small"}, prices=prices.get)
    two = fake_backend("two", models={"gpt-4": "small", "gpt-mini": "large"}, prices=prices.get)
    router = route(one, two, prefer_cheapest=True)
    assert order(router, model="gpt-4")[0] == "two"
    assert order(router, model="gpt-mini")[0] == "one"


def test_who_has_no_room_is_left_out_with_the_reason() -> None:
    router = route(fake_backend("s", context_length=1000), fake_backend("l", context_length=9000))
    decision = router.decide(chat_request({"messages": text(2000)}))
    assert [candidate.backend.name for candidate in decision.candidates] == ["l"]
    assert decision.skipped == [("s", "its context of 1000 tokens is too short for about 2000")]
    assert order(router, messages=text(1000)) == ["s", "l"]


def test_context_lengths_of_known_models_are_known() -> None:
    small, large = (
        fake_backend(name, models={"m": model}) for name, model in (("s", "gpt-4o"), ("l", "claude-opus-4-8"))
    )
    router = route(small, large, catalogue=catalogue())
    assert order(router, model="m", messages=text(150_000)) == ["l"]
    assert order(router, model="m", messages=text(50_000)) == ["s", "l"]


def test_a_configured_length_goes_before_the_known_one() -> None:
    backend = fake_backend("s", models={"m": "gpt-4o"}, context_length=1_000_000)
    other = fake_backend("l", models={"m": "x"})
    assert order(route(backend, other, catalogue=catalogue()), model="m", messages=text(150_000)) == ["s", "l"]


def test_a_backend_that_is_added_later_has_its_room_too() -> None:
    backends = Backends([fake_backend("l", kind="l", context_length=9000)])
    router = Route(backends=backends, default_backend="s")
    backends.add(fake_backend("s", context_length=1000))
    assert order(router, messages=text(900)) == ["s", "l"]
    assert order(router, messages=text(1100)) == ["l"]


def test_an_estimate_alone_refuses_nothing_that_may_fit() -> None:
    router = route(fake_backend("s", context_length=500), fake_backend("l", context_length=1000))
    assert order(router, messages=text(1900)) == ["l"]
    with pytest.raises(InvalidRequest, match=r"about 2001 tokens .* is 1000") as caught:
        order(router, messages=text(2001))
    assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")


def test_a_rule_looks_at_the_room_of_its_own_list() -> None:
    rule = RuleTable(when="model: x", backends=["s", "l"])
    router = route(fake_backend("s", context_length=100), fake_backend("l"), rules=[rule])
    assert order(router, model="x", messages=text(90)) == ["s", "l"]
    assert order(router, model="x", messages=text(110)) == ["l"]


def test_a_long_prompt_goes_to_the_longest_of_those_that_have_room_and_to_the_unknown_last() -> None:
    lengths = {"unknown": None, "m": 300_000, "l": 1_000_000}
    backends = [fake_backend(name, kind=name, context_length=length) for name, length in lengths.items()]
    router = route(*backends)
    assert order(router, messages=text(100_001)) == ["l", "m", "unknown"]
    assert order(router, messages=text(100_000)) == ["unknown", "m", "l"]
    assert router.decide(chat_request({"messages": text(100_001)})).candidates[0].reason == (
        "long context: 1000000 tokens"
    )


# --- names --------------------------------------------------------------------------------------------------------


def test_a_backends_own_name_as_the_model_means_that_backend_first() -> None:
    a, b = fake_backend("a", model="m", price=Price(1, 1)), fake_backend("b", model="n", price=Price(9, 9))
    for options in ({}, {"prefer_cheapest": True}, {"default_backend": "a"}, {"balance": "all"}):
        decision = route(a, b, **options).decide(chat_request({"model": "b"}))
        assert [(c.backend.name, c.model) for c in decision.candidates] == [("b", "n"), ("a", "m")]
        assert decision.candidates[0].reason == "named by the model"


@pytest.mark.parametrize("fields", [{}, {"backend": "one"}, {"parameters": {"backend": "one"}}])
def test_a_backend_and_a_slash_without_a_model_is_a_404_that_says_what_to_write(fields: dict[str, Any]) -> None:
    router = route(fake_backend("zero"), fake_backend("one"))
    chat = {"model": "one/"} | {key: value for key, value in fields.items() if key == "backend"}
    request: Request = chat_request(chat, **{key: value for key, value in fields.items() if key == "parameters"})
    with pytest.raises(NotFound, match="write `one/MODEL`") as caught:
        router.decide(request)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_key_that_may_use_nobody_who_serves_the_model_is_a_403() -> None:
    router = route(fake_backend("a"), fake_backend("b", models={"other": "x"}), fake_backend("c", problem="no key"))
    ours = Principal("ci", backends=frozenset({"b"}))
    with pytest.raises(Forbidden, match=r'key "ci" may not use a backend that serves this \(a, c\)') as caught:
        router.decide(chat_request(principal=ours))
    assert (caught.value.status, caught.value.code) == (403, "forbidden_backend")
    with pytest.raises(Unavailable, match="no key"):
        router.decide(chat_request(principal=Principal("ci", backends=frozenset({"c"}))))


def test_where_nobody_is_ready_the_client_is_told_when_to_come_back() -> None:
    router = route(fake_backend("a", problem="no key, set A_KEY"))
    for chat in ({}, {"backend": "a"}):
        with pytest.raises(Unavailable) as caught:
            router.decide(chat_request(chat))
        assert caught.value.retry_after


def test_who_is_not_in_the_chain_is_left_out_with_the_reason() -> None:
    backends = Backends([fake_backend(name, kind=name) for name in "abc"])
    backends.chain = ("c",)
    decision = Route(backends=backends, default_backend="a").decide(chat_request())
    assert [(c.backend.name, c.reason) for c in decision.candidates] == [
        ("a", "the default backend"),
        ("c", "next: place 1 of the chain"),
    ]
    assert decision.skipped == [("b", "not in the chain")]
