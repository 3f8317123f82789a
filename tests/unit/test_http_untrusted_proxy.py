"""Forwarded headers of a peer on this machine that is not trusted are reported once."""

import pytest

from prefork.http.untrusted_proxy import UntrustedProxyDetector

PROTO = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n"


@pytest.mark.parametrize(
    ("peer", "head", "expected"),
    [
        ("", PROTO, [("unix", "X-Forwarded-Proto")]),
        ("127.0.0.1", PROTO, [("127.0.0.1", "X-Forwarded-Proto")]),
        ("::1", PROTO, [("::1", "X-Forwarded-Proto")]),
        ("::ffff:127.0.0.1", PROTO, [("::ffff:127.0.0.1", "X-Forwarded-Proto")]),
        ("10.0.0.1", PROTO, []),
        ("", b"GET / HTTP/1.1\r\nx-forwarded-FOR: 1\r\n", [("unix", "X-Forwarded-For")]),
        ("", b"GET /x-forwarded-for: HTTP/1.1\r\nX_Forwarded_For: 1\r\n", []),
    ],
)
def test_a_peer_on_this_machine_is_reported_once(
    peer: str, head: bytes, expected: list[tuple[str, str]]
) -> None:
    found: list[tuple[str, str]] = []
    detector = UntrustedProxyDetector()
    detector.report = lambda *entry: found.append(entry)
    for _ in range(3):
        detector.inspect(peer, head)
    assert found == expected
