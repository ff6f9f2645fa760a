"""Whose turn it is: by weight, by load, by a header; the same turns for every kind of request; questions take none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gw.backend import Backend, Backends, Price
from gw.message import Request
from gw.middleware.route import Route
from gw.places import Places
from gw.turns import ROUND, mixed, sticking
from tests.fakes import FakeClock, chat_request, fake_backend


def route(*backends: Backend, **options: Any) -> Route:
    return Route(backends=Backends(backends), **options)


def first(router: Route, request: Request | None = None) -> str:
    return router.decide(request or chat_request()).candidates[0].backend.name


def talk(conversation: str) -> Request:
    return chat_request(headers={"X-Conversation": conversation})


def equals(*names: str, **fields: Any) -> list[Backend]:
    return [fake_backend(name, **fields) for name in names]


@pytest.mark.parametrize(
    ("weights", "order"),
    [([1, 1], [0, 1]), ([3, 1], [0, 0, 1, 0]), ([5, 1, 1], [0, 0, 1, 0, 2, 0, 0]), ([200, 100], [0, 1, 0]), ([7], [0])],
)
def test_a_round_gives_each_its_share_and_spreads_it(weights: list[int], order: list[int]) -> None:
    assert mixed(weights) == order


def test_a_round_is_bounded_and_leaves_nobody_out() -> None:
    counts = Counter(mixed([1_000_000_000, 1, 500_000_000]))
    assert counts.total() <= ROUND + 3
    assert counts[1] == 1
    assert counts[0] == pytest.approx(2 * counts[2], rel=0.01)


def test_weights_hold_over_many_requests() -> None:
    one, two, three = fake_backend("one", weight=5), fake_backend("two", weight=3), fake_backend("three", weight=2)
    router = route(one, two, three)
    assert Counter(first(router) for _ in range(1000)) == {"one": 500, "two": 300, "three": 200}


def test_requests_of_different_kinds_take_turns_together() -> None:
    router = route(*equals("one", "two", price=Price(1, 1)), prefer_cheapest=True)
    sizes = [chat_request({"messages": [{"role": "user", "content": "x" * 2**n}]}) for n in range(3, 17)]
    assert Counter(first(router, request) for request in sizes) == {"one": 7, "two": 7}


def test_turns_are_taken_within_the_group_only() -> None:
    one, two = equals("one", "two", group="g")
    other = fake_backend("other", group="h")
    assert {first(route(one, two, other)) for _ in range(9)} == {"one"}
    router = route(one, two, other)
    assert {first(router) for _ in range(9)} == {"one", "two"}


def test_one_that_cools_down_gives_its_turns_to_the_others() -> None:
    clock = FakeClock()
    one, two = equals("one", "two", clock=clock)
    router = route(one, two)
    one.cool(5, "HTTP 500")
    assert {first(router) for _ in range(4)} == {"two"}
    decision = router.decide(chat_request())
    assert not decision.degraded
    clock.now += 6
    assert {first(router) for _ in range(4)} == {"one", "two"}


def test_the_least_busy_of_equals_is_first() -> None:
    one, two, three = equals("one", "two", "three")
    router = route(one, two, three, turns="least_busy")
    one.health.in_flight, two.health.in_flight, three.health.in_flight = 4, 1, 2
    assert first(router) == "two"
    two.health.in_flight = 3
    assert first(router) == "three"


def test_idle_equals_take_turns_even_where_the_least_busy_is_asked_for() -> None:
    router = route(*equals("one", "two"), turns="least_busy")
    assert [first(router) for _ in range(4)] == ["one", "two", "one", "two"]


def test_a_weight_is_how_much_a_backend_can_bear() -> None:
    strong, weak = fake_backend("strong", weight=4), fake_backend("weak")
    router = route(strong, weak, turns="least_busy")
    strong.health.in_flight, weak.health.in_flight = 3, 1
    assert first(router) == "strong"


def test_whoever_waits_for_a_place_counts_as_busy() -> None:
    one, two = equals("one", "two")

    class Crowded(Places):
        @property
        def waiting(self) -> int:
            return 9

    one.places = Crowded(one, limit=1, queue=9, timeout=1)
    two.health.in_flight = 3
    assert first(route(one, two, turns="least_busy")) == "two"


def test_equal_header_values_go_to_the_same_backend_and_different_ones_spread() -> None:
    router = route(*equals("one", "two", "three"), sticky_header="X-Conversation")
    homes = {f"c{number}": first(router, talk(f"c{number}")) for number in range(300)}
    assert all(first(router, talk(conversation)) == home for conversation, home in homes.items())
    assert min(Counter(homes.values()).values()) > 70


def test_another_gateway_sends_a_conversation_to_the_same_backend() -> None:
    here, there = (route(*equals("one", "two", "three"), sticky_header="x-conversation") for _ in range(2))
    there.decide(chat_request())  # its turns stand elsewhere
    assert all(first(here, talk(f"c{number}")) == first(there, talk(f"c{number}")) for number in range(50))


def test_only_the_conversations_of_a_backend_that_cools_down_move_and_they_come_back() -> None:
    clock = FakeClock()
    one, two, three = equals("one", "two", "three", clock=clock)
    router = route(one, two, three, sticky_header="X-Conversation")
    homes = {f"c{number}": first(router, talk(f"c{number}")) for number in range(90)}
    one.cool(10)
    now = {conversation: first(router, talk(conversation)) for conversation in homes}
    assert all(now[conversation] == home for conversation, home in homes.items() if home != "one")
    assert {now[conversation] for conversation, home in homes.items() if home == "one"} == {"two", "three"}
    clock.now += 11
    assert {conversation: first(router, talk(conversation)) for conversation in homes} == homes


def test_without_the_header_equals_take_turns() -> None:
    router = route(*equals("one", "two"), sticky_header="X-Conversation")
    assert [first(router) for _ in range(4)] == ["one", "two", "one", "two"]


@pytest.mark.parametrize("name", ["", "X Conversation", "X-Tést", "a:b"])
def test_what_is_no_headers_name_is_refused_at_load(name: str) -> None:
    with pytest.raises(ValueError, match="sticky_header is the name of a header"):
        route(fake_backend("a"), sticky_header=name)


def test_conversations_spread_by_weight() -> None:
    backends = [fake_backend("one", weight=3), fake_backend("two")]
    counts = Counter(sticking(f"c{number}", range(2), backends) for number in range(2000))
    assert counts[0] == pytest.approx(1500, rel=0.05)


def test_a_question_takes_nobodys_turn() -> None:
    for turns in ("weight", "least_busy"):
        router = route(*equals("one", "two"), turns=turns)
        for _ in range(4):
            asked = [router.router.decide(chat_request(), is_question=True) for _ in range(3)]
            names = {decision.candidates[0].backend.name for decision in asked}
            assert names == {first(router)}
