"""Which backends may answer, best first: the one fixed order of both founding documents, decided without any I/O.

1. named by the client: in the URL, in the body, or as `backend/model` where no mapping and no rule has that very name
2. the first rule that matches: its own list, in its own order
3. everybody who is ready, allowed, able and serves the model: long context first where it is needed, then the cheapest
   or the default backend, then the fallback chain; equals take turns
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from gw.backend import Backend, Backends
from gw.errors import Forbidden, GatewayError, InvalidRequest, NotFound, Unavailable
from gw.message import Candidate, Request
from gw.model_names import ModelNames, served
from gw.ordering import Ordering, Size
from gw.plan import AUTO, Able, Decision, Plan, Skipped
from gw.refusals import (
    SERVES_NOT,
    behind_slash,
    incapable,
    no_model_of_its_own,
    nobody,
    not_for,
    not_ready,
    unknown_backend,
    unknown_model,
)
from gw.rules import Facts, Rule
from gw.wants import Wants, survey

__all__ = ["Decision", "Router", "Skipped", "Target"]

MAX_PLANS = 512  # kinds of requests that are remembered; a model's name comes from the client


@dataclass(slots=True, frozen=True)
class Target:
    """One backend of a rule's list; `model` is what to ask it for (default: by its own mapping)."""

    backend: str
    model: str | None = None


