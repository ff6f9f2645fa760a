"""Options are a constructor's keywords: what TOML may say is what the signature says."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from gw.errors import ConfigError
from gw.options import Alias, Size, check, make, options_of
from gw.secret import Secret


class Clock:
    pass


class Store:
    pass


@dataclass(frozen=True)
class Rate:
    max: int
    window: float = 60.0

    def __post_init__(self) -> None:
        if self.max < 1:
            raise ValueError(f"max is 1 or more, found {self.max}")


@dataclass
class Target:
    backend: str
    model: str | None = None


class Everything:
    def __init__(
        self,
        *,
        flag: bool = False,
        count: int = 1,
        seconds: float = 1.0,
        text: str = "",
        names: list[str] | None = None,
        numbers: Sequence[int] = (),
        pairs: tuple[str, ...] = (),
        words: frozenset[str] = frozenset(),
        mapping: dict[str, float] | None = None,
        mode: Literal["auto", "off"] = "auto",
        rate: Rate | None = None,
        rates: Mapping[str, Rate] | None = None,
        targets: list[str | Target] | None = None,
        place: Path | None = None,
        anything: str | Path = "",
        size: Size = 0,
        secret: Secret | None = None,
        day: datetime.date | None = None,
        queue: Annotated[int, Alias("queueSize", "maxQueue")] = 0,
        store: Store | None = None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name != "self"}


def read(table: dict[str, Any], folder: Path | None = None) -> dict[str, Any]:
    keywords, problems = check(Everything, table, "middleware.every", folder=folder)
    assert problems == []
    return keywords


def problems_of(table: dict[str, Any], factory: Any = Everything) -> list[str]:
    return check(factory, table, "middleware.every")[1]


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("flag", True, True),
        ("count", 3, 3),
        ("seconds", 3, 3.0),
        ("seconds", 0.5, 0.5),
        ("text", "a", "a"),
        ("names", ["a", "b"], ["a", "b"]),
        ("numbers", [1], [1]),
        ("pairs", ["a"], ("a",)),
        ("words", ["a"], frozenset({"a"})),
        ("mapping", {"a": 1}, {"a": 1.0}),
        ("mode", "off", "off"),
        ("rate", {"max": 5}, Rate(5)),
        ("rates", {"ci": {"max": 5, "window": 1}}, {"ci": Rate(5, 1.0)}),
        ("targets", ["a", {"backend": "b", "model": "m"}], ["a", Target("b", "m")]),
        ("size", "32MB", 32 * 1024 * 1024),
        ("size", "1.5 KiB", 1536),
        ("size", 7, 7),
        ("secret", "s3cret", Secret("s3cret")),
        ("day", datetime.date(2027, 1, 31), datetime.date(2027, 1, 31)),
        ("day", "2027-01-31", datetime.date(2027, 1, 31)),
    ],
)
def test_a_toml_value_becomes_what_the_annotation_says(name: str, written: Any, meant: Any) -> None:
    value = read({name: written})[name]
    assert value == meant
    assert type(value) is type(meant)


def test_a_relative_path_starts_at_the_folder_of_the_file(tmp_path: Path) -> None:
    assert read({"place": "logs/x.db"}, tmp_path)["place"] == tmp_path / "logs/x.db"
    assert read({"anything": "x"}, tmp_path)["anything"] == tmp_path / "x"
    assert read({"place": "/var/x"}, tmp_path)["place"] == Path("/var/x")
    assert read({"place": "~/x"}, tmp_path)["place"] == Path.home() / "x"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"flag": 1}, "middleware.every.flag: expected true or false, found 1"),
        ({"count": True}, "middleware.every.count: expected an integer, found true"),
        ({"count": 1.0}, "middleware.every.count: expected an integer, found 1.0"),
        ({"seconds": "3"}, 'middleware.every.seconds: expected a number, found "3"'),
        ({"seconds": True}, "middleware.every.seconds: expected a number, found true"),
        ({"seconds": float("inf")}, "middleware.every.seconds: expected a number, found inf"),
        ({"text": ["a"]}, "middleware.every.text: expected a string, found a list"),
        ({"names": "a"}, 'middleware.every.names: expected a list of strings, found "a"'),
        ({"names": ["a", 1]}, "middleware.every.names[1]: expected a string, found 1"),
        ({"mapping": {"a.b": "x"}}, 'middleware.every.mapping."a.b": expected a number, found "x"'),
        (
            {"mode": "of"},
            'middleware.every.mode: expected one of "auto", "off", found "of"; did you mean "off"?',
        ),
        ({"rate": {}}, "middleware.every.rate.max: missing; expected an integer"),
        (
            {"rate": {"max": 1, "windw": 2}},
            'middleware.every.rate.windw: unknown option; did you mean "window"? (allowed: max, window)',
        ),
        ({"rate": {"max": 0}}, "middleware.every.rate: max is 1 or more, found 0"),
        ({"rate": 5}, "middleware.every.rate: expected a table, found 5"),
        ({"targets": [{"model": "m"}]}, "middleware.every.targets[0].backend: missing; expected a string"),
        ({"targets": [5]}, "middleware.every.targets[0]: expected a string or a table, found 5"),
        ({"place": ""}, 'middleware.every.place: expected a path, found ""'),
        ({"size": "32 MBit"}, 'middleware.every.size: expected a size in bytes or such as "32MB", found "32 MBit"'),
        ({"size": -1}, 'middleware.every.size: expected a size in bytes or such as "32MB", found -1'),
        (
            {"day": datetime.datetime(2027, 1, 31)},
            "middleware.every.day: expected a date such as 2027-01-31, found 2027-01-31 00:00:00",
        ),
        (
            {"queue": 1, "maxQueue": 2},
            "middleware.every.maxQueue: the same option as queue, which is given too; keep one",
        ),
        ({"store": "x"}, "middleware.every.store: filled in by gw, not an option; take it out"),
        ({"clock": 5}, "middleware.every.clock: filled in by gw, not an option; take it out"),
    ],
)
def test_a_wrong_value_is_told_with_its_path_what_was_found_and_what_is_allowed(
    table: dict[str, Any], problem: str
) -> None:
    assert problems_of(table) == [problem]


def test_the_value_of_a_secret_is_not_told() -> None:
    assert problems_of({"secret": 12345678}) == [
        "middleware.every.secret: expected a secret string, found a value of type int"
    ]
    assert problems_of({"secret": ""}) == ["middleware.every.secret: expected a secret string, found an empty one"]


def test_every_problem_is_told_at_once() -> None:
    assert len(problems_of({"flag": 1, "count": "x", "mode": 5, "nope": 1, "rate": {"max": "x", "other": 1}})) == 6


def test_an_unknown_option_names_the_near_one_and_all_that_are_allowed() -> None:
    def limit(*, max: int = 1, window: float = 1.0, trusted_proxies: Sequence[str] = ()) -> None: ...

    assert check(limit, {"windw": 5}, "middleware.rate_limit", also=("enabled",))[1] == [
        'middleware.rate_limit.windw: unknown option; did you mean "window"? '
        "(allowed: enabled, max, trusted_proxies, window)"
    ]


def test_an_alias_sets_the_option() -> None:
    assert read({"maxQueue": 5}) == {"queue": 5}
    assert read({"queueSize": 5}) == {"queue": 5}


def test_a_missing_option_is_told_with_its_kind() -> None:
    def needs(*, path: str, when: Literal["a", "b"]) -> None: ...

    assert problems_of({}, needs) == [
        "middleware.every.path: missing; expected a string",
        'middleware.every.when: missing; expected one of "a", "b"',
    ]


def test_a_plain_coroutine_function_takes_no_options() -> None:
    async def plain(request: Any, call_next: Any) -> Any: ...

    assert problems_of({}, plain) == []
    assert problems_of({"x": 1}, plain) == ["middleware.every.x: unknown option (allowed: none: it takes no options)"]
    assert make(plain, {}, {}, "middleware.every") == (plain, [])


def test_keywords_of_any_name_are_passed_on() -> None:
    def open_ended(*, path: str = "", **rest: Any) -> None: ...

    assert check(open_ended, {"path": "a", "more": [1]}, "x") == ({"path": "a", "more": [1]}, [])


def test_services_are_filled_in_by_their_type() -> None:
    store = Store()
    made, problems = make(Everything, {"count": 2}, {Store: store}, "middleware.every")
    assert problems == []
    assert made.given["store"] is store
    assert made.given["count"] == 2
    assert made.given["clock"]() == 0.0


def test_a_dataclass_that_is_a_service_is_no_option() -> None:
    def wants(*, rate: Rate, count: int = 0) -> tuple[Rate, int]:
        return rate, count

    assert check(wants, {"rate": {"max": 1}}, "x", {Rate})[1] == ["x.rate: filled in by gw, not an option; take it out"]
    assert [option.name for option in options_of(wants, {Rate})] == ["count"]
    assert make(wants, {}, {Rate: Rate(9)}, "x") == ((Rate(9), 0), [])


def test_a_service_that_is_not_there_is_a_problem_and_no_exception() -> None:
    def wants(*, clock: Clock) -> None: ...

    made, problems = make(wants, {}, {}, "middleware.every")
    assert made is None
    assert len(problems) == 1
    assert "needs `clock` (Clock), which gw does not have here" in problems[0]


def test_what_a_constructor_refuses_is_told_with_its_path() -> None:
    def of_value(*, n: int = 0) -> None:
        raise ValueError("n is odd")

    def of_config(*, n: int = 0) -> None:
        raise ConfigError(["n is odd", "n is small"])

    def of_bug(*, n: int = 0) -> None:
        raise KeyError("n")

    assert make(of_value, {}, {}, "m.x")[1] == ["m.x: n is odd"]
    assert make(of_config, {}, {}, "m.x")[1] == ["m.x: n is odd", "m.x: n is small"]
    (problem,) = make(of_bug, {}, {}, "m.x")[1]
    assert "could not be made: KeyError: 'n' (test_options.py, line " in problem


def test_annotations_that_cannot_be_read_are_told() -> None:
    def typed_for_checkers_only(*, n: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    (problem,) = problems_of({}, typed_for_checkers_only)
    assert "name 'Nowhere' is not defined" in problem
    assert problem.startswith("middleware.every: ")


def test_nested_dataclasses_may_hold_lists_of_others() -> None:
    @dataclass
    class Rule:
        when: str
        targets: list[Target] = field(default_factory=list)

    def route(*, rules: list[Any] | None = None) -> None: ...

    route.__annotations__["rules"] = list[Rule]
    table = {"rules": [{"when": "x", "targets": [{"backend": "a"}, {"bakend": "b"}]}]}
    assert problems_of(table, route) == [
        'middleware.every.rules[0].targets[1].bakend: unknown option; did you mean "backend"? '
        "(allowed: backend, model)",
        "middleware.every.rules[0].targets[1].backend: missing; expected a string",
    ]
