"""The faults that a gateway has to survive, one by one: what the provider does, and what is then right.

`gw drill` plays them against somebody's own configuration; the tests play the same list against gw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["streamed", "whole"]
Dialect = Literal["openai", "anthropic"]
SHAPES: tuple[Shape, ...] = ("streamed", "whole")
DIALECTS: tuple[Dialect, ...] = ("openai", "anthropic")

Due = Literal[
    "answer",  # the whole answer, by whoever has the fault: it only has to be read rightly
    "retry",  # the whole answer, even where there is nobody else: the fault passes
    "fallback",  # the whole answer where somebody else stands by, else one clean error
    "late",  # streamed, content has been passed on: the whole answer or one clean error; whole: as "fallback"
    "refusal",  # one clean error, and nobody else is asked: it is the request that is wrong
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `acts` are played in turn by the provider that is asked first, the last one again and again.

    `others` is what those who stand by do; `cure` is the word for how a lone provider's answer was made whole.
    """

    name: str
    about: str
    acts: tuple[str, ...]
    due: Due = "fallback"
    others: str = "going_on"
    requests: int = 1
    shapes: tuple[Shape, ...] = SHAPES
    dialects: tuple[Dialect, ...] = DIALECTS
    needs_other: bool = False
    cure: str = "nothing was to be done"


_FLAPPING = (("overload_503",) * 3 + ("fine",) * 3) * 3

FAULTS: tuple[Fault, ...] = (
    # The sixteen of the public bench.
    Fault("429-once", "429 with Retry-After, then well", ("limited", "fine"), "retry"),
    Fault("429-for-ever", "429 without Retry-After, always", ("limited_without_a_word",)),
    Fault("500-once", "500 once, then well", ("error_500", "fine"), "retry"),
    Fault("503-for-ever", "503, always", ("overload_503",)),
    Fault("reset", "connection reset before the head", ("reset",)),
    Fault("silence", "nothing at all", ("silence",)),
    Fault("slow", "a slow first token", ("slow_first",), "answer", cure="patience"),
    Fault("cut", "cut after 40 of 60 tokens", ("cut_40",), "late"),
    Fault("stall", "silent after 40 of 60 tokens", ("stall_40",), "late"),
    Fault("malformed", "an event that is no JSON", ("malformed_event",)),
    Fault(
        "no-done",
        "no [DONE] at the end",
        ("missing_done",),
        "answer",
        shapes=("streamed",),
        dialects=("openai",),
        cure="repaired",
    ),
    Fault("context-too-long", "the prompt does not fit its context", ("too_long",)),
    Fault("content-filter", "the prompt is refused by its filter", ("content_filter",), "refusal"),
    Fault(
        "prefill-refused",
        "cut, and the next one refuses a prefill",
        ("cut_40",),
        "late",
        others="refuses_prefill",
        shapes=("streamed",),
        needs_other=True,
    ),
    Fault("flapping", "three requests down, three up, and again", _FLAPPING, requests=12),
    Fault("accounting", "500, always: nobody pays for it", ("error_500",), needs_other=True),
    # The others.
    Fault("error-before", "an error event in a 200, before content", ("error_before",)),
    Fault("error-after", "an error event in a 200, after 40 tokens", ("error_after",), "late"),
    Fault("malformed-late", "an event that is no JSON, after 40 tokens", ("malformed_40",), "late"),
    Fault("closed", "an end in due form after 40 tokens", ("closed_40",), "late"),
    Fault(
        "no-message-stop",
        "no message_stop at the end",
        ("missing_done",),
        "late",
        shapes=("streamed",),
        dialects=("anthropic",),
    ),
    Fault("cut-in-tool-call", "cut inside a tool call", ("cut_in_tool",), "late"),
    Fault("cut-in-character", "cut inside a UTF-8 character", ("cut_in_character",), "late"),
    Fault("keep-alives", "nothing but keep-alives", ("keep_alives_only",)),
    Fault("keep-alives-late", "nothing but keep-alives after 40 tokens", ("keep_alives_after_40",), "late"),
    Fault("empty", "an empty 200", ("empty_200",)),
    Fault("html", "a web page with 200", ("html_200",)),
    Fault("false-length", "fewer bytes than Content-Length says", ("false_length",), "late"),
    Fault("gzip", "a compressed body, unasked", ("gzip_body",), "answer", cure="repaired"),
    Fault("529", "529, always", ("overload_529",)),
    Fault("dead-key", "401, always", ("dead_key",)),
    Fault("no-quota", "429, insufficient_quota", ("no_quota",)),
    Fault("bad-request", "422: a field is wrong", ("bad_request",), "refusal"),
    Fault("two-finishes", "the end told twice", ("duplicate_finish",), "answer", shapes=("streamed",), cure="repaired"),
    Fault(
        "no-choices",
        "usage without choices",
        ("usage_without_choices",),
        "answer",
        shapes=("streamed",),
        cure="repaired",
    ),
    Fault("drip", "one byte at a time", ("drip",), "answer", cure="patience"),
    Fault("drip-for-ever", "one byte now and then, for ever", ("drip_for_ever",)),
    Fault("steady", "longer than any silence may be, never silent", ("steady",), "answer", cure="patience"),
    Fault("closes-at-reuse", "kept connections are closed", ("closes_behind",), "answer", requests=4, cure="reconnect"),
    Fault(
        "second-response",
        "another response behind the first",
        ("second_response",),
        "answer",
        requests=4,
        cure="surplus dropped",
    ),
)