class Router:
    """Decides for one request who may answer. No I/O; the same decision serves requests and `gw explain`.

    What depends on the configuration and on what rules, prices and capabilities look at is remembered per kind of
    request (`Plan`); whose turn it is and who is cooling down is looked up each time. The backends' settings do not
    change while a Router lives.
    """

    def __init__(
        self,
        backends: Backends,
        ordering: Ordering,
        rules: Sequence[tuple[Rule, Sequence[Target]]] = (),
        unknown_model: Literal["error", "route"] = "error",
        *,
        sticky_header: str | None = None,
    ) -> None:
        self._backends = backends
        self._ordering = ordering
        self._rules = rules
        self._names = ModelNames(backends, [rule for rule, _ in rules])
        self._unknown_model = unknown_model
        self._sticky = sticky_header
        self._plans: dict[tuple[object, ...], Plan] = {}
        conditions = [condition for rule, _ in rules for condition in rule.conditions]
        self._headers = frozenset(name.lower().encode() for condition in conditions if (name := condition.header))
        self._of_headers = [condition.holds for condition in conditions if condition.header]
        ordering.mind({condition.bound for condition in conditions if condition.bound is not None})

    def decide(self, request: Request, *, is_question: bool = False) -> Decision:
        """The candidates for a request, or GatewayError where there are none.

        A question, as `gw explain` asks it, takes nobody's turn.
        """
        assert request.document is not None, "the body is read before route"
        chat = request.document.peek()
        model = chat.get("model") or AUTO
        if request.parameters or "backend" in chat or "/" in model:
            named, model = self._explicit(request, chat, model)
            if named is not None:
                return self._only(named, chat, model, request, is_question)
        if chat.get("session_id"):
            raise NotFound(
                f"session {chat['session_id']} does not exist: leave session_id out to begin one",
                code="session_not_found",
                param="session_id",
            )
        return self._by_plan(request, chat, model, is_question)

    def rules_tried(self, request: Request) -> list[tuple[str, str | None]]:
        """Each rule up to the one that matches, with the condition that did not hold; None: it matches."""
        assert request.document is not None, "the body is read before route"
        chat = request.document.peek()
        facts = _facts(request, chat.get("model") or AUTO, *survey(chat))
        tried: list[tuple[str, str | None]] = []
        for rule, _ in self._rules:
            tried.append((rule.text, rule.failing(facts)))
            if tried[-1][1] is None:
                break
        return tried

    # --- 1: named by the client ---------------------------------------------------------------------------------

    def _explicit(self, request: Request, chat: Mapping[str, Any], model: str) -> tuple[Backend | None, str]:
        in_url, in_body = request.parameters.get("backend"), chat.get("backend")
        if in_url and in_body and in_url != in_body:
            raise InvalidRequest(
                f'the URL names backend "{in_url}" and the body "{in_body}": name one', param="backend"
            )
        name = in_url or in_body
        if name:
            if name not in self._backends:
                raise unknown_backend(name, self._backends.names())
            backend = self._backends[name]
            if model.startswith(f"{name}/") and model not in backend.models:
                model = behind_slash(model)
            return backend, model
        before, slash, _ = model.partition("/")
        if slash and before in self._backends and not self._names.is_written(model):
            return self._backends[before], behind_slash(model)
        return None, model

    def _only(
        self, backend: Backend, chat: Mapping[str, Any], model: str, request: Request, is_question: bool
    ) -> Decision:
        """The backend that the client named, then whoever else could answer, should `explicit_fallback` allow it."""
        asked, _ = survey(chat)
        if not _allows_backend(request, backend):
            raise Forbidden(
                f'key "{request.principal.name}" may not use backend "{backend.name}"',
                code="forbidden_backend",
                param="backend",
            )
        if not backend.enabled:
            raise not_ready(f'backend "{backend.name}" is disabled: set enabled = true in gateway.toml')
        if backend.problem is not None:
            raise not_ready(f'backend "{backend.name}" is not ready: {backend.problem}')
        self._check_model_allowed(request, model)
        missing = asked.missing(backend.capabilities)
        if missing is not None:
            raise incapable(missing, f'backend "{backend.name}"')
        upstream = served(backend, model)
        if upstream is None and model == AUTO:
            raise no_model_of_its_own(backend.name)
        # A backend that the client named gets the model that the client named, mapped or not.
        upstream = upstream or model
        first = Candidate(backend, upstream, upstream if model == AUTO else model, "named by the client", True)
        if not self._backends.explicit_fallback:
            return Decision((first,))
        try:
            others = self._by_plan(request, chat, model, is_question)
        except GatewayError:
            return Decision((first,))  # nobody else could answer; that matters only if the named one fails
        after = [
            replace(other, answers_as=other.model, reason=f"explicit_fallback; {other.reason}")
            for other in others.candidates
            if other.backend is not backend
        ]
        if others.drops_tools:
            return Decision((first,), others.skipped, without_tools=after)
        return Decision((first, *after), others.skipped, without_tools=others.without_tools)

    # --- 2 and 3: a plan for every kind of request --------------------------------------------------------------

    def _by_plan(self, request: Request, chat: Mapping[str, Any], model: str, is_question: bool) -> Decision:
        document = request.document
        assert document is not None, "`decide` has asked"
        asked, tokens = survey(chat, document.characters, document.is_flat)
        headers: tuple[bool, ...] = ()
        if self._headers and [pair for pair in request.headers.pairs if pair[0] in self._headers]:
            # What holds, not the values: one that is new with each request would be a new kind each time.
            facts = _facts(request, model, asked, tokens)
            headers = tuple([holds(facts) for holds in self._of_headers])
        kind = (model, asked, request.principal.name, self._ordering.bucket(chat, tokens), headers)
        plan = None if is_question else self._plans.get(kind)  # a question wants the reasons in its own figures
        if plan is None:
            plan = self._plan(request, model, asked, self._ordering.size(chat, tokens))
            if not is_question:
                if len(self._plans) >= MAX_PLANS:
                    self._plans.clear()
                self._plans[kind] = plan
        sticky = request.headers.get(self._sticky) if self._sticky is not None else ""
        if plan.plain is None and not plan.drops_tools:
            return plan.pick(sticky, is_question)
        return _with_plain(plan, sticky, is_question)

    def _plan(self, request: Request, model: str, asked: Wants, size: Size) -> Plan:
        self._check_model_allowed(request, model)
        if self._rules:
            facts = _facts(request, model, asked, size[0])
            for rule, targets in self._rules:
                if rule.matches(facts):
                    return self._ruled(rule, targets, request, model, asked, size)
        if self._unknown_model == "error" and self._names.is_bare(model):
            raise no_model_of_its_own(model)
        serving, skipped = self._serving(request, model)
        if not serving and model != AUTO:
            if self._unknown_model == "error" and not self._names.is_served(model):
                raise unknown_model(model, self.model_names())
            if self._unknown_model == "route":
                model = AUTO
                serving, skipped = self._serving(request, model)
        return self._able(
            serving, skipped, request, asked, size, lambda able, out: self._ordering.plan(able, model, size, out)
        )

    def _ruled(
        self, rule: Rule, targets: Sequence[Target], request: Request, model: str, asked: Wants, size: Size
    ) -> Plan:
        serving: list[Able] = []
        skipped: list[Skipped] = []
        for target in targets:
            backend = self._backends.get(target.backend)
            reason = "disabled" if backend is None else _unusable(backend, request)
            if backend is None or reason:
                skipped.append(Skipped(target.backend, reason))
                continue
            # A rule may send any name: a backend that does not know it answers with its own model.
            upstream = target.model or served(backend, model) or backend.default_model()
            if upstream is None:
                skipped.append(Skipped(target.backend, f'no model for "{model}"'))
            else:
                serving.append((backend, upstream))

        def in_its_order(able: Sequence[Able], out: Sequence[Skipped]) -> Plan:
            reasons = [f"rule `{rule.text}`", *(f"next of rule `{rule.text}`" for _ in able[1:])]
            return Plan(able, model, reasons=reasons, skipped=out)

        return self._able(serving, skipped, request, asked, size, in_its_order)

    def _able(
        self,
        serving: Sequence[Able],
        skipped: list[Skipped],
        request: Request,
        asked: Wants,
        size: Size,
        order: Callable[[Sequence[Able], Sequence[Skipped]], Plan],
    ) -> Plan:
        """The plan of those who can do what is asked, and of those who could without the tools, if so configured."""
        able = [entry for entry in serving if not _lacks(entry[0], asked)]
        unable = [entry for entry in serving if entry not in able]
        skipped += [Skipped(backend.name, _lacks(backend, asked)) for backend, _ in unable]
        plain = None
        if self._backends.drop_tools and asked.tools:
            untooled = asked._replace(functions=False, cli_tools=False)
            stand_ins = [entry for entry in unable if not _lacks(entry[0], untooled)]
            if stand_ins:
                stand_ins, _ = self._ordering.roomy(stand_ins, size[0])
                names = {backend.name for backend, _ in stand_ins}
                skipped = [entry for entry in skipped if entry.backend not in names]
                plain = order(stand_ins, skipped)
        if able:
            roomy, too_short = self._ordering.roomy(able, size[0])
            plan = order(roomy, [*skipped, *too_short])
            plan.plain = plain
            return plan
        if plain is None:
            self._raise_incapable([backend for backend, _ in serving], asked)
            raise nobody(skipped, request.principal.name)
        plain.drops_tools = True
        return plain

    def _serving(self, request: Request, model: str) -> tuple[list[Able], list[Skipped]]:
        found: list[Able] = []
        reserve: list[Able] = []
        nameless: list[str] = []
        skipped: list[Skipped] = []
        for backend in self._backends:
            reason = _unusable(backend, request)
            upstream = served(backend, model)
            if reason:
                skipped.append(Skipped(backend.name, reason))
            elif upstream is None:
                skipped.append(Skipped(backend.name, f'{SERVES_NOT} "{model}"'))
                if model == AUTO:
                    nameless.append(backend.name)
            elif backend.explicit_only and model != backend.name:
                reserve.append((backend, upstream))
            else:
                found.append((backend, upstream))
        if found or (model != AUTO and self._unknown_model == "error"):
            return found, skipped
        if nameless:
            raise no_model_of_its_own(nameless[0])
        return reserve, skipped  # echo answers `auto` when nobody else is ready

    # --- names ---------------------------------------------------------------------------------------------------

    def model_names(self) -> list[str]:
        """Every name that `model` may have here."""
        return self._names.listed()

    @staticmethod
    def _check_model_allowed(request: Request, model: str) -> None:
        allowed = request.principal.models
        if allowed is None:
            return
        # Some hosts take further models to fall back on from the body (OpenRouter's `models`): those count as well.
        more = request.document.peek().get("models") if request.document is not None else None
        for field, names in (
            ("model", [model]),
            ("models", more if isinstance(more, list) else [more] * (more is not None)),
        ):
            for name in names:
                if not isinstance(name, str) or name not in allowed:
                    raise Forbidden(
                        f'key "{request.principal.name}" may not use model {str(name)[:256]!r} '
                        f"(allowed: {', '.join(sorted(allowed))})",
                        code="forbidden_backend",
                        param=field,
                    )

    @staticmethod
    def _raise_incapable(backends: Sequence[Backend], asked: Wants) -> None:
        """400 where those who could be asked all lack the same kind of thing."""
        missing = [asked.missing(backend.capabilities) for backend in backends]
        if missing and missing[0] is not None and all(missing):
            raise incapable(missing[0], "the backends that serve this model")


