"""The head of an ASGI response to a request that repeats."""

from time import monotonic
from typing import Any

import pytest

from prefork.apps.asgi_response import AsgiResponse
from prefork.http.request import RepeatedRequest, Request

Given = tuple[int, list[tuple[bytes, bytes]], int, bool]

_PLAIN = [(b"content-type", b"text/plain")]
_FIRST: Given = (200, _PLAIN, 5, False)


def head(repeated: RepeatedRequest | None, given: Given) -> bytes:
    """The head's bytes, without its date."""
    status, headers, size, closing = given
    response = AsgiResponse(Request({}, b"GET /", True, True, None, repeated))
    response.start({"type": "http.response.start", "status": status, "headers": headers})
    composed = response.whole_head(size, monotonic(), closing=closing)
    assert composed is not None
    lines = composed.data.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.startswith(b"Date:"))


@pytest.mark.parametrize(
    "other",
    [
        _FIRST,
        (201, _PLAIN, 5, False),
        (200, [(b"content-type", b"text/html")], 5, False),
        (200, [], 5, False),
        (200, _PLAIN, 6, False),
        (200, _PLAIN, 5, True),
    ],
)
def test_the_head_is_that_of_the_response_whatever_the_last_one_was(other: Given) -> None:
    repeated = RepeatedRequest()
    for given in (_FIRST, _FIRST, _FIRST, other, other, _FIRST, other):
        assert head(repeated, given) == head(None, given)


def test_a_head_is_not_repeated_if_its_header_has_changed() -> None:
    """A bytearray is the same object with other bytes."""
    value = bytearray(b"text/plain")
    headers: Any = [(b"content-type", value)]
    repeated = RepeatedRequest()
    for text in (b"text/plain", b"text/plain", b"text/html!", b"text/html!"):
        value[:] = text
        assert b"content-type: " + text in head(repeated, (200, headers, 5, False))
