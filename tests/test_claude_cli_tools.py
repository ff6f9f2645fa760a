"""Claude's own tools: who may name which, in which folder, and what of that folder is told to the model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gw.adapters.claude_cli.confinement import MAX_CONTEXT, Roots, allowed_tools
from gw.adapters.claude_cli.options import check_arguments
from gw.adapters.claude_cli.program import Program, find_program, is_too_old
from gw.environ import Environ
from gw.errors import ConfigError, Forbidden, InvalidRequest
from gw.secret import Secret
from tests.claude_fakes import WEB, FakeClaude, start, until
from tests.running import Running, running

HI: list[Any] = [{"role": "user", "content": "What is this project?"}]


@pytest.fixture
def gw() -> Iterator[Running]:
    with running() as gateway:
        yield gateway


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "roots" / "project"
    folder.mkdir(parents=True)
    (folder / "CONTEXT.md").write_text("This is project Zebra.")
    return folder


def ask(url: str, **fields: Any) -> httpx.Response:
    return WEB.post(f"{url}/v1/chat/completions", json={"messages": HI} | fields)


def value_of(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_tools_by_name_go_to_the_cli_in_the_working_directory_with_its_context(
    gw: Running, tmp_path: Path, project: Path
) -> None:
    fake = FakeClaude(tmp_path / "claude", "tools")
    url = start(gw, tmp_path, fake, roots=[str(tmp_path / "roots")])
    messages = [{"role": "system", "content": "Be brief."}, *HI]
    answer = ask(url, messages=messages, tools=["Read", "Glob"], working_directory=str(project))
    assert answer.json()["choices"][0]["message"]["content"] == "Let me look.\n\nIt says hello."
    (first,) = fake.starts
    assert first["cwd"] == str(project)
    assert value_of(first["argv"], "--tools") == "Read,Glob"
    assert "--restricted" in first["argv"]
    (instructions,) = fake.control("initialize")
    assert instructions["appendSystemPrompt"].startswith("Be brief.\n\n")
    assert "project Zebra" in instructions["appendSystemPrompt"]
    assert "systemPrompt" not in instructions


def test_tools_alone_work_in_an_empty_folder_of_their_own_that_is_removed(gw: Running, tmp_path: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake)
    assert ask(url, tools=["Read"]).status_code == 200
    assert ask(url, cli_tools=["Read"]).status_code == 200
    one, two = (entry["cwd"] for entry in fake.starts)
    assert one != two
    until(lambda: not os.path.exists(one) and not os.path.exists(two))


def test_a_working_directory_alone_gets_every_allowed_tool(gw: Running, tmp_path: Path, project: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, roots=[str(tmp_path / "roots")], allowed_tools=["Read", "Grep"])
    assert ask(url, working_directory=str(project)).status_code == 200
    assert value_of(fake.starts[0]["argv"], "--tools") == "Read,Grep"


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"tools": ["Bash"]}, 403, "forbidden_tool", "tools"),
        ({"tools": ["Read", "Wirte"]}, 403, "forbidden_tool", "tools"),
        ({"working_directory": "/etc"}, 403, "forbidden_path", "working_directory"),
        ({"working_directory": "{roots}/../outside"}, 403, "forbidden_path", "working_directory"),
        ({"working_directory": "{roots}/escape"}, 403, "forbidden_path", "working_directory"),
        ({"working_directory": "{roots}/missing"}, 400, "invalid_value", "working_directory"),
        ({"working_directory": "project"}, 400, "invalid_value", "working_directory"),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_starts(
    gw: Running, tmp_path: Path, project: Path, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "roots" / "escape").symlink_to(tmp_path / "outside")
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, roots=[str(tmp_path / "roots")])
    folder = fields.get("working_directory", "").replace("{roots}", str(tmp_path / "roots"))
    answer = ask(url, **fields | ({"working_directory": folder} if folder else {}))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert fake.starts == []


def test_a_request_narrows_and_never_widens() -> None:
    allowed = ["Read", "Glob", "Grep"]
    assert allowed_tools({"tools": ["Glob"]}, allowed) == ["Glob"]
    assert allowed_tools({"working_directory": "/x"}, allowed) == allowed
    assert allowed_tools({"disallowed_tools": ["Read"]}, allowed) == ["Glob", "Grep"]
    with pytest.raises(Forbidden, match="Read"):
        allowed_tools({"cli_tools": ["Raed"]}, allowed)


def test_a_context_that_leads_out_of_the_roots_is_not_read(tmp_path: Path, project: Path) -> None:
    roots = Roots([tmp_path / "roots"])
    assert "Zebra" in (roots.context(project) or "")
    (tmp_path / "secret").write_text("secret")
    (project / "CONTEXT.md").unlink()
    (project / "CONTEXT.md").symlink_to(tmp_path / "secret")
    assert roots.context(project) is None
    (project / "CONTEXT.md").unlink()
    os.mkfifo(project / "CONTEXT.md")
    assert roots.context(project) is None
    (project / "CONTEXT.md").unlink()
    assert roots.context(project) is None


def test_a_long_context_is_cut_and_says_so(tmp_path: Path, project: Path) -> None:
    (project / "CONTEXT.md").write_text("x" * (MAX_CONTEXT + 5))
    text = Roots([tmp_path / "roots"]).context(project) or ""
    assert MAX_CONTEXT < len(text) < MAX_CONTEXT + 300
    assert "goes on" in text


def test_a_folder_with_a_similar_name_is_outside(tmp_path: Path) -> None:
    (tmp_path / "roots-of-others").mkdir()
    (tmp_path / "roots").mkdir()
    with pytest.raises(Forbidden):
        Roots([tmp_path / "roots"]).resolve(str(tmp_path / "roots-of-others"))
    with pytest.raises(InvalidRequest):
        Roots([tmp_path / "roots"]).resolve("")


# --- transcripts ---------------------------------------------------------------------------------------------------


def talk(url: str, project: Path, turns: int) -> list[httpx.Response]:
    """A conversation in the folder, everything told again each time."""
    messages: list[Any] = []
    answers = []
    for number in range(turns):
        messages.append({"role": "user", "content": f"question {number}"})
        answers.append(ask(url, messages=messages, working_directory=str(project)))
        messages.append({"role": "assistant", "content": answers[-1].json()["choices"][0]["message"]["content"]})
    return answers


def test_another_process_goes_on_with_the_newest_transcript(gw: Running, tmp_path: Path, project: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, roots=[str(tmp_path / "roots")], resume=True, config_dir=str(tmp_path / "config"))
    talk(url, project, 3)
    ids = [entry["session"] for entry in fake.entries if "session" in entry]
    first, second, third = (entry["argv"] for entry in fake.starts)
    assert value_of(first, "--session-id") == ids[0]
    assert [value_of(argv, "--resume") for argv in (second, third)] == ids[:2]
    assert "--no-session-persistence" not in first
    assert len(fake.prompts) == len([line for line in fake.lines if line["type"] == "user"]) == 3
    assert len(fake.control("initialize")) == 1


def test_a_transcript_that_is_gone_is_told_again(gw: Running, tmp_path: Path, project: Path) -> None:
    fake = FakeClaude(tmp_path / "claude", "answer:fine", "answer:unknown")
    more = {"middleware": {"fallback": {"retries": 1, "backoff": 0.0}}}
    url = start(gw, tmp_path, fake, more, roots=[str(tmp_path / "roots")], resume=True)
    answers = talk(url, project, 2)
    assert answers[1].json()["choices"][0]["message"]["content"] == "unknown"
    assert [line.get("shouldQuery") for line in fake.lines if line["type"] == "user"] == [None, False, None]


def test_transcripts_end_with_the_gateway(gw: Running, tmp_path: Path, project: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, roots=[str(tmp_path / "roots")], resume=True, config_dir=str(tmp_path / "config"))
    talk(url, project, 1)
    session = next(entry["session"] for entry in fake.entries if "session" in entry)
    transcript = tmp_path / "config" / "projects" / "x" / f"{session}.jsonl"
    transcript.parent.mkdir(parents=True)
    transcript.write_text("{}")
    gw.run(gw.gateway.close(0))
    assert not transcript.exists()


def test_without_resume_nothing_is_left_on_the_disk(gw: Running, tmp_path: Path, project: Path) -> None:
    fake = FakeClaude(tmp_path / "claude")
    url = start(gw, tmp_path, fake, roots=[str(tmp_path / "roots")])
    talk(url, project, 1)
    ask(url, tools=["Read"])
    assert all("--no-session-persistence" in entry["argv"] for entry in fake.starts)


# --- the program -------------------------------------------------------------------------------------------------


def test_the_program_is_the_named_one_then_that_in_path_then_the_wheels(tmp_path: Path) -> None:
    mine = tmp_path / "claude"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    assert find_program(str(mine), {"PATH": ""}) == str(mine)
    assert find_program(None, {"PATH": str(tmp_path)}) == str(mine)
    assert find_program(str(tmp_path / "no"), {"PATH": str(tmp_path)}) is None


def test_only_what_others_cannot_write_counts_as_the_operators_settings(tmp_path: Path) -> None:
    program = program_of(tmp_path)
    assert "--settings" not in program.chat()
    settings = tmp_path / "settings.json"
    settings.write_text("{}")
    settings.chmod(0o600)
    assert value_of(program.chat(), "--settings") == str(settings)
    settings.chmod(0o622)
    assert "--settings" not in program.chat()


def test_bare_is_for_chats_with_a_key() -> None:
    assert "--bare" in program_of(None, Secret("sk-x")).chat()
    assert "--bare" not in program_of(None, Secret("sk-x")).tools(["Read"], None)
    assert "--bare" not in program_of(None).chat()


def program_of(config_dir: Path | None, key: Secret | None = None) -> Program:
    return Program("claude", config_dir, None, None, key, {}, (), 120.0, Environ())


@pytest.mark.parametrize("version", ["2.1.247", "1.9.9", "", "who knows"])
def test_old_versions_are_told(version: str) -> None:
    assert is_too_old(version)
    assert not is_too_old("2.1.248 (Claude Code)")
    assert not is_too_old("3.0.0")


def test_the_conversations_own_flags_cannot_be_given() -> None:
    check_arguments(["--fallback-model", "sonnet"])
    with pytest.raises(ConfigError, match="--tools"):
        check_arguments(["--tools=Bash"])
