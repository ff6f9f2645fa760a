"""Why a request would go where it would go: every candidate with its reason, and what would be sent. Nothing is called.

The same decision that serves requests is shown by `gw explain` and by `POST /route`; it takes nobody's turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from gw.adapter import WireRequest
from gw.backend import Backends
from gw.document import Document
from gw.errors import GatewayError
from gw.known_secrets import CREDENTIAL, HIDDEN, KnownSecrets
from gw.message import Candidate, Loss, Request
from gw.sessions import Sessions
from gw.wants import without_tools

if TYPE_CHECKING:
    from gw.routing import Decision, Router

MAX_CONTENT = 64 * 1024  # bytes of the wire's body that are shown; the rest is counted


def explain(request: Request, router: Router, backends: Backends, secrets: KnownSecrets) -> dict[str, Any]:
    """The decision for a request whose body was read, as JSON values; a refusal is part of the explanation."""
    page: dict[str, Any] = {"model": request.exchange.model, "key": request.principal.name}
    page["rules"] = [{"when": when, "fails": fails} for when, fails in router.rules_tried(request)]
    try:
        decision = _decision(request, router)
    except GatewayError as error:
        return page | {"error": error.body()["error"], "status": error.status, "candidates": []}
    if decision.drops_tools:
        request = _untooled(request)
    page["degraded"] = decision.degraded
    page["drops_tools"] = decision.drops_tools
    page["candidates"] = [_candidate(candidate, request) for candidate in decision.candidates]
    page["candidates"] += [
        _candidate(replace(candidate, reason=f"without the tools; {candidate.reason}"), _untooled(request))
        for candidate in decision.without_tools
    ]
    page["skipped"] = [{"backend": name, "reason": reason} for name, reason in decision.skipped]
    page["chain"] = list(backends.chain)
    page["request"] = _first_wire(request, decision, secrets)
    return page


def _decision(request: Request, router: Router) -> Decision:
    """What a request would be answered by; where it goes on with a session, by that session's backend first."""
    decision = router.decide(request, is_question=True)
    candidates = Sessions.prefer(
        request, decision.candidates, lambda named: router.decide(named, is_question=True).candidates
    )
    return replace(decision, candidates=candidates)


def _untooled(request: Request) -> Request:
    assert request.document is not None, "the body is read before route"
    return request.replace(document=Document(value=without_tools(request.document.peek())))


def _candidate(candidate: Candidate, request: Request) -> dict[str, Any]:
    backend = candidate.backend
    shown = {
        "backend": backend.name,
        "adapter": backend.kind,
        "model": candidate.model,
        "answers_as": candidate.answers_as,
        "reason": candidate.reason,
    }
    if backend.is_cooling:
        shown["reason"] = f"cooling down for {backend.cooling_for:.0f} s: {backend.cooling_reason}"
    elif backend.on_loss != "allow" and (losses := _losses(candidate, request)):
        verdict = "refuses" if backend.on_loss == "reject" else "passes on"
        shown["reason"] += f"; {verdict} what it cannot carry: {', '.join(loss.pointer for loss in losses)}"
    return shown


def _losses(candidate: Candidate, request: Request) -> Sequence[Loss]:
    if candidate.backend.adapter is None:
        return ()
    try:
        return candidate.backend.adapter.open(_keyed(candidate, request)).losses
    except GatewayError:
        return ()


def _keyed(candidate: Candidate, request: Request) -> Request:
    """The request as an adapter opens it: with one of the backend's keys."""
    if candidate.key is None:
        candidate = replace(candidate, key=next(iter(candidate.backend.keys), None))
    return request.replace(candidates=(candidate,))


def _first_wire(request: Request, decision: Decision, secrets: KnownSecrets) -> dict[str, Any]:
    """What the first candidate's provider would get, keys masked."""
    first = decision.candidates[0]
    if first.backend.adapter is None:
        return {"answered_by": first.backend.kind, "wire": None}
    try:
        codec = first.backend.adapter.open(_keyed(first, request))
    except GatewayError as error:
        return {"error": error.body()["error"], "status": error.status}
    return _shown(codec.wire, secrets) | {"losses": [loss._asdict() for loss in codec.losses]}


def _shown(wire: WireRequest, secrets: KnownSecrets) -> dict[str, Any]:
    content: Any = secrets.scrub(wire.content[:MAX_CONTENT].decode("utf-8", "replace"))
    if len(wire.content) <= MAX_CONTENT:
        with suppress(ValueError):
            content = orjson.loads(content)
    return {
        "method": wire.method,
        "url": secrets.scrub(wire.url),
        "headers": {name: HIDDEN if CREDENTIAL.search(name) else secrets.scrub(value) for name, value in wire.headers},
        "body": content,
        "bytes": len(wire.content),
    }


def as_text(page: dict[str, Any]) -> str:
    """The explanation for a terminal."""
    lines = [f"model {page['model'] or 'auto'}, key {page['key']}"]
    lines += [f"  rule `{rule['when']}`: {_rule_text(rule['fails'])}" for rule in page["rules"]]
    if "error" in page:
        return "\n".join([*lines, f"  refused: {page['status']} {page['error']['code']}: {page['error']['message']}"])
    for number, candidate in enumerate(page["candidates"], 1):
        name = f"{candidate['backend']} ({candidate['adapter']}, {candidate['model']})"
        lines.append(f"  {number}. {name}: {candidate['reason']}")
    lines += [f"  -  {skipped['backend']}: {skipped['reason']}" for skipped in page["skipped"]]
    if page["drops_tools"]:
        lines.append("  the tools are dropped: nobody who is ready can run them")
    request = page["request"]
    if "url" in request:
        lines.append(f"  sends {request['method']} {request['url']}, {request['bytes']} bytes")
        lines += [f"    {name}: {value}" for name, value in request["headers"].items()]
        body = request["body"]
        lines.append(f"    {body if isinstance(body, str) else orjson.dumps(body).decode()}")
        lines += [f"    {loss['kind']} {loss['pointer']}: {loss['detail']}" for loss in request["losses"]]
    elif "error" in request:
        lines.append(f"  would refuse: {request['error']['message']}")
    else:
        lines.append(f"  answered by {request['answered_by']} itself: nothing is sent")
    return "\n".join(lines)


def _rule_text(fails: str | None) -> str:
    return "matches" if fails is None else f"no, `{fails}` does not hold"
