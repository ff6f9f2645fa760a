"""Many requests at once to a provider that misbehaves at random: nobody ever gets another's answer, nothing leaks."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from gw.backend import Timeouts
from gw.errors import UpstreamError
from gw.upstream import HTTPTransport
from tests.test_upstream_provider import CHUNKED, Peer, Provider, Run, Script, run, whole, wire

__all__ = ["run"]
LIMITS = Timeouts(first_content=0.2, total=0.2)


def sized(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes) -> bytes:
    return CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def misbehaves(chance: random.Random) -> Script:
    """A script that echoes the path, six times in ten without a fault."""

    async def script(peer: Peer) -> None:
        head = next(head for number, head, _ in reversed(peer.provider.requests) if number == peer.number)
        answer = chance.choice([sized, chunked])(head.split()[1])
        match chance.randrange(20):
            case 0:
                await peer.write(answer[:-3])
                peer.writer.close()
            case 1:
                peer.reset()
            case 2:
                await peer.until_gone()
            case 3 | 4:
                await peer.write(answer + sized(b"somebody else's"))
            case 5 | 6:
                peer.writer.write(answer)
                peer.writer.write(sized(b"somebody else's"))
            case 7:
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

        async def client(name: int) -> None:
            for number in range(40):
                path = f"/{name}/{number}"
                try:
                    async with asyncio.timeout(chance.choice([0.001, 0.01, 1.0])):
                        stream = chance.random() < 0.5
                        answer = await transport(wire(provider, path=path, stream=stream, timeouts=LIMITS))
                        assert await whole(answer) == path.encode()
                    outcomes["right"] += 1
                except (UpstreamError, TimeoutError):
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
