#!/usr/bin/env python3
"""A `claude` that speaks the real one's lines and does as it is told by FAKE_CLAUDE, a JSON file named there.

The file holds {"modes": [...], "log": path}. Each process appends one line to the log when it ends its reading of the
start: argv, environment, cwd; and one for each line of its stdin. `modes` are taken by turns of the whole file's life:
the n-th turn of all processes gets the n-th mode, the last one serves all that follow. A prompt "do MODE" names its
own.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from typing import Any

VERSION = "2.1.330"


def plan() -> dict[str, Any]:
    with open(os.environ["FAKE_CLAUDE"], encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
        return found


def record(entry: dict[str, Any]) -> None:
    with open(plan()["log"], "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"pid": os.getpid(), **entry}) + "\n")


def next_mode() -> str:
    with open(plan()["log"] + ".turns", "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        turn = len(file.read())
        file.write(".")
    modes = plan().get("modes") or ["answer"]
    return str(modes[min(turn, len(modes) - 1)])


def say(**line: Any) -> None:
    sys.stdout.write(json.dumps({"session_id": SESSION, "parent_tool_use_id": None, **line}) + "\n")
    sys.stdout.flush()


def event(kind: str, **fields: Any) -> None:
    say(type="stream_event", event={"type": kind, **fields})


def result(**fields: Any) -> None:
    global COST
    usage = {"input_tokens": 7, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1, "output_tokens": 3}
    whole = {"subtype": "success", "is_error": False, "stop_reason": "end_turn", "usage": usage, "num_turns": 1}
    COST += 0.25
    say(type="result", **{**whole, "total_cost_usd": COST, **fields})


def message(text: str, number: int = 1, stop: str = "end_turn", cut: bool = False, pause: float = 0.0) -> None:
    head = {"id": f"msg_{os.getpid()}_{TURNS}_{number}", "model": "claude-fake-1", "usage": {"input_tokens": 7}}
    event("message_start", message=head)
    event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    pieces = text.split(" ")
    for index, piece in enumerate(pieces):
        word = piece + (" " if index < len(pieces) - 1 else "")
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
        time.sleep(pause)
    if cut:
        return
    say(type="assistant", message={**head, "content": [{"type": "text", "text": text}], "stop_reason": None})
    event("content_block_stop", index=0)
    event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": 3})
    event("message_stop")


def wait_for_the_word() -> None:
    """Until whoever reads has read so far, where the plan names a file that is made then."""
    word = plan().get("word")
    while word and not os.path.exists(word):
        time.sleep(0.005)


def argument(name: str) -> str | None:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


SESSION = argument("--session-id") or str(uuid.uuid4())  # an old program: resuming gives a new id
HISTORY: list[dict[str, Any]] = []
COST = 0.0
TURNS = 0


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(block.get("text", f"[{block['type']}]") for block in content)


def failure(status: int | None, text: str, kind: str | None = None) -> None:
    result(is_error=True, result=text, api_error_status=status, api_error_type=kind)
    sys.exit(1)


def turn(asked: str) -> None:
    mode, _, detail = (asked.removeprefix("do ") if asked.startswith("do ") else next_mode()).partition(":")
    say(type="system", subtype="init", claude_code_version=VERSION, tools=[], cwd=os.getcwd())
    say(type="system", subtype="ui_invalidate")
    if mode == "answer":
        said = detail or f"you said {asked}"
        message(said)
        result(result=said)
        HISTORY.append({"role": "assistant", "content": said})
    elif mode == "held":
        wait_for_the_word()
        message(detail)
        result(result=detail)
    elif mode == "slow":
        wait_for_the_word()
        message("one two three four five six", pause=float(detail or 0.1))
        result(result="six")
    elif mode == "hang":
        time.sleep(600)
    elif mode == "hang_after":
        message("half an", cut=True)
        time.sleep(600)
    elif mode == "stoppable":
        # Says half, and reads its stdin meanwhile: an interrupt ends the turn, and not the process.
        if detail == "child":
            record({"grandchild": subprocess.Popen(["sleep", "600"], start_new_session=True).pid})
        message("half an", cut=True)
        stop = json.loads(sys.stdin.readline())
        record({"line": stop})
        say(type="control_response", response={"subtype": "success", "request_id": stop["request_id"]})
        head = {"id": f"msg_{os.getpid()}_{TURNS}_1", "model": "claude-fake-1"}
        say(type="assistant", message={**head, "content": [{"type": "text", "text": "half an"}]})
        say(type="user", message={"role": "user", "content": "[Request interrupted by user]"}, isSynthetic=True)
        result(subtype="error_during_execution", is_error=True, terminal_reason="aborted_streaming")
        HISTORY.append({"role": "assistant", "content": "half an"})
    elif mode == "ignore_term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        message("half an", cut=True)
        time.sleep(600)
    elif mode == "garbage":
        for _ in range(3000):
            sys.stdout.write("this is not the protocol at all\n")
        sys.stdout.flush()
        time.sleep(600)
    elif mode == "warning":
        sys.stdout.write("(node) some warning\n")
        message("fine")
        result(result="fine")
    elif mode == "huge":
        for _ in range(100):
            sys.stdout.write("x" * 1024 * 1024)
        sys.stdout.flush()
        time.sleep(600)
    elif mode == "die":
        sys.stderr.write(detail or "something broke")
        sys.exit(1)
    elif mode == "die_after":
        message("half an", cut=True)
        wait_for_the_word()
        os.kill(os.getpid(), signal.SIGKILL)
    elif mode == "error":
        status, _, text = detail.partition(" ")
        failure(int(status) if status.isdigit() else None, text)
    elif mode == "success_error":
        result(subtype="success", is_error=True, result=detail, api_error_status=None)
    elif mode == "tools":
        event("message_start", message={"id": "msg_t", "model": "claude-fake-1", "usage": {"input_tokens": 7}})
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Let me look."})
        event(
            "content_block_start", index=1, content_block={"type": "tool_use", "id": "t1", "name": "Read", "input": {}}
        )
        event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": '{"file_path":"x"}'})
        event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 3})
        event("message_stop")
        say(type="user", message={"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]})
        say(
            type="stream_event",
            event={"type": "content_block_delta", "delta": {"type": "text_delta", "text": "SUB"}},
            parent_tool_use_id="t1",
        )
        message("It says hello.", 2)
        result(result="It says hello.", num_turns=2)
    elif mode == "reconnect":
        message("half an", cut=True)
        wait_for_the_word()
        say(type="system", subtype="api_retry", attempt=1)
        message("another whole answer", 2)
        result(result="another whole answer")
    elif mode == "unstreamed":
        say(type="assistant", message={"id": "msg_u", "model": "m", "content": [{"type": "text", "text": "at once"}]})
        result(result="at once")
    elif mode == "asks":
        say(type="control_request", request_id="p1", request={"subtype": "can_use_tool", "tool_name": "Write"})
        answer = json.loads(sys.stdin.readline())
        record({"line": answer})
        message(answer["response"]["response"]["behavior"])
        result()
    elif mode == "grandchild":
        # In a session of its own, holding our stdout, and still there when we are gone.
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        record({"grandchild": child.pid})
        message("started one")
        result()
        if detail == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if detail == "hang":
            time.sleep(600)
    elif mode == "structured":
        result(result="", structured_output=json.loads(detail))
    elif mode == "refusal":
        result(is_error=True, stop_reason="refusal", result="API Error: safeguards flagged this message")
    else:
        raise SystemExit(f"no such mode: {mode}")


def main() -> None:
    global TURNS
    if "--version" in sys.argv:
        print(plan().get("version", VERSION), "(Claude Code)")
        return
    resumed = argument("--resume")
    record({"session": SESSION})
    if resumed is not None and "unknown" in str(plan().get("modes")):
        say(type="result", subtype="error_during_execution", is_error=True, errors=["No conversation found"])
        sys.exit(1)
    record({"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()})
    while raw := sys.stdin.readline():
        line = json.loads(raw)
        record({"line": line})
        if plan().get("is_mute"):
            continue
        if line["type"] == "control_request":
            request = line["request"]
            answer: dict[str, Any] = {"version": VERSION} if request["subtype"] == "get_binary_version" else {}
            response = {"subtype": "success", "request_id": line["request_id"], "response": answer}
            say(type="control_response", response=response)
        elif line["type"] == "assistant":
            HISTORY.append(line["message"])
        elif line["type"] == "user":
            HISTORY.append(line["message"])
            if line.get("shouldQuery") is False:
                say(type="result", subtype="success", is_error=False, num_turns=0, total_cost_usd=COST, usage={})
            else:
                TURNS += 1
                turn(text_of(line["message"]["content"]))


if __name__ == "__main__":
    main()
