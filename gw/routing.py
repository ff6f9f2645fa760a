"""Which backends may answer, best first: the one fixed order of both founding documents, decided without any I/O.

1. named by the client: in the URL, in the body, or as `backend/model`
2. the first rule that matches: its own list, in its own order
3. everybody who is ready, allowed, able and serves the model: long context first where it is needed, then the cheapest
   or the default backend, then the fallback chain; equals take turns
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gw.backend import Backend, Backends
from gw.errors import Forbidden, GatewayError, InvalidRequest, NotFound, Unavailable
from gw.message import Candidate, Request
from gw.near import near
from gw.ordering import AUTO, NO_BACKEND, Able, Ordering, Plan, Skipped
from gw.rules import Facts, Rule
from gw.wants import FIELD_OF, Wants, estimated_tokens, wants

MAX_PLANS = 1024  # kinds of requests that are remembered; a model's name comes from the client


@dataclass(slots=True, frozen=True)
class Target:
    """One backend of a rule's list; `model` is what to ask it for (default: by its own mapping)."""

    backend: str
    model: str | None = None


class Decision(NamedTuple):
    """What was decided for one request: who may answer, best first, and who may not."""

    candidates: Sequence[Candidate]
    skipped: Sequence[Skipped]
    degraded: bool  # a better candidate exists but is cooling down, or tools are dropped
    drops_tools: bool = False  # nobody can run the tools, and the operator prefers an answer without them


