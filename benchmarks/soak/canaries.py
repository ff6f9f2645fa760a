"""R22: after all the others, no key can be read: not in logs, databases, spills, outputs, metrics or answers."""

from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

from benchmarks.soak.figure import Figure, count, yes
from benchmarks.soak.lab import CLIENT_KEY, PROVIDER_KEY, Lab

_PIECE = 1 << 20


async def no_key_anywhere(lab: Lab) -> list[Figure]:
    """R22: a provider that repeats the key, then a search of every byte that all gateways of this lab have written."""
    async with lab.gateway("r22") as gateway:
        client = gateway.client
        answers = [await client.chat("status=401,tell", stream=stream) for stream in (False, True)]
        answers += [await client.send(client.raw("GET", path)) for path in ("/metrics", "/health", "/v1/models")]
        # What a client puts where it does not belong is told back to it, and to nobody else.
        await client.send(client.raw("POST", f"/{CLIENT_KEY}/v1/chat/completions", b"{"))
        client.close()
        await gateway.stop()
    needles = _spellings()
    told = sum(any(needle in answer.body for needle in needles) for answer in answers)
    files = [path for folder in lab.folders for path in sorted(folder.rglob("*")) if path.is_file()]
    found = [path for path in files if _holds(path, needles)]
    size = sum(path.stat().st_size for path in files)
    names = ", ".join(sorted({path.name for path in found})) or "none"
    return [
        count("R22", f"of {len(files)} files with {size / 1e6:.1f} MB: with a key in them ({names})", len(found)),
        count("R22", "answers with a key in them", told, out_of=len(answers)),
        yes("R22", "the search finds a key where there is one", _holds(_planted(lab), needles)),
    ]


def _spellings() -> list[bytes]:
    """Both keys, as they are, as a URL, in base64 at each of its three positions, in hexadecimal."""
    found: list[bytes] = []
    for key in (CLIENT_KEY.encode(), PROVIDER_KEY.encode()):
        found += [key, quote(key, safe="").encode(), key.hex().encode()]
        for shift in range(3):
            coded = base64.b64encode(bytes(shift) + key)
            found.append(coded[4 if shift else 0 : -4])
    return found


def _holds(path: Path, needles: list[bytes]) -> bool:
    last = b""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            text = last + piece
            if any(needle in text for needle in needles):
                return True
            last = piece[-200:]
    return False


def _planted(lab: Lab) -> Path:
    path = lab.folder / "planted"
    path.write_bytes(bytes(_PIECE - 7) + base64.b64encode(b"Bearer " + PROVIDER_KEY.encode()))
    return path
