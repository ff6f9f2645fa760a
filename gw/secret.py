"""A string that must not be seen: it compares and is sent, but never prints."""

from __future__ import annotations

import hashlib
import hmac


class Secret:
    """A key or token. `str`, `repr`, `format` and pickling never show it; `reveal()` hands it to the wire."""

    __slots__ = ("_hash", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._hash: int | None = None

    def reveal(self) -> str:
        """The secret itself, for a header that is about to be sent and for nothing else."""
        return self._value

    def digest(self) -> bytes:
        """SHA-256 of the secret: what may be kept and compared."""
        return hashlib.sha256(self._value.encode("utf-8", "surrogatepass")).digest()

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.digest(), other.digest())

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.digest())
        return self._hash

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled: pass the name of the variable that holds it")
