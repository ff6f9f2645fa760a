"""Bytes behind the current request wait their turn, and do not hide that the client has hung up."""

from __future__ import annotations

import asyncio

import pytest

from gw.message import Request
from gw.server import Reply, Server

BODY = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"

PATIENCE = 20.0  # seconds: what a test waits at most for something that comes at once


@pytest.mark.parametrize("surplus", [b"", b"\r\n", b"x", BODY, b"x" * 5000])
def test_a_hang_up_is_seen_behind_surplus_bytes(surplus: bytes) -> None:
    async def run() -> None:
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def handler(request: Request) -> Reply:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError("unreachable")

        server = Server(handler)
        await server.start("127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(BODY + surplus)
        await writer.drain()
        await asyncio.wait_for(began.wait(), PATIENCE)
        writer.transport.abort()
        await asyncio.wait_for(cancelled.wait(), PATIENCE)
        await server.close(1)

    asyncio.run(run())


def test_much_surplus_is_left_in_the_kernel() -> None:
    async def run() -> None:
        release = asyncio.Event()

        async def handler(request: Request) -> Reply:
            await release.wait()
            return Reply(200, [], b"ok")

        server = Server(handler)
        await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.transport.set_write_buffer_limits(high=1)
        writer.write(BODY + BODY * 400_000)
        draining = asyncio.create_task(writer.drain())
        left = -1
        while left != (left := writer.transport.get_write_buffer_size()):  # until both sockets are full
            for _ in range(200):
                await asyncio.sleep(0)
        assert not draining.done()  # 24 MB are not swallowed
        release.set()
        assert (await asyncio.wait_for(reader.readuntil(b"ok"), PATIENCE)).startswith(b"HTTP/1.1 200")
        draining.cancel()
        writer.transport.abort()
        await server.close(1)

    asyncio.run(run())
