"""Every way a request can fail, as one tree: the class says who is at fault, the fields say what to answer.

The shape on the wire is OpenAI's: `{"error": {"message", "type", "param", "code"}}`. A message names the thing, the
cause and the cure. Whether a failure may be tried again, and where, is decided here and nowhere else
(`can_retry`, `can_fall_back`).
"""

from __future__ import annotations

from typing import Any, Literal

Fault = Literal[
    "client",  # the request itself is wrong
    "dead_key",  # the provider refused our credential
    "rate_limit",  # 429 of a provider
    "quota",  # the account has no money left: waiting does not help
    "overload",  # 503, 529
    "server",  # other 5xx
    "timeout",
    "connection",  # refused, reset, DNS, TLS
    "protocol",  # the answer is not what the provider's API says: garbage, cut short
    "refused",  # the provider refused the request (other 4xx)
    "context_length",  # the prompt does not fit this model
    "content_filter",
    "unavailable",  # nobody to ask: queue full, all cooling down
    "gateway",  # our own bug
]


class GatewayError(Exception):
    """The base of all failures that are told to a client.

    `status` is the HTTP status to answer with; `type`, `param` and `code` are OpenAI's fields; `retry_after` is in
    seconds; `headers` are added to the answer.
    """

    status: int = 500
    type: str = "api_error"
    code: str | None = "internal_error"
    fault: Fault = "gateway"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        fault: Fault | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.headers: dict[str, str] = headers or {}
        if status is not None:
            self.status = status
        if type is not None:
            self.type = type
        if code is not None:
            self.code = code
        if fault is not None:
            self.fault = fault

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape, all four keys present."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


# --- the client is at fault -------------------------------------------------------------------------------------


class InvalidRequest(GatewayError):
    """400: the request can never succeed as it is. `param` is the field as a path: `messages[2].content`."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"
    fault: Fault = "client"


class AuthenticationError(InvalidRequest):
    """401: no key, or a wrong one."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(InvalidRequest):
    """403: the key is right, the thing is not allowed; `code` says which: `forbidden_backend`, `forbidden_origin`."""

    status = 403
    code = "forbidden"


class NotFound(InvalidRequest):
    """404: `model_not_found`, `backend_not_found`, `session_not_found` or `not_found`."""

    status = 404
    code = "not_found"


class RateLimited(InvalidRequest):
    """429 by the gateway's own limit; `retry_after` says when the next request will be taken."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


# --- the gateway cannot answer ----------------------------------------------------------------------------------


class Unavailable(GatewayError):
    """503: nobody to ask just now (`queue_full`, `no_backend`)."""

    status = 503
    code = "no_backend"
    fault: Fault = "unavailable"


class ClientGone(GatewayError):
    """The client hung up. Nobody reads this; the log keeps it as status 499, nginx's word for it."""

    status = 499
    code = "client_gone"
    fault: Fault = "client"


# --- the provider is at fault -----------------------------------------------------------------------------------


class UpstreamError(GatewayError):
    """A provider failed. `status` is what our client gets, `upstream_status` what the provider said (None: nothing)."""

    status = 502
    code: str | None = "upstream_error"
    fault: Fault = "server"

    def __init__(self, message: str, *, upstream_status: int | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.upstream_status = upstream_status


class UpstreamTimeout(UpstreamError):
    """504: the provider was silent for too long; the message says at which stage."""

    status = 504
    code = "upstream_timeout"
    fault: Fault = "timeout"


class UpstreamConnectionError(UpstreamError):
    """502: no connection, or it broke: DNS, refused, reset, TLS."""

    fault: Fault = "connection"


class UpstreamProtocolError(UpstreamError):
    """502: the provider answered something that its API does not know: garbage, cut short, an event out of order."""

    code = "upstream_protocol_error"
    fault: Fault = "protocol"


class UpstreamRefused(UpstreamError):
    """The provider refused the request itself (its 4xx): told with its status, its code and its message."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None
    fault: Fault = "refused"


class ConfigError(Exception):
    """The configuration cannot stand. `problems` holds every one of them, each a whole sentence with its cure."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


_RETRY: frozenset[str] = frozenset({"rate_limit", "overload", "server", "timeout", "connection", "protocol"})
_FALL_BACK: frozenset[str] = _RETRY | {"dead_key", "quota", "context_length", "unavailable"}


def can_retry(error: GatewayError) -> bool:
    """Whether the same backend may be asked again: the fault passes by itself."""
    return error.fault in _RETRY


def can_fall_back(error: GatewayError) -> bool:
    """Whether another backend may be asked: the fault lies with this provider, not with the request."""
    return error.fault in _FALL_BACK
