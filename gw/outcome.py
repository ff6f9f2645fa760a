"""How an exchange or an attempt ended, in the words of the log, the metrics and the access line."""

from __future__ import annotations

import asyncio

from gw.errors import ClientGone, GatewayError

CLIENT_GONE = "client_gone"


def is_client_gone(error: BaseException | None) -> bool:
    """Whether this is the client's hang-up, told as itself or as the cancellation that it causes."""
    return isinstance(error, (ClientGone, asyncio.CancelledError))


def is_being_cancelled() -> bool:
    """Whether the running task is, and not only what it waits for.

    Asked here and not where a CancelledError is caught: the task keeps that, and through it the frames it came through.
    One of them that knows its task would wait for the collector.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def outcome_of(error: BaseException | None) -> str:
    """`ok`, `client_gone`, or who is at fault: a word of `gw.errors.Fault`."""
    if error is None:
        return "ok"
    if is_client_gone(error):
        return CLIENT_GONE
    return error.fault if isinstance(error, GatewayError) else "gateway"


def type_of(error: BaseException) -> str:
    """OpenAI's type of an error; `client_gone` for a hang-up."""
    if is_client_gone(error):
        return CLIENT_GONE
    return error.type if isinstance(error, GatewayError) else "api_error"


def code_of(error: BaseException) -> str | None:
    """The code of an error: OpenAI's where it has one; `client_gone` for a hang-up."""
    if is_client_gone(error):
        return CLIENT_GONE
    return error.code if isinstance(error, GatewayError) else "internal_error"


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that an error stands for, 499 for a hang-up; None for no error."""
    if error is None:
        return None
    if is_client_gone(error):
        return ClientGone.status
    return error.status if isinstance(error, GatewayError) else 500


def message_of(error: BaseException, *, may_quote: bool = True) -> str:
    """What to tell of an error. A bug of ours is told by its class only: its text may hold anything.

    A message may quote what was asked or answered, its code does not: that is told where nothing may be quoted.
    """
    if type(error) is ClientGone or isinstance(error, asyncio.CancelledError):
        return "the client hung up"
    if isinstance(error, GatewayError):
        is_ours = isinstance(error, ClientGone)
        return (error.message if may_quote or is_ours else error.code) or error.type
    return f"internal error: {type(error).__name__}"