def _with_plain(plan: Plan, sticky: str, is_question: bool) -> Decision:
    """Where tools may be dropped: who answers without them is asked last, or alone where nobody else is awake."""
    if plan.drops_tools:
        return replace(plan.pick(sticky, is_question), degraded=True, drops_tools=True)
    assert plan.plain is not None
    try:
        decision = plan.pick(sticky, is_question)
    except Unavailable:
        return replace(plan.plain.pick(sticky, is_question), degraded=True, drops_tools=True)
    return replace(decision, without_tools=plan.plain.stand_ins())


def _allows_backend(request: Request, backend: Backend) -> bool:
    allowed = request.principal.backends
    return allowed is None or backend.name in allowed


def _unusable(backend: Backend, request: Request) -> str:
    if not backend.enabled:
        return "disabled"
    if not _allows_backend(request, backend):
        return not_for(request.principal.name)
    return backend.problem or ""


def _lacks(backend: Backend, asked: Wants) -> str:
    missing = asked.missing(backend.capabilities)
    return f"cannot do {missing}" if missing else ""


def _facts(request: Request, model: str, asked: Wants, tokens: int) -> Facts:
    return Facts(
        model=model,
        has_tools=asked.tools,
        has_images=asked.images,
        stream=asked.stream,
        key=request.principal.name,
        tokens=tokens,
        headers=request.headers,
    )
