"""R14 fuzz and R21 attacks: suites that stand among the tests, run by their flags, beside somebody who is served."""

from __future__ import annotations

import asyncio
import os
import re
import sys

from benchmarks.soak.figure import Figure, count, unmeasured
from benchmarks.soak.lab import ROOT, Lab


async def fuzz(lab: Lab) -> list[Figure]:
    """R14: mutated conversations with the server's protocol object, and any JSON for every adapter."""
    examples = lab.count(20_000, 100)
    return await _suite(lab, "R14", f"fuzz, {examples} examples each", "tests/test_fuzz*.py", examples)


async def attacks(lab: Lab) -> list[Figure]:
    """R21: the attack suite, with its own bystander."""
    return await _suite(lab, "R21", "attacks", "tests/test_attack*.py")


async def _suite(lab: Lab, soak: str, name: str, pattern: str, examples: int = 0) -> list[Figure]:
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
    if not files:
        return [unmeasured(soak, name, f"there is no {pattern}")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", *files),
        cwd=ROOT,
        env=os.environ | ({"GW_FUZZ_EXAMPLES": str(examples)} if examples else {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    (lab.folder / f"{soak}.out").write_text(output)
    found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", output)}
    bad = found.get("failed", 0) + found.get("error", 0) + (process.returncode not in (0, 1) or not found)
    return [count(soak, f"{name}: cases that do not hold", bad, out_of=sum(found.values()))]