class Router:
    """Decides for one request who may answer. No I/O; the same decision serves requests and `gw explain`.

    What depends on the configuration alone is remembered per kind of request (`Plan`); whose turn it is and who is
    cooling down is looked up each time. The backends' settings do not change while a Router lives.
    """

    def __init__(
        self,
        backends: Backends,
        ordering: Ordering,
        rules: Sequence[tuple[Rule, Sequence[Target]]],
        unknown_model: Literal["error", "route"],
    ) -> None:
        self._backends = backends
        self._ordering = ordering
        self._rules = rules
        self._unknown_model = unknown_model
        self._plans: dict[tuple[object, ...], Plan] = {}
        self._lengths = {backend.context_length for backend in backends if backend.context_length is not None}

    def decide(self, request: Request) -> Decision:
        """The candidates for a request, or GatewayError where there are none. Reads, never writes."""
        assert request.document is not None, "the body is read before route"
        chat = request.document.peek()
        model = chat.get("model") or AUTO
        asked = wants(chat)
        named, model = self._explicit(request, chat, model)
        if named is not None:
            return self._only(named, chat, model, asked, request)
        if chat.get("session_id"):
            raise NotFound(
                f"session {chat['session_id']} does not exist: leave session_id out to begin one",
                code="session_not_found",
                param="session_id",
            )
        tokens = estimated_tokens(chat)
        if self._rules:
            facts = _facts(request, model, asked, tokens)
            for rule, targets in self._rules:
                if rule.matches(facts):
                    return self._by_rule(rule, targets, model, asked, request)
        return self._ordered(request, tokens, model, asked)

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
                raise NotFound(
                    f'backend "{name}" does not exist{near(name, self._backends.names())}; '
                    f"configured: {', '.join(self._backends.names())}",
                    code="backend_not_found",
                    param="backend",
                )
            backend = self._backends[name]
            prefix = f"{name}/"
            if model.startswith(prefix) and model not in backend.models:
                model = model[len(prefix) :]
            return backend, model
        before, slash, after = model.partition("/")
        if slash and after and before in self._backends:
            return self._backends[before], after
        return None, model

    def _only(self, backend: Backend, chat: Mapping[str, Any], model: str, asked: Wants, request: Request) -> Decision:
        """The backend that the client named, then whoever else could answer, should `explicit_fallback` allow it."""
        if not _allows_backend(request, backend):
            raise Forbidden(
                f'key "{request.principal.name}" may not use backend "{backend.name}"',
                code="forbidden_backend",
                param="backend",
            )
        if not backend.enabled:
            raise Unavailable(f'backend "{backend.name}" is disabled: set enabled = true in gateway.toml')
        if backend.problem is not None:
            raise Unavailable(f'backend "{backend.name}" is not ready: {backend.problem}')
        self._check_model_allowed(request, model)
        missing = asked.missing(backend.capabilities)
        if missing is not None:
            raise _incapable(missing, f'backend "{backend.name}"')
        upstream = backend.upstream_model(model) if model != AUTO else backend.default_model()
        if upstream is None and model == AUTO:
            raise InvalidRequest(
                f'backend "{backend.name}" has no model of its own: name one in `model`', param="model"
            )
        # A backend that the client named gets the model that the client named, mapped or not.
        first = Candidate(
            backend, upstream or model, upstream or model if model == AUTO else model, "named by the client", True
        )
        if not self._backends.explicit_fallback:
            return Decision([first], (), False)
        try:
            others = self._ordered(request, estimated_tokens(chat), model, asked).candidates
        except GatewayError:
            others = ()  # nobody else could answer; that matters only if the named one fails
        return Decision([first, *(other for other in others if other.backend is not backend)], (), False)

    # --- 2: rules -----------------------------------------------------------------------------------------------

    def _by_rule(self, rule: Rule, targets: Sequence[Target], model: str, asked: Wants, request: Request) -> Decision:
        found: list[Able] = []
        skipped: list[Skipped] = []
        self._check_model_allowed(request, model)
        for target in targets:
            backend = self._backends[target.backend]
            reason = _unusable(backend, request) or _lacks(backend, asked)
            upstream = target.model or _served(backend, model)
            if upstream is None and not reason:
                upstream = backend.default_model()  # a rule may send any name: the backend answers with its own model
            if reason or upstream is None:
                skipped.append(Skipped(backend.name, reason or f'no model for "{model}"'))
            else:
                found.append((backend, upstream))
        if not found:
            self._raise_incapable([self._backends[target.backend] for target in targets], asked, request)
            raise Unavailable(NO_BACKEND + _reasons(skipped))
        # The rule's own order stands: nobody takes turns.
        candidates, degraded = Plan(found, 1, model, f"rule `{rule.text}`", skipped).pick()
        return Decision(candidates, skipped, degraded)

    # --- 3: everybody -------------------------------------------------------------------------------------------

    def _ordered(self, request: Request, tokens: int, model: str, asked: Wants) -> Decision:
        self._check_model_allowed(request, model)
        kind = (model, asked, request.principal.name, self._ordering.bucket(tokens), self._longest_fit(tokens))
        plan = self._plans.get(kind)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = self._plans[kind] = self._plan(request, tokens, model, asked)
        candidates, degraded = plan.pick()
        return Decision(candidates, plan.skipped, degraded or plan.drops_tools, plan.drops_tools)

    def _longest_fit(self, tokens: int) -> int:
        """How many of the configured context lengths a prompt is too long for: it decides who has room."""
        return sum(tokens > length for length in self._lengths) if self._lengths else 0

    def _plan(self, request: Request, tokens: int, model: str, asked: Wants) -> Plan:
        serving, skipped = self._serving(request, model)
        if not serving and model != AUTO:
            if self._unknown_model == "error" and not self._somebody_serves(model):
                raise _model_not_found(model, self.model_names())
            if self._unknown_model == "route":
                model = AUTO
                serving, skipped = self._serving(request, model)
        able = [(backend, upstream) for backend, upstream in serving if not _lacks(backend, asked)]
        skipped += [Skipped(backend.name, reason) for backend, _ in serving if (reason := _lacks(backend, asked))]
        drops_tools = not able and self._backends.drop_tools and (asked.functions or asked.cli_tools)
        if drops_tools:
            plain = asked._replace(functions=False, cli_tools=False)
            able = [(backend, upstream) for backend, upstream in serving if not _lacks(backend, plain)]
        if not able:
            self._raise_incapable([backend for backend, _ in serving], asked, request)
            raise Unavailable(NO_BACKEND + _reasons(skipped))
        roomy = [entry for entry in able if entry[0].context_length is None or tokens <= entry[0].context_length]
        if not roomy:
            longest = max(backend.context_length or 0 for backend, _ in able)
            raise InvalidRequest(
                f"the prompt is about {tokens} tokens long; the longest context here is {longest}: shorten it",
                code="context_length_exceeded",
                param="messages",
            )
        plan = self._ordering.plan(roomy, model, tokens, skipped)
        plan.drops_tools = drops_tools
        return plan

    def _serving(self, request: Request, model: str) -> tuple[list[Able], list[Skipped]]:
        found: list[Able] = []
        reserve: list[Able] = []
        skipped: list[Skipped] = []
        for backend in self._backends:
            reason = _unusable(backend, request)
            upstream = _served(backend, model)
            if reason:
                skipped.append(Skipped(backend.name, reason))
            elif upstream is None:
                skipped.append(Skipped(backend.name, f'does not serve "{model}"'))
            elif backend.explicit_only and model != backend.name:
                reserve.append((backend, upstream))
            else:
                found.append((backend, upstream))
        if found or (model != AUTO and self._unknown_model == "error"):
            return found, skipped
        return reserve, skipped  # echo answers `auto` when nobody else is ready

    # --- names ---------------------------------------------------------------------------------------------------

    def model_names(self) -> list[str]:
        """Every name that `model` may have here: backends, the keys of their mappings, rules' plain model names."""
        names: dict[str, None] = {}
        for backend in self._backends:
            if backend.enabled:
                names[backend.name] = None
                names.update(dict.fromkeys(backend.models))
        for rule, _ in self._rules:
            word, _, value = rule.text.partition(":")
            if word.strip() == "model" and not set("*?[ ") & set(value.strip()):
                names[value.strip()] = None
        return list(names)

    def _somebody_serves(self, model: str) -> bool:
        return any(
            backend.enabled and not backend.explicit_only and _served(backend, model) is not None
            for backend in self._backends
        )

    def _check_model_allowed(self, request: Request, model: str) -> None:
        allowed = request.principal.models
        if allowed is not None and model not in allowed:
            raise Forbidden(
                f'key "{request.principal.name}" may not use model "{model}" (allowed: {", ".join(sorted(allowed))})',
                code="forbidden_backend",
                param="model",
            )

    def _raise_incapable(self, backends: Sequence[Backend], asked: Wants, request: Request) -> None:
        """400 where those who could be asked all lack the same kind of thing."""
        usable = [backend for backend in backends if not _unusable(backend, request)]
        missing = [asked.missing(backend.capabilities) for backend in usable]
        if missing and missing[0] is not None and all(missing):
            raise _incapable(missing[0], "the backends that serve this model")


