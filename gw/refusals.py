"""Why a request cannot be routed, each time as an error that names the cure."""

from __future__ import annotations

from collections.abc import Sequence

from gw.errors import Forbidden, GatewayError, InvalidRequest, NotFound, Unavailable
from gw.near import near
from gw.plan import NO_BACKEND, Skipped
from gw.wants import FIELD_OF

NOT_READY = 30.0  # seconds until it is worth asking again where only an operator can help
SERVES_NOT = "does not serve"
SHOWN = 8  # backends that a message tells of, at most


def unknown_backend(name: str, known: Sequence[str]) -> NotFound:
    """404: nobody is called so."""
    return NotFound(
        f'backend "{name}" does not exist{near(name, known)}; configured: {", ".join(known)}',
        code="backend_not_found",
        param="backend",
    )


def unknown_model(model: str, names: Sequence[str]) -> NotFound:
    """404: nobody serves it."""
    hint = near(model, names)
    return NotFound(f"The model `{model}` does not exist{hint}", code="model_not_found", param="model")


def behind_slash(model: str) -> str:
    """The model of `backend/model`; NotFound where there is none."""
    backend, _, name = model.partition("/")
    if not name:
        raise NotFound(
            f'The model `{model}` does not exist: write `{backend}/MODEL`, or `"backend": "{backend}"` for its own',
            code="model_not_found",
            param="model",
        )
    return name


def no_model_of_its_own(backend: str) -> InvalidRequest:
    """400: it has to be told a model."""
    return InvalidRequest(f'backend "{backend}" has no model of its own: name one in `model`', param="model")


def incapable(missing: str, who: str) -> InvalidRequest:
    """400: a capability is missing."""
    what = {
        "functions": "call functions",
        "cli_tools": 'run CLI tools (`"tools": ["Read", ...]`, `working_directory`); a claude-cli backend does',
        "images": "read images",
        "stream": "stream",
    }[missing]
    return InvalidRequest(f"{who} cannot {what}", code="unsupported_parameter", param=FIELD_OF[missing])


def not_ready(message: str) -> Unavailable:
    """503 until an operator has helped."""
    return Unavailable(message, retry_after=NOT_READY)


def not_for(key: str) -> str:
    """The reason of a backend that a key may not use."""
    return f'not allowed for key "{key}"'


def nobody(skipped: Sequence[Skipped], key: str) -> GatewayError:
    """403 where it is the key that keeps the request from everybody who may serve it, else 503 with every reason."""
    kept = [name for name, reason in skipped if reason == not_for(key)]
    if kept and all(reason == not_for(key) or reason.startswith(SERVES_NOT) for _, reason in skipped):
        return Forbidden(
            f'key "{key}" may not use a backend that serves this ({", ".join(kept[:SHOWN])})',
            code="forbidden_backend",
            param="model",
        )
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped[:SHOWN])
    return not_ready(f"{NO_BACKEND}: {reasons}" if reasons else NO_BACKEND)
