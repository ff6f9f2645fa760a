"""The sockets that a gateway listens on, made before its workers."""

from __future__ import annotations

import errno
import socket
import sys

from gw.config import Config
from gw.server.acceptor import bound_socket


def listening_sockets(host: str, port: int, workers: int) -> list[socket.socket]:
    """One bound socket per worker, all on one port. OSError where the port is taken (by another gw too)."""
    # As bytes where it is ASCII: a text becomes an international name first, by a codec that takes 3 ms to load.
    name = host.encode() if host.isascii() else host
    family, _, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    spread = workers > 1 and sys.platform == "linux"
    if spread and port:
        # With SO_REUSEPORT two gateways could share a port unnoticed: a plain bind tells whether it is free.
        bound_socket(family, address, reuse_port=False).close()
    first = bound_socket(family, address, reuse_port=spread)
    if not spread:
        return [first] * workers
    return [first, *(bound_socket(family, first.getsockname(), reuse_port=True) for _ in range(workers - 1))]


def cannot_listen(config: Config, error: OSError) -> str:
    """Why the port cannot be had, in one line with the cure."""
    where = f"{config.server.host}:{config.server.port}"
    if error.errno == errno.EADDRINUSE:
        return f"gw: {where} is taken: stop what listens there, or choose another port with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"gw: {where} is not allowed for this user: choose a port above 1023 with --port"
    return f"gw: cannot listen on {where}: {error.strerror or error}; check server.host and server.port"