def _served(backend: Backend, model: str) -> str | None:
    if model == AUTO or model == backend.name:
        return backend.default_model()
    return backend.upstream_model(model)


def _allows_backend(request: Request, backend: Backend) -> bool:
    allowed = request.principal.backends
    return allowed is None or backend.name in allowed


def _unusable(backend: Backend, request: Request) -> str:
    if not backend.enabled:
        return "disabled"
    if backend.problem is not None:
        return backend.problem
    if not _allows_backend(request, backend):
        return f'not allowed for key "{request.principal.name}"'
    return ""


def _lacks(backend: Backend, asked: Wants) -> str:
    missing = asked.missing(backend.capabilities)
    return f"cannot do {missing}" if missing else ""


def _facts(request: Request, model: str, asked: Wants, tokens: int) -> Facts:
    return Facts(
        model=model,
        has_tools=asked.functions or asked.cli_tools,
        has_images=asked.images,
        stream=asked.stream,
        key=request.principal.name,
        tokens=tokens,
        headers=request.headers,
    )


def _reasons(skipped: Sequence[Skipped]) -> str:
    return ": " + "; ".join(f"{name}: {reason}" for name, reason in skipped[:8]) if skipped else ""


def _incapable(missing: str, who: str) -> InvalidRequest:
    what = {
        "functions": "call functions",
        "cli_tools": 'run CLI tools (`"tools": ["Read", ...]`, `working_directory`); a claude-cli backend does',
        "images": "read images",
        "stream": "stream",
    }[missing]
    return InvalidRequest(f"{who} cannot {what}", code="unsupported_parameter", param=FIELD_OF[missing])


def _model_not_found(model: str, names: Sequence[str]) -> NotFound:
    hint = near(model, names)
    return NotFound(f"The model `{model}` does not exist{hint}", code="model_not_found", param="model")
