"""What routing remembers: kinds of requests, as far as rules tell them apart, and no more."""

from __future__ import annotations

from gw.backend import Backends
from gw.middleware.route import Route, RuleTable
from tests.fakes import chat_request, fake_backend


def test_header_values_that_no_rule_tells_apart_are_one_kind_of_request() -> None:
    backends = Backends([fake_backend("a", group="a"), fake_backend("b", group="b")])
    route = Route(
        backends=backends,
        rules=[
            RuleTable(when="header X-User: vip-*", backend="b"),
            RuleTable(when="header X-Team: red", backends=["b", "a"]),
        ],
    )

    def first(**headers: str) -> str:
        request = chat_request(headers={name.replace("_", "-"): value for name, value in headers.items()})
        return route.decide(request).candidates[0].backend.name

    for number in range(100):
        assert first(X_User=f"user-{number}") == "a"
        assert first(X_User=f"vip-{number}") == "b"
    assert len(route.router._plans) == 2
    assert [first(), first(X_Team="red"), first(X_Team="blue"), first(X_Team="red", X_User="u")] == ["a", "b", "a", "b"]
