"""Every spelling of how long a provider wants to be left alone."""

from __future__ import annotations

import pytest

from gw.message import Headers
from gw.retry_after import MAX_RETRY_AFTER, retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5.0),
        ("0.5", 0.5),
        (" 7 ", 7.0),
        ("30s", 30.0),
        ("1m30s", 90.0),
        ("250ms", 0.25),
        ("9" * 20, MAX_RETRY_AFTER),
        ("Wed, 21 Oct 2099 07:28:00 GMT", MAX_RETRY_AFTER),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_a_retry_after_is_read_in_whatever_spelling(value: str, seconds: float | None) -> None:
    assert retry_after(Headers([(b"retry-after", value.encode())])) == seconds
