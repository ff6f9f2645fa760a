"""A child and all that it starts: found on Linux and on macOS, ended together, never mistaken for somebody else's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from gw.errors import UpstreamConnectionError
from gw.upstream.descendants import LISTED, MARK, Living, descendants, from_proc, read_ps
from gw.upstream.process import ERRORS, HELD, Process

ENVIRONMENT = {"PATH": os.defpath}
MINE = f"{MARK}=0f8f".encode()

# As `ps -axEww -o pid=,ppid=,stat=,lstart=,command=` prints on macOS: the command, then the environment where it is
# shown (not for /bin/sh, which the system protects).
RECORDED = b"""\
    1     0 Ss   Sat Nov 21 20:11:02 2026     /sbin/launchd
  312     1 S    Sat Nov 21 20:15:40 2026     /usr/bin/ssh-agent -l SSH_AUTH_SOCK=/tmp/x USER=ann
 4100   812 S+   Sun Nov 22 00:33:20 2026     python3 -m gw PATH=/usr/bin:/bin HOME=/Users/ann
 4107  4100 Ss   Sun Nov 22 00:33:21 2026     /opt/claude -p --tools Bash GW_PROCESS=0f8f HOME=/Users/ann
 4111  4107 Ss   Sun Nov 22 00:33:22 2026     /bin/sh -c sleep 600 & wait
 4112  4111 S    Sun Nov 22 00:33:22 2026     sleep 600
 4113     1 S    Sun Nov 22 00:33:23 2026     /opt/rg --files
two lines of one command 1 2 3 GW_PROCESS=0f8f
 4114     1 S    Sun Nov 22 00:33:23 2026     node server.js GW_PROCESS=0f8f PWD=/
 4115  4107 Z    Sun Nov 22 00:33:23 2026     (sh)
 4116     1 S    Sun Nov 22 00:33:23 2026     node server.js GW_PROCESS=0f8fffff PWD=/
"""


def recorded(wanted: bytes) -> Mapping[int, Living]:
    return read_ps(RECORDED.splitlines(), wanted)


def test_what_ps_of_macos_lists_is_read() -> None:
    living = recorded(MINE)
    assert living[4107] == Living(4100, "Sun Nov 22 00:33:21 2026", True)
    assert living[312] == Living(1, "Sat Nov 21 20:15:40 2026", False)
    assert 4115 not in living, "a zombie has ended"
    assert not living[4116].has_mark, "another mark that begins like ours"


def test_descendants_are_found_by_mark_and_by_parent() -> None:
    assert list(descendants(4107, "0f8f", {}, recorded, is_alive=True)) == [4111, 4112, 4114]


def test_who_was_known_before_is_found_again_and_a_later_process_of_its_number_is_not() -> None:
    known = {4113: "Sun Nov 22 00:33:23 2026", 312: "Sat Nov 21 09:00:00 2026", 9: "gone"}
    assert 4113 in descendants(4107, "0f8f", known, recorded, is_alive=True)
    assert 312 not in descendants(4107, "0f8f", known, recorded, is_alive=True)


def test_the_children_of_a_number_that_is_somebody_elses_by_now_are_not_ours() -> None:
    assert list(descendants(4100, "none", {}, recorded, is_alive=True)) == [4107, 4111, 4112]
    assert descendants(4100, "none", {}, recorded, is_alive=False) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_linux_lists_the_same_processes_as_ps_does() -> None:
    with subprocess.Popen(["sleep", "600"], env=ENVIRONMENT | {MARK: "0f8f"}) as child:
        # procps tells the environment by the letter e; all else is as on macOS.
        told = subprocess.run(
            ["ps", "axeww", "-o", "pid=,ppid=,stat=,lstart=,command="], capture_output=True, check=True
        )
        by_ps, by_proc = read_ps(told.stdout.splitlines(), MINE), from_proc(MINE)
        child.kill()
    assert by_ps[child.pid].has_mark
    assert by_proc[child.pid].has_mark
    assert by_ps[child.pid].parent == by_proc[child.pid].parent == os.getpid()


# A grandchild in a session of its own, once with a cleared environment, and the child's own end: by itself or not.
STARTS = """
import os, subprocess, sys, time
environment = {"PATH": os.environ["PATH"]} if "cleared" in sys.argv else None
child = subprocess.Popen(["sleep", "600"], start_new_session=True, env=environment)
print(child.pid, flush=True)
if "stays" in sys.argv:
    time.sleep(600)
sys.stdin.read()
"""


async def ended(folder: Path, *arguments: str, patience: float) -> int:
    """Start it, end it; the number of the grandchild."""
    argv = [sys.executable, "-S", "-E", "-c", STARTS, *arguments]
    process = await Process.spawn(argv, cwd=folder, environment=ENVIRONMENT)
    grandchild = int(await process.read())
    await process.end(patience)
    assert process.status is not None
    return grandchild


@pytest.mark.parametrize("arguments", [[], ["stays"], ["cleared"], ["cleared", "stays"]])
def test_whatever_a_process_has_started_ends_with_it(tmp_path: Path, arguments: list[str]) -> None:
    grandchild = asyncio.run(ended(tmp_path, *arguments, patience=0.0 if "stays" in arguments else 5.0))
    assert grandchild not in LISTED(b"")


def test_processes_that_cannot_be_listed_are_told_and_the_child_ends_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(wanted: bytes) -> Mapping[int, Living]:
        raise OSError("ps failed: not permitted")

    async def scene() -> None:
        process = await Process.spawn(["sleep", "600"], cwd=tmp_path, environment=ENVIRONMENT, listed=refuses)
        await process.end()
        assert process.status == -15

    asyncio.run(scene())
    assert "not permitted" in caplog.text


def test_a_program_that_cannot_be_started_is_told_by_its_name(tmp_path: Path) -> None:
    async def scene() -> None:
        await Process.spawn([str(tmp_path / "none")], cwd=tmp_path, environment=ENVIRONMENT)

    with pytest.raises(UpstreamConnectionError, match="none cannot be started"):
        asyncio.run(scene())


FLOODS = """
import os, sys
for _ in range(100):
    sys.stderr.write("e" * 65536)
sys.stderr.write("the end")
sys.stderr.flush()
for _ in range(100):
    sys.stdout.write("o" * 65536)
"""


def test_a_flood_is_drained_and_bounded_and_nothing_of_the_output_is_lost(tmp_path: Path) -> None:
    async def scene() -> None:
        process = await Process.spawn([sys.executable, "-S", "-E", "-c", FLOODS], cwd=tmp_path, environment=ENVIRONMENT)
        size = longest = 0
        while data := await process.read():
            size += len(data)
            longest = max(longest, len(data))
            await asyncio.sleep(0)
        await process.end()
        assert size == 100 * 65536
        assert longest <= 2 * HELD, "who reads slowly makes the child wait"
        assert process.errors.endswith(b"the end")
        assert len(process.errors) <= ERRORS

    asyncio.run(scene())
