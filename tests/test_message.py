"""Requests and headers as values."""

from __future__ import annotations

from gw.message import Headers, Request
from tests.fakes import chat_request


def test_a_copy_has_every_field_of_the_original() -> None:
    request = chat_request(parameters={"backend": "a"})
    copy = request.replace()
    assert copy is not request
    for name in Request.__slots__:
        assert getattr(copy, name) is getattr(request, name), name


def test_headers_are_found_without_regard_to_case_and_kept_in_order() -> None:
    headers = Headers([(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")])
    assert headers.get("X-A") == "1"
    assert headers.get_all("x-a") == ["1", "3"]
    assert "X-B" in headers
    assert headers.get("x-c", "none") == "none"


def test_headers_never_show_their_values() -> None:
    assert "secret" not in repr(Headers([(b"authorization", b"Bearer secret")]))
