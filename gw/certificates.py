"""The certificate files that a configuration names: read before anything is opened, told with the cure where wrong."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gw.backend_table import BackendTable
from gw.errors import ConfigError
from gw.settings import ServerOptions

if TYPE_CHECKING:
    import ssl as tls

_UNREADABLE = frozenset((errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR))


def certificate_problems(server: ServerOptions, backends: Sequence[BackendTable]) -> list[str]:
    """What is wrong with the server's certificate and with the `ca_file` of each backend."""
    problems = [problem for table in backends if (problem := _ca_problem(table))]
    try:
        server_context(server)
    except ConfigError as error:
        problems += error.problems
    return problems


def _ca_problem(table: BackendTable) -> str | None:
    if table.options.ca_file is None:
        return None
    import ssl  # costs 10 ms; only where a file is named

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=table.options.ca_file)
    except OSError as error:
        return ca_problem(table, error)
    return None


def ca_problem(table: BackendTable, error: OSError) -> str:
    """A CA file that cannot be used, told with its cure."""
    why = error.strerror if error.errno in _UNREADABLE else "it holds no certificate"
    return f'{table.path}.ca_file: "{table.options.ca_file}" cannot be used ({why}): name a file of certificates in PEM'


def server_context(server: ServerOptions) -> tls.SSLContext | None:
    """How the server speaks TLS, None where it does not: TLS 1.2 and newer, `http/1.1` by ALPN.

    Raises ConfigError where the certificate or its key cannot be used.
    """
    if server.tls_cert is None or server.tls_key is None:
        return None
    import ssl  # costs 10 ms and is needed for https only

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # With an empty password an encrypted key fails; without any, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(server.tls_cert, server.tls_key, password="")
    except OSError as error:
        raise ConfigError([_server_problem(server.tls_cert, server.tls_key, error)]) from error
    return context


def _server_problem(cert: Path, key: Path, error: OSError) -> str:
    for name, path in (("tls_cert", cert), ("tls_key", key)):
        try:
            text = path.read_bytes()
        except OSError as unreadable:
            return f'server.{name}: "{path}" cannot be read ({unreadable.strerror})'
        if name == "tls_cert" and b"-----BEGIN CERTIFICATE-----" not in text:
            return f'server.{name}: "{path}" holds no certificate: give a PEM file, the server\'s own certificate first'
        if name == "tls_key" and b"PRIVATE KEY-----" not in text:
            return f'server.{name}: "{path}" holds no private key: give a PEM file'
        if name == "tls_key" and b"ENCRYPTED" in text:
            return f'server.{name}: "{path}" is locked with a password: give a key without one, readable by gw alone'
    if "KEY_VALUES_MISMATCH" in str(error):
        return f'server.tls_key: "{key}" is not the key of the certificate in "{cert}"'
    return f'server.tls_cert: "{cert}" with "{key}" cannot be used ({error}): give PEM files'


class ServerTLS:
    """The TLS of a listening server, whose certificate may be changed while it listens.

    `context` is for the listener and stays; a connection that is made gets the newest certificate.
    """

    def __init__(self, context: tls.SSLContext) -> None:
        self.context = context
        self._newest = context
        context.sni_callback = self._choose

    def use(self, context: tls.SSLContext) -> None:
        """Give this certificate from the next connection on."""
        self._newest = context

    def _choose(self, connection: tls.SSLObject, name: str | None, context: tls.SSLContext) -> None:
        """Called at each ClientHello, whether it names a server or not."""
        connection.context = self._newest
