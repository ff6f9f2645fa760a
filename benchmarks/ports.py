"""Ports for programs that are about to start."""

from __future__ import annotations

import socket
import sys


def free_port() -> int:
    """A port of loopback that nobody else is given while this process runs.

    A socket that only looks which port is free, and lets go of it, gives two programs the same one now and then: of
    five that begin together, once in 2,000 times. The second of them ends, and who asks it talks to the first. So it
    stays bound here and does not listen; a server that sets SO_REUSEADDR, as all do, may listen there nevertheless.
    Other systems than Linux do not let it: there the port is free again at once.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    port = int(sock.getsockname()[1])
    if sys.platform == "linux":
        sock.detach()  # its descriptor stays open
    else:
        sock.close()
    return port
