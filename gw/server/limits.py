"""How much of anything one client may ask of the server: sizes, counts and times."""

from __future__ import annotations

from typing import NamedTuple

MB = 1024 * 1024


class Limits(NamedTuple):
    """Sizes in bytes, times in seconds. The defaults lean on what the well-known proxies promise."""

    max_head: int = 32 * 1024  # also what trailers and chunk extensions may use up; nginx 4 x 8 KB, HAProxy 16 KB
    max_fields: int = 100  # Envoy's default
    max_target: int = 8 * 1024  # nginx's large_client_header_buffers
    max_body: int = 32 * MB
    max_chunks: int = 32 * 1024  # h11 takes about 10 us for each, however small
    head_timeout: float = 10.0  # absolute, from the first byte: HAProxy's advice for http-request is 5 to 10 s
    body_timeout: float = 30.0  # plus one second for each `min_rate` bytes, as Apache's mod_reqtimeout counts
    write_timeout: float = 30.0  # likewise, for a client that does not read
    min_rate: int = 16 * 1024  # bytes per second
    idle_timeout: float = 75.0  # nginx's keepalive_timeout
    linger_timeout: float = 1.0  # how long a client that still sends may take to read an early answer
    linger_bytes: int = 64 * 1024
    max_connections: int = 16 * 1024
    max_connections_per_address: int = 4 * 1024  # a reverse proxy is one address
    max_in_flight: int = 4 * 1024  # requests handled at one time
