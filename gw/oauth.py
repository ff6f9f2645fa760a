"""Google OAuth access tokens for Vertex AI: from a service account, a command or the environment; cached and renewed.

A token is renewed about five minutes before it expires, by one request at a time while the others wait or go on with
the old one. A token that a provider refuses is thrown away and asked for anew.

https://developers.google.com/identity/protocols/oauth2/service-account
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from gw.errors import ConfigError, UpstreamConnectionError, UpstreamError, UpstreamTimeout
from gw.scrub import scrub
from gw.secret import Secret

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EARLY = 300.0  # seconds before its end at which a token is renewed
# A command says nothing of its token's age: gcloud hands out one that it keeps while it is good for some minutes yet.
COMMAND_LIFETIME = EARLY + 240.0
COMMAND_TIMEOUT = 30.0  # seconds
YOUNG = 10.0  # seconds; a token that is refused so soon after it was made is not made worse by its age
PAUSE = 10.0  # seconds between tries to renew a token that is still good


class Grant(NamedTuple):
    """An access token and how long it is good for, in seconds from now."""

    token: Secret
    lifetime: float


class TokenSource(Protocol):
    """Where an adapter gets its bearer token."""

    async def token(self) -> Secret:
        """A token that is good now. Raises UpstreamError (502, 504) where none is to be had."""

    def refuse(self, token: Secret | None) -> None:
        """The provider refused this token: the next one must be another."""

    @property
    def problem(self) -> str | None:
        """What keeps it from working, with the cure, as far as that is known without asking; None is nothing."""


class EnvironmentToken:
    """A token that somebody else keeps fresh in an environment variable."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def token(self) -> Secret:
        """What the variable holds now. Raises UpstreamError (502) where that is nothing."""
        if self.problem is not None:
            raise _no_token(self.problem)
        return Secret(os.environ[self._name].strip())

    def refuse(self, token: Secret | None) -> None:
        """Nothing can be done here: whoever sets the variable must renew it."""

    @property
    def problem(self) -> str | None:
        """Why there is no token: the variable is empty."""
        return None if os.environ.get(self._name, "").strip() else f"no token, set {self._name}"


