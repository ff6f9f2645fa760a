"""What a connection that could not be made, or a deadline that passed, means, and how it is cured."""

from __future__ import annotations

import errno
import re
import socket
import ssl

from gw.adapter import WireRequest
from gw.errors import UpstreamConnectionError, UpstreamTimeout

_ERRNO = re.compile(r"\[Errno (\d+)\]")
# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_CERTIFICATE = {
    9: "its certificate is not valid yet: check this machine's clock",
    10: "its certificate has expired: the provider must renew it, or this machine's clock is wrong",
    18: "its certificate is self-signed: if it is your own, name it in ca_file",
    19: "its certificate comes from an authority that is not known here: name that authority in ca_file",
    20: "its certificate comes from an authority that is not known here: name that authority in ca_file",
    21: "its certificate comes from an authority that is not known here: name that authority in ca_file",
    62: "its certificate is for another host: check base_url",
    64: "its certificate is for another address: check base_url",
}
_REASONS = {
    errno.ECONNREFUSED: "refused the connection: is the provider running there, and is the port in base_url right?",
    errno.ECONNRESET: "reset the connection while it was being made: check the port and the scheme of base_url",
    errno.ECONNABORTED: "dropped the connection while it was being made: check the port and the scheme of base_url",
    errno.EPIPE: "dropped the connection while it was being made: check the port and the scheme of base_url",
    errno.ENETUNREACH: "cannot be reached (no route): check this machine's network",
    errno.EHOSTUNREACH: "cannot be reached (no route): check this machine's network",
    errno.ETIMEDOUT: "does not answer (TCP timeout): check the network and base_url",
    errno.EMFILE: "cannot be connected to: this process has too many files open; raise `ulimit -n`",
    errno.ENFILE: "cannot be connected to: this machine has too many files open; raise its limit",
    errno.EADDRNOTAVAIL: "cannot be connected to: no local port is free, or this machine lacks that kind of address",
}


def connect_failure(error: BaseException, wire: WireRequest, authority: str) -> UpstreamConnectionError:
    """The failure to tell when a connection could not be made. It names the backend, the host, the class, the cure."""
    return UpstreamConnectionError(f'backend "{wire.backend}": {authority} {_reason(error)}')


def _reason(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "cannot be resolved (DNS): check the host in base_url and this machine's resolver"
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _CERTIFICATE.get(error.verify_code)
        return f"failed the TLS check: {known or f'{error.verify_message}: see ca_file'}"
    if isinstance(error, ssl.SSLError):
        what = (error.reason or "unknown").lower().replace("_", " ")
        return f"failed the TLS handshake ({what}): does that port speak https?"
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _ERRNO.search(str(error))):
        number = int(found[1])  # asyncio joins the failures of several addresses into one text
    if number is None and isinstance(error, ConnectionError):
        number = errno.ECONNRESET
    return _REASONS.get(number or 0, f"cannot be connected to ({type(error).__name__}): check base_url and the network")


def ca_failure(wire: WireRequest, ca_file: str | None) -> UpstreamConnectionError:
    """The failure to tell when the certificate authorities for a backend cannot be loaded."""
    if ca_file is None:
        return UpstreamConnectionError(
            f'backend "{wire.backend}": the certificate authorities of this machine cannot be read: '
            "install ca-certificates, or check SSL_CERT_FILE"
        )
    return UpstreamConnectionError(
        f'backend "{wire.backend}": ca_file "{ca_file}" holds no certificates that can be read: '
        "name a file in PEM format"
    )


def connect_timeout(wire: WireRequest, authority: str) -> UpstreamTimeout:
    """The failure to tell when nobody took the connection in time."""
    return UpstreamTimeout(
        f'backend "{wire.backend}": no connection to {authority} after {wire.timeouts.connect:g} s (connect): '
        "check the network and base_url, or raise timeouts.connect"
    )


def silence(wire: WireRequest, *, is_committed: bool, is_heard: bool = True) -> UpstreamTimeout:
    """The failure to tell when an answer did not come, or did not go on, in time."""
    name, limits = wire.backend, wire.timeouts
    if not is_heard:
        text = f"sent no byte of an answer for {limits.first_byte:g} s (first_byte): "
        text += "raise timeouts.first_byte or check the provider"
    elif not wire.stream:
        text = f"gave no whole answer within {limits.total:g} s (total): raise timeouts.total or ask for a stream"
    elif is_committed:
        text = f"sent nothing more for {limits.idle:g} s (idle): raise timeouts.idle or check the provider"
    else:
        text = f"sent nothing for {limits.first_content:g} s (first_content): "
        text += "raise timeouts.first_content or check the provider"
    return UpstreamTimeout(f'backend "{name}" {text}')
