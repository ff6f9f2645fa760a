"""Claude through its own command line program: chat, its tools on files, and conversations, each in a process."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from gw.adapters.claude_cli.confinement import Roots
from gw.adapters.claude_cli.confinement import allowed_tools as tools_of
from gw.adapters.claude_cli.failures import Failures
from gw.adapters.claude_cli.interrupt import interrupted
from gw.adapters.claude_cli.lines import TurnReader
from gw.adapters.claude_cli.options import check_arguments, check_counts, check_tools, check_what_it_has_not, clocks_of
from gw.adapters.claude_cli.places import Place, Places
from gw.adapters.claude_cli.pool import Pool, Worker, knowledge_of
from gw.adapters.claude_cli.program import NO_PROGRAM, Program, find_program
from gw.adapters.claude_cli.prompt import Prompt, read_chat
from gw.adapters.claude_cli.starts import starts
from gw.adapters.claude_cli.turn import Clocks, End, Turn
from gw.backend_options import TimeoutTable
from gw.environ import Environ
from gw.errors import Unavailable
from gw.losses import judge, told
from gw.message import Request, Response, Summary
from gw.options import Alias
from gw.secret import Secret
from gw.shared import Shared

_CHAT_PROMPT = "You are a helpful assistant."  # without one the program sends 49 kB of its own with every request
_NAMED_NO_MODEL = frozenset({"auto", "default"})


@dataclass(frozen=True)
class _Task:
    """What one request asks of a process."""

    prompt: Prompt
    argv: list[str]
    cwd: Path | None
    instructions: dict[str, Any]  # of `initialize`
    settings: dict[str, Any]  # what is not as the process was started: model, effort

    def session(self, identifier: str | None, *, is_new: bool = True) -> list[str]:
        """The flags that are added to `argv` for a transcript; a chat without a folder keeps none."""
        return [] if self.cwd is None else Program.session(identifier, is_new=is_new)


class ClaudeCLI:
    """The Claude program as a backend; `name` is the backend's.

    `command` is the program (default: `claude` in PATH, else that of the `claude_agent_sdk` wheel), `config_dir` its
    folder with login and settings, `arguments` more of its own flags, `env` more variables. A request may use tools
    among `allowed_tools`, in a folder inside one of `roots`. At most `max_concurrent` turns run, `queue_size` wait for
    up to `queue_timeout` seconds, each may take `timeout` seconds. `min_idle` processes are started ahead of need, and
    up to `max_warm` wait for the next turn of the conversation they had; with `resume` those in a folder also leave a
    transcript in `config_dir`, so that another process can go on. `base_url` and a key make it ask another host.
    """

    key_envs: ClassVar[tuple[str, ...]] = ()
    needs_key: ClassVar[bool] = False
    capabilities: ClassVar[frozenset[str]] = frozenset({"cli_tools", "images", "stream"})

    def __init__(
        self,
        *,
        name: str = "claude-cli",
        command: str | None = None,
        config_dir: Path | None = None,
        arguments: list[str] | None = None,
        env: dict[str, str] | None = None,
        allowed_tools: list[str] | None = None,
        roots: list[Path] | None = None,
        model: str | None = None,
        system_prompt: str = _CHAT_PROMPT,
        min_idle: int = 1,
        max_warm: int = 2,
        resume: bool = False,
        max_concurrent: int = 10,
        queue_size: Annotated[int, Alias("queueSize", "maxQueue")] = 50,
        queue_timeout: float = 30.0,
        timeout: float = 120.0,
        timeouts: TimeoutTable | None = None,
        base_url: str | None = None,
        api_key: Secret | None = None,
        api_key_env: str | None = None,
        api_key_envs: list[str] | None = None,
        headers: dict[str, str] | None = None,
        ca_file: Path | None = None,
        proxy: str | None = None,
        transport: str = "own",
        environ: Environ | None = None,
        shared: Shared | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = ["Read", "Glob", "Grep"] if allowed_tools is None else list(allowed_tools)
        check_tools(self._allowed)
        check_arguments(arguments or ())
        check_counts(min_idle=min_idle, max_warm=max_warm)
        environ = environ or Environ()
        timeouts = timeouts or TimeoutTable()
        check_what_it_has_not(api_key_envs, timeouts.connect, transport)
        self._clocks = clocks_of(timeout, timeouts, environ)
        key = api_key or (environ.secret(api_key_env) if api_key_env else None)
        path = find_program(command, environ)
        self._missing = None if path is not None else NO_PROGRAM if command is None else f"no program {command!r}"
        self._program = Program(
            path=path or "claude",
            config_dir=config_dir.expanduser() if config_dir is not None else None,
            model=model,
            base_url=base_url,
            key=key,
            variables=env or {},
            arguments=tuple(arguments or ()),
            timeout=self._clocks.turn,
            environ=environ,
            headers=headers or {},
            ca_file=ca_file.expanduser() if ca_file is not None else None,
            proxy=proxy,
        )
        self._roots = Roots([Path.cwd(), Path(tempfile.gettempdir())] if roots is None else roots)
        self._resume = resume
        self._system_prompt = system_prompt
        self._queue_timeout = queue_timeout
        self._clock = clock
        self._places = Places(name, max_concurrent, queue_size, shared=shared, clock=clock)
        self._pool = Pool(self._program, min_idle=min_idle, max_warm=max_warm, clock=clock)
        self._failures = Failures(name, [*([key] if key else []), *_secrets_in(env or {})], time.time)
        self._name = name

    async def __aenter__(self) -> ClaudeCLI:
        if self._missing is None:
            await self._pool.open(starts(self._places.workers))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.close()

    @property
    def problem(self) -> str | None:
        """Why it cannot be asked, with the cure; what the program itself is like is known soon after the start."""
        return self._missing or self._pool.problem

    def pool_status(self) -> dict[str, int]:
        """The figures of `/queue/status`, over all workers."""
        return self._places.status()

    def longest_turn(self) -> float:
        """Seconds for which the longest of all turns has been running."""
        return self._places.longest()

    async def answer(self, request: Request, /) -> Response:
        """One turn in one process. Raises InvalidRequest before anybody waits, Unavailable where the queue is full."""
        if self._missing is not None:
            raise Unavailable(f'backend "{self._name}" is not ready: {self._missing}')
        task = self._read(request)
        attempt = request.exchange.attempt
        if attempt is not None:
            attempt.losses = task.prompt.losses
        judge(request.candidate.backend, task.prompt.losses)
        await self._pool.check()
        place = await self._places.take(self._queue_timeout)
        if attempt is not None:
            attempt.queue_wait = place.waited
        try:
            turn = await self._begin(request, task, place)
        except BaseException:
            place.leave(is_failed=True)
            raise
        if attempt is not None:
            attempt.summary = turn.summary  # what a turn that fails has cost is known too
        headers = told(task.prompt.losses)
        if request.is_stream:
            return Response(turn, headers=headers, summary=turn.summary)
        try:
            return Response(await turn.whole(_head(request)), headers=headers, summary=turn.summary)
        finally:
            await turn.aclose()

    # --- what is asked ----------------------------------------------------------------------------------------------

    def _read(self, request: Request) -> _Task:
        chat: Mapping[str, Any] = request.document.peek() if request.document is not None else {}
        prompt = read_chat(chat)
        settings = {}
        asked = request.candidate.model
        model = self._program.model if asked == self._name or asked in _NAMED_NO_MODEL else asked
        if prompt.effort is not None:
            settings["effortLevel"] = prompt.effort
        schema = {"jsonSchema": prompt.schema} if prompt.schema is not None else {}
        folder = chat.get("working_directory")
        is_named = any(isinstance(tool, str) for tool in chat.get("tools") or ())
        if not (folder or is_named or chat.get("cli_tools")):
            if model is not None and model != self._program.model:
                settings["model"] = model
            instructions = {"systemPrompt": [prompt.system or self._system_prompt], **schema}
            return _Task(prompt, self._program.chat(), None, instructions, settings)
        tools = tools_of(chat, self._allowed)
        cwd = self._roots.resolve(folder) if folder else None
        context = self._roots.context(cwd) if cwd is not None else None
        more = "\n\n".join(text for text in (prompt.system, context) if text)
        instructions = {**({"appendSystemPrompt": more} if more else {}), **schema}
        argv = self._program.tools(tools, model) + (Program.session(None) if cwd is None else [])
        return _Task(prompt, argv, cwd, instructions, settings)

    # --- a turn -----------------------------------------------------------------------------------------------------

    async def _begin(self, request: Request, task: _Task, place: Place) -> Turn:
        prompt, began = task.prompt, asyncio.get_running_loop().time()
        scope = (request.principal.name, task.argv, task.cwd, task.instructions, task.settings)
        knowledge = knowledge_of(scope, prompt.turns[:-1])
        try:
            async with asyncio.timeout(self._clocks.turn):
                worker, knows = await self._worker(task, knowledge)
        except TimeoutError:
            raise self._failures.timeout(f"no process could start within {self._clocks.turn:g} s") from None
        if knows:
            batches = Prompt(turns=prompt.turns[-1:]).batches()
        else:
            controls: list[dict[str, Any]] = [{"subtype": "initialize", **task.instructions}]
            if task.settings:
                controls.append({"subtype": "apply_flag_settings", "settings": task.settings})
            batches = prompt.batches(controls)
        head = _head(request)
        reader = TurnReader(
            **head,
            summary=Summary(),
            failures=self._failures,
            steps=len(batches) - 1,
            is_structured=prompt.schema is not None,
            cost_before=worker.cost,
        )
        ended = partial(self._ended, worker, reader, scope, prompt, place)
        clocks = self._clocks if request.is_stream else Clocks(self._clocks.turn)
        return Turn(worker, reader, batches, failures=self._failures, clocks=clocks, began=began, ended=ended)

    async def _worker(self, task: _Task, knowledge: bytes) -> tuple[Worker, bool]:
        """A process, and whether it knows the conversation so far."""
        worker = self._pool.warm(knowledge) or await self._resumed(task, knowledge)
        if worker is not None:
            return worker, True
        session = str(uuid.uuid4()) if self._resume and task.cwd is not None else None
        worker = await self._pool.checkout(task.argv + task.session(session), task.cwd)
        worker.session = session
        return worker, False

    async def _resumed(self, task: _Task, knowledge: bytes) -> Worker | None:
        """A new process that goes on with the transcript of one that has ended, where there is one."""
        asleep = self._pool.asleep(knowledge)
        if asleep is None:
            return None
        try:
            worker = await self._pool.checkout(task.argv + task.session(asleep.session, is_new=False), task.cwd)
        except BaseException:
            self._pool.put_to_sleep(knowledge, asleep)
            raise
        worker.session, worker.cost = asleep
        return worker

    def _ended(
        self,
        worker: Worker,
        reader: TurnReader,
        scope: object,
        prompt: Prompt,
        place: Place,
        how: End,
    ) -> None:
        place.leave(is_failed=how != "well")
        if how == "well":
            self._keep(worker, reader, scope, prompt)
        elif how == "left" and reader.text and self._pool.keeps_warm:
            self._pool.own(self._interrupt(worker, reader, scope, prompt))
        else:
            self._pool.dismiss(worker)

    async def _interrupt(self, worker: Worker, reader: TurnReader, scope: object, prompt: Prompt) -> None:
        """A client that stops an answer often goes on from what it has read of it: so may the process."""
        has_stopped = False
        try:
            has_stopped = await interrupted(worker, reader)
        finally:
            if not has_stopped:
                self._pool.dismiss(worker)
        worker.cost = reader.cost
        if has_stopped:
            self._keep(worker, reader, scope, prompt)

    def _keep(self, worker: Worker, reader: TurnReader, scope: object, prompt: Prompt) -> None:
        if worker.session is not None:
            worker.session = reader.session_id or worker.session  # older programs give a new one on resuming
        said = {"role": "assistant", "content": [{"type": "text", "text": "".join(reader.text)}]}
        self._pool.keep_warm(worker, knowledge_of(scope, [*prompt.turns, said]))


def _secrets_in(variables: Mapping[str, str]) -> list[Secret]:
    return [Secret(value) for name, value in variables.items() if name.endswith(("_KEY", "_TOKEN")) and value]


def _head(request: Request) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request.id}",
        "created": int(request.exchange.timestamp),
        "model": request.candidate.answers_as,
    }
