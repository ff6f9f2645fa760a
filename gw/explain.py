"""Why a request would go where it would go: every candidate with its reason, and what would be sent. Nothing is called.

The same decision that serves requests is shown by `gw explain` and by `POST /route`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson

from gw.adapter import WireRequest
from gw.backend import Backends
from gw.errors import GatewayError
from gw.known_secrets import HIDDEN, KnownSecrets
from gw.message import Candidate, Request
from gw.routing import Decision, Router

MAX_CONTENT = 64 * 1024  # bytes of the wire's body that are shown; the rest is counted
_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"})


def explain(request: Request, router: Router, backends: Backends, secrets: KnownSecrets) -> dict[str, Any]:
    """The decision for a request whose body was read, as JSON values; a refusal is part of the explanation."""
    page: dict[str, Any] = {"model": request.exchange.model, "key": request.principal.name}
    try:
        decision = router.decide(request)
    except GatewayError as error:
        return page | {"error": error.body()["error"], "status": error.status, "candidates": []}
    page["degraded"] = decision.degraded
    page["candidates"] = [_candidate(candidate, index) for index, candidate in enumerate(decision.candidates)]
    page["skipped"] = [{"backend": name, "reason": reason} for name, reason in decision.skipped]
    page["chain"] = list(backends.chain)
    page["request"] = _wire(request, decision, secrets)
    return page


def _candidate(candidate: Candidate, index: int) -> dict[str, Any]:
    backend = candidate.backend
    shown = {
        "backend": backend.name,
        "adapter": backend.kind,
        "model": candidate.model,
        "answers_as": candidate.answers_as,
        "reason": candidate.reason if index == 0 else "next, should those before it fail",
    }
    if backend.is_cooling:
        shown["reason"] = f"cooling down for {backend.cooling_for:.0f} s: {backend.cooling_reason}"
    return shown


def _wire(request: Request, decision: Decision, secrets: KnownSecrets) -> dict[str, Any]:
    """What the first candidate's provider would get, keys masked."""
    first = decision.candidates[0]
    if first.backend.adapter is None:
        return {"answered_by": first.backend.kind, "wire": None}
    keyed = first if first.key is not None else first._replace(key=next(iter(first.backend.keys), None))
    try:
        codec = first.backend.adapter.open(request.replace(candidates=(keyed,)))
    except GatewayError as error:
        return {"error": error.body()["error"], "status": error.status}
    return _shown(codec.wire, secrets) | {"losses": [loss._asdict() for loss in codec.losses]}


def _shown(wire: WireRequest, secrets: KnownSecrets) -> dict[str, Any]:
    content: Any = wire.content[:MAX_CONTENT].decode("utf-8", "replace")
    if len(wire.content) <= MAX_CONTENT:
        with suppress(ValueError):
            content = orjson.loads(wire.content)
    return {
        "method": wire.method,
        "url": secrets.scrub(wire.url),
        "headers": {
            name: HIDDEN if name.lower() in _CREDENTIALS else secrets.scrub(value) for name, value in wire.headers
        },
        "body": content,
        "bytes": len(wire.content),
    }


def as_text(page: dict[str, Any]) -> str:
    """The explanation for a terminal."""
    lines = [f"model {page['model'] or 'auto'}, key {page['key']}"]
    if "error" in page:
        return "\n".join([*lines, f"  refused: {page['status']} {page['error']['code']}: {page['error']['message']}"])
    for number, candidate in enumerate(page["candidates"], 1):
        name = f"{candidate['backend']} ({candidate['adapter']}, {candidate['model']})"
        lines.append(f"  {number}. {name}: {candidate['reason']}")
    lines += [f"  -  {skipped['backend']}: {skipped['reason']}" for skipped in page["skipped"]]
    request = page["request"]
    if "url" in request:
        lines.append(f"  sends {request['method']} {request['url']}, {request['bytes']} bytes")
        lines += [f"    {name}: {value}" for name, value in request["headers"].items()]
        lines.append(f"    {orjson.dumps(request['body']).decode()[:2000]}")
        lines += [f"    {loss['kind']} {loss['pointer']}: {loss['detail']}" for loss in request["losses"]]
    elif "error" in request:
        lines.append(f"  would refuse: {request['error']['message']}")
    else:
        lines.append(f"  answered by {request['answered_by']} itself: nothing is sent")
    return "\n".join(lines)
