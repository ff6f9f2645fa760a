"""Many requests at once to a provider that misbehaves at random: nobody ever gets another's answer, nothing leaks."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from gw.backend import Timeouts
from gw.errors import UpstreamError
from gw.upstream import HTTPTransport
from tests.event_loops import Run, run
from tests.scripted_provider import CHUNKED, Peer, Provider, Script, whole, wire

__all__ = ["run"]
SHORT = Timeouts(first_content=0.02, total=0.02)
HANGS = "/hangs"


def sized(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes) -> bytes:
    return CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def misbehaves(chance: random.Random) -> Script:
    """A script that echoes the path, six times in ten without a fault; one that says that it hangs is not answered."""

    async def script(peer: Peer) -> None:
        head = next(head for number, head, _ in reversed(peer.provider.requests) if number == peer.number)
        path = head.split()[1]
        answer = chance.choice([sized, chunked])(path)
        if path.endswith(HANGS.encode()):
            await peer.until_gone()
            return
        match chance.randrange(19):
            case 0:
                await peer.write(answer[:-3])
                peer.writer.close()
            case 1:
                peer.reset()
            case 2 | 3:
                await peer.write(answer + sized(b"somebody else's"))
            case 4 | 5:
                peer.writer.write(answer)
                peer.writer.write(sized(b"somebody else's"))
            case 6:
                await peer.write(answer[:10])
                await asyncio.sleep(0)
                await peer.write(answer[10:])
            case _:
                await peer.write(answer)

    return script


def test_nobody_gets_anothers_answer_and_nothing_leaks(run: Run) -> None:
    async def main() -> None:
        chance = random.Random(20)
        provider, transport = Provider(misbehaves(chance)), HTTPTransport()
        await provider.open()
        outcomes: Counter[str] = Counter()

        async def ask(path: str) -> None:
            # Only who is not answered at all, and a few more, run out of time: how fast the machine is decides little.
            is_short = path.endswith(HANGS) or chance.random() < 0.05
            limits = SHORT if is_short else Timeouts()
            answer = await transport(wire(provider, path=path, stream=chance.random() < 0.5, timeouts=limits))
            assert await whole(answer) == path.encode()

        async def client(name: int) -> None:
            for number in range(40):
                asking = asyncio.create_task(ask(f"/{name}/{number}{chance.choice([''] * 19 + [HANGS])}"))
                if chance.random() < 0.3:  # somebody who goes, early or late
                    for _ in range(chance.randrange(30)):
                        await asyncio.sleep(0)
                    asking.cancel()
                try:
                    await asking
                    outcomes["right"] += 1
                except (UpstreamError, asyncio.CancelledError):
                    outcomes["failed"] += 1

        await asyncio.gather(*(client(name) for name in range(16)))
        assert outcomes["right"] > 100
        assert outcomes["failed"] > 50
        assert {connection for connection in transport._open if connection.exchange is not None} == set()
        await transport.aclose()
        assert transport._open == set()
        await provider.until(lambda: all(peer.gone.is_set() or peer.writer.is_closing() for peer in provider.peers))
        await provider.close()

    run(main)