class CachedToken:
    """A token that is fetched when it is needed and kept until shortly before its end.

    `fetch` raises UpstreamError where it fails; while the former token is still good that is borne with. `source` is
    the file that it reads.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Grant]],
        *,
        source: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._source = source
        self._clock = clock
        self._token: Secret | None = None
        self._fetched = self._renew_at = self._ends = 0.0  # seconds of `clock`
        self._renewal: asyncio.Task[Secret] | None = None

    async def token(self) -> Secret:
        """A good token, renewed first where its end is near. Raises UpstreamError where none is to be had."""
        now = self._clock()
        if self._token is not None and now < self._renew_at:
            return self._token
        former = self._token if now < self._ends else None
        # One renewal for all who wait; whoever of them gives up does not take it from the others.
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
            self._renewal.add_done_callback(_seen)
        try:
            return await asyncio.shield(self._renewal)
        except UpstreamError:
            if former is None:
                raise
            self._renew_at = now + PAUSE
            return former

    async def _renew(self) -> Secret:
        grant = await self._fetch()
        self._fetched = self._clock()
        self._ends = self._fetched + grant.lifetime
        self._renew_at = self._ends - min(EARLY, grant.lifetime / 2)
        self._token = grant.token
        return grant.token

    def refuse(self, token: Secret | None) -> None:
        """Throw the token away if it is the present one, and not so young that another would fare no better."""
        if token is not None and token == self._token and self._clock() - self._fetched >= YOUNG:
            self._token = None
            self._renew_at = self._ends = 0.0

    @property
    def problem(self) -> str | None:
        """Its file is not there; what else may be wrong is known when the first token is asked for."""
        is_missing = self._source is not None and not self._source.exists()
        return f"no credentials, there is no file {self._source}" if is_missing else None


def _seen(task: asyncio.Task[Secret]) -> None:
    if not task.cancelled():
        task.exception()  # read by those who wait; where all have gone it is nobody's, and no warning


def _no_token(why: str) -> UpstreamError:
    return UpstreamError(f"no access token for Google: {why}", code="upstream_auth_error", fault="dead_key")


# --- a command ------------------------------------------------------------------------------------------------------


def token_of_command(command: Sequence[str], *, timeout: float = COMMAND_TIMEOUT) -> Callable[[], Awaitable[Grant]]:
    """A `fetch` that runs a command, without a shell, and reads a token from its output.

    The output is the bare token, or a JSON object with `access_token` and perhaps `expires_in` (seconds).
    """

    async def fetch() -> Grant:
        name = command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise _no_token(f"token_command {name!r} cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(timeout):
                output, complaint = await process.communicate()
        except TimeoutError:
            raise UpstreamTimeout(f"token_command {name!r} did not end within {timeout:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            said = scrub(complaint.decode("utf-8", "replace").strip())[:300]
            raise _no_token(f"token_command {name!r} ended with status {process.returncode}: {said}")
        return _grant(output, name)

    return fetch


def _grant(output: bytes, name: str) -> Grant:
    text, lifetime = output.decode("utf-8", "replace").strip(), COMMAND_LIFETIME
    if text.startswith("{"):
        try:
            value: Any = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = {}
        text = str(value.get("access_token") or "")
        if isinstance(value.get("expires_in"), int | float):
            lifetime = float(value["expires_in"])
    if not text or not text.isascii() or len(text.split()) != 1:
        raise _no_token(f"token_command {name!r} printed no token: it must print one word, or JSON with access_token")
    return Grant(Secret(text), lifetime)


# --- a service account ----------------------------------------------------------------------------------------------


def token_of_file(path: Path, *, timeout: float = 30.0) -> Callable[[], Awaitable[Grant]]:
    """A `fetch` that exchanges the key of a service account, or a user's refresh token, for an access token.

    The file is Google's JSON, read anew each time, so that a rotated key needs no restart. Needs the package
    google-auth (`pip install gw[vertex]`), imported on first use.
    """

    async def fetch() -> Grant:
        # google-auth is synchronous, and signing is slow: both stay off the event loop.
        return await asyncio.to_thread(_exchange, path, timeout)

    return fetch


def _exchange(path: Path, timeout: float) -> Grant:
    exceptions: Any = import_module("google.auth.exceptions")
    credentials = _credentials(path)
    try:
        credentials.refresh(_HTTP(timeout))
    except exceptions.TransportError as error:
        raise UpstreamConnectionError(f"no access token for Google: {scrub(str(error))[:300]}") from error
    except exceptions.GoogleAuthError as error:
        raise _no_token(f"{path.name} was refused: {scrub(str(error))[:300]}") from error
    ends = credentials.expiry  # naive, in UTC
    lifetime = 3600.0 if ends is None else ends.replace(tzinfo=UTC).timestamp() - time.time()
    return Grant(Secret(credentials.token), lifetime)


def _credentials(path: Path) -> Any:
    exceptions: Any = import_module("google.auth.exceptions")
    try:
        content: Any = orjson.loads(path.read_bytes())
    except OSError as error:
        raise _no_token(f"{path.name} cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError:
        raise _no_token(f"{path.name} is not JSON") from None
    kind = content.get("type") if isinstance(content, dict) else None
    try:
        if kind == "service_account":
            service_account: Any = import_module("google.oauth2.service_account")
            return service_account.Credentials.from_service_account_info(content, scopes=[SCOPE])
        if kind == "authorized_user":
            user: Any = import_module("google.oauth2.credentials")
            return user.Credentials.from_authorized_user_info(content, scopes=[SCOPE])
    except (ValueError, exceptions.GoogleAuthError) as error:
        raise _no_token(f"{path.name} is not a usable key: {scrub(str(error))[:200]}") from error
    raise _no_token(f"{path.name} is of type {kind!r}: use the JSON key of a service account")


class _HTTP:
    """What google-auth sends its requests with: httpx, where its own transports would need another library."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def __call__(
        self, url: str, method: str = "GET", body: Any = None, headers: Any = None, timeout: Any = None, **_: Any
    ) -> _Reply:
        import httpx

        exceptions: Any = import_module("google.auth.exceptions")
        try:
            reply = httpx.request(method, url, content=body, headers=headers, timeout=self._timeout)
        except httpx.HTTPError as error:
            raise exceptions.TransportError(f"{url}: {error or type(error).__name__}") from error
        return _Reply(reply.status_code, dict(reply.headers), reply.content)


class _Reply(NamedTuple):
    """An HTTP answer as google-auth reads it."""

    status: int
    headers: dict[str, str]
    data: bytes


# --- the choice -----------------------------------------------------------------------------------------------------


def google_tokens(
    credentials: Path | None = None,
    token_env: str | None = None,
    token_command: Sequence[str] | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> TokenSource | None:
    """The source that a backend's options name; without any, the file in GOOGLE_APPLICATION_CREDENTIALS, or None.

    Raises ConfigError where more than one is named, or google-auth is needed and not installed.
    """
    named = [name for name, value in _names(credentials, token_env, token_command) if value]
    if len(named) > 1:
        raise ConfigError([f"{' and '.join(named)} are both given: keep one of them"])
    if token_env:
        return EnvironmentToken(token_env)
    if token_command:
        return CachedToken(token_of_command(list(token_command)), clock=clock)
    path = credentials
    if path is None and os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        path = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
    if path is None:
        return None
    if find_spec("google") is None or find_spec("google.auth") is None:
        raise ConfigError(["credentials needs the package google-auth: pip install gw[vertex]"])
    path = path.expanduser()
    return CachedToken(token_of_file(path), source=path, clock=clock)


def _names(credentials: Any, token_env: Any, token_command: Any) -> list[tuple[str, Any]]:
    return [("credentials", credentials), ("token_env", token_env), ("token_command", token_command)]
