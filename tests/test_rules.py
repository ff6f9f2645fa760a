"""Routing rules: what can be written, what is refused at load; remembered decisions look at all that rules look at."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gw.backend import Backends
from gw.errors import ConfigError, GatewayError
from gw.message import Headers, Principal, Request
from gw.middleware.route import Route, RuleTable
from gw.rules import Facts, parse_rule
from tests.fakes import chat_request, fake_backend

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
TOOL = {"type": "function", "function": {"name": "f"}}


def facts(**fields: Any) -> Facts:
    given: dict[str, Any] = {"model": "gpt-4", "has_tools": False, "has_images": False, "stream": False, "key": "ci"}
    return Facts(**given | {"tokens": 10, "headers": Headers()} | fields)


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("model: claude-*", {"model": "claude-3"}, {"model": "not-claude-3"}),
        ("has_tools: true", {"has_tools": True}, {"has_tools": False}),
        ("has_images: false", {"has_images": False}, {"has_images": True}),
        ("stream: true", {"stream": True}, {"stream": False}),
        ("key: team-?", {"key": "team-a"}, {"key": "team-ab"}),
        ("tokens: > 10", {"tokens": 11}, {"tokens": 10}),
        ("tokens: >= 10", {"tokens": 10}, {"tokens": 9}),
        ("tokens: < 10", {"tokens": 9}, {"tokens": 10}),
        ("tokens: <= 10", {"tokens": 10}, {"tokens": 11}),
        ("header X-Team: red*", {"headers": Headers([(b"x-team", b"redish")])}, {}),
        ("header x-team: *", {"headers": Headers([(b"x-team", b"")])}, {}),
        ("model: a* and stream: true", {"model": "ab", "stream": True}, {"model": "ab"}),
    ],
)
def test_a_condition_holds_where_it_says_so_and_nowhere_else(
    text: str, yes: dict[str, Any], no: dict[str, Any]
) -> None:
    rule = parse_rule(text)
    assert rule.matches(facts(**yes))
    assert not rule.matches(facts(**no))
    assert rule.failing(facts(**no)) in text.split(" and ")


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("has_tols: true", 'did you mean "has_tools"'),
        ("has_tools: yes", "true or false"),
        ("model: a AND stream: true", "join conditions with `and`"),
        ("key: a b", "one name or glob"),
        ("model: a and", "join conditions"),
        ("and model: a", "unknown condition"),
        ("tokens: 10k", "comparison"),
        ("tokens: > ١٠", "comparison"),
        ("header: x", "unknown condition"),
        ("", "cannot read"),
        ("header X-Té: a", "not a header's name"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_cure(text: str, cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        parse_rule(text)


def test_all_wrong_rules_are_told_at_once() -> None:
    rules = [RuleTable(when="has_tols: true", backend="a"), RuleTable(when="model: x")]
    with pytest.raises(ConfigError) as caught:
        Route(backends=Backends([fake_backend("a")]), rules=rules)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["rules[0]", "rules[1]"]


def test_a_rule_passes_over_a_backend_that_is_switched_off() -> None:
    rule = RuleTable(when="model: x", backends=["off", "b"])
    decision = Route(backends=Backends([fake_backend("b")]), rules=[rule]).decide(chat_request({"model": "x"}))
    assert [candidate.backend.name for candidate in decision.candidates] == ["b"]
    assert ("off", "disabled") in decision.skipped


RULES = [
    "header X-Team: blue* and tokens: > 40",
    "header X-Team: red and has_tools: true",
    "tokens: >= 100 and stream: true",
    "has_images: true and key: ci",
    "model: claude-* and tokens: < 20",
    "tokens: <= 5",
]


def some_request(chance: random.Random) -> Request:
    content: Any = "x" * 4 * chance.choice([1, 5, 6, 19, 20, 40, 41, 99, 100, 101])
    if chance.random() < 0.2:
        content = [{"type": "text", "text": content}, IMAGE]
    chat: dict[str, Any] = {
        "model": chance.choice(["gpt-4", "claude-3", "auto", "b3"]),
        "messages": [{"role": "user", "content": content}],
        "stream": chance.random() < 0.5,
    }
    if chance.random() < 0.3:
        chat["tools"] = [TOOL]
    headers = chance.choice([{}, {"X-Team": "red"}, {"X-Team": "blueish"}, {"X-Team": ""}])
    return chat_request(chat, headers=headers, principal=Principal(chance.choice(["ci", "other"])))


@pytest.mark.parametrize("prefer_cheapest", [False, True])
def test_a_remembered_decision_is_the_one_that_would_be_made_anew(prefer_cheapest: bool) -> None:
    lengths = [120 * (number + 1) for number in range(len(RULES) + 1)]
    backends = [
        fake_backend(f"b{n}", kind=f"k{n}", model="m", context_length=length, cost_per_request=0.01 * n)
        for n, length in enumerate(lengths)
    ]
    rules = [RuleTable(when=when, backends=[f"b{number}", "b6"]) for number, when in enumerate(RULES)]
    remembers = Route(backends=Backends(backends), rules=rules, prefer_cheapest=prefer_cheapest, long_context_tokens=50)

    def outcome(route: Route, request: Request, **how: bool) -> tuple[object, ...]:
        try:
            decision = route.router.decide(request, **how)
        except GatewayError as error:
            return (error.code,)
        names = [candidate.backend.name for candidate in decision.candidates]
        return (*names, decision.degraded, [name for name, _ in decision.skipped])

    chance = random.Random(6)
    for _ in range(1500):
        request = some_request(chance)
        anew = outcome(remembers, request, is_question=True)  # a question is always decided anew
        assert outcome(remembers, request) == anew
    assert len(remembers.router._plans) < 1000  # so that some were remembered
