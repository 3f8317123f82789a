"""Requests as bytes, and what a redirect makes of one."""

import os
from collections.abc import Iterator
from pathlib import Path

import httptools
import pytest

from prefork.client import ClientRequest, RequestContent, parse_header, parse_url
from prefork.client.request_writer import check_method, redirected


def headers_of(request: ClientRequest) -> dict[str, str]:
    """What a parser reads out of the head."""
    found: dict[str, str] = {}

    class Reader:
        def on_header(self, name: bytes, value: bytes) -> None:
            assert name.decode() not in found
            found[name.decode()] = value.decode("latin-1")

    httptools.HttpRequestParser(Reader()).feed_data(request.head())
    return found


@pytest.fixture
def pipe() -> Iterator[RequestContent]:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        yield RequestContent(fd=reading)
    finally:
        os.close(reading)


URL = parse_url("http://h:81/a?b")


def test_a_plain_request() -> None:
    head = ClientRequest(URL).head()
    assert head.startswith(b"GET /a?b HTTP/1.1\r\nHost: h:81\r\nUser-Agent: prefork/")
    assert head.endswith(b"\r\nAccept: */*\r\n\r\n")


def test_a_header_of_the_users_replaces_a_default_whatever_its_case() -> None:
    found = headers_of(ClientRequest(URL, headers=(("host", "other"), ("X-A", "1"))))
    assert found["host"] == "other"
    assert found["X-A"] == "1"
    assert "Host" not in found


def test_a_header_without_a_value_leaves_out_the_default() -> None:
    assert b"Host" not in ClientRequest(URL, headers=(parse_header("Host:"),)).head()


def test_a_header_may_be_repeated() -> None:
    head = ClientRequest(URL, headers=(("X-A", "1"), ("X-A", "2"))).head()
    assert b"X-A: 1\r\nX-A: 2\r\n" in head


def test_bytes_go_with_their_length_and_the_type_of_a_form() -> None:
    found = headers_of(ClientRequest(URL, "POST", body=RequestContent(b"a=b")))
    assert found["Content-Length"] == "3"
    assert found["Content-Type"] == "application/x-www-form-urlencoded"


def test_a_file_goes_with_what_is_left_of_it(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    with open(tmp_path / "f", "rb", buffering=0) as file:
        file.read(4)
        found = headers_of(ClientRequest(URL, "PUT", body=RequestContent(fd=file.fileno())))
    assert found["Content-Length"] == "6"
    assert found["Content-Type"] == "application/octet-stream"


def test_an_empty_file_has_a_length(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with open(tmp_path / "f", "rb") as file:
        assert RequestContent(fd=file.fileno()).length == 0


def test_a_file_that_says_0_and_is_not_empty_goes_in_chunks() -> None:
    with open("/proc/self/status", "rb", buffering=0) as file:
        assert RequestContent(fd=file.fileno()).length is None


def test_a_pipe_goes_in_chunks(pipe: RequestContent) -> None:
    found = headers_of(ClientRequest(URL, "POST", body=pipe))
    assert found["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in found


def test_chunks_can_be_asked_for() -> None:
    request = ClientRequest(
        URL, "POST", (parse_header("transfer-encoding: chunked"),), RequestContent(b"abc")
    )
    found = headers_of(request)
    assert request.chunked
    assert found["transfer-encoding"] == "chunked"
    assert "Content-Length" not in found


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_method_with_a_body_says_that_it_is_empty(method: str) -> None:
    assert headers_of(ClientRequest(URL, method))["Content-Length"] == "0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("X: a", ("X", "a")),
        ("X:a:b ", ("X", "a:b")),
        ("X:", ("X", None)),
        ("Transfer-Encoding: Chunked", ("Transfer-Encoding", "Chunked")),
    ],
)
def test_parse_header(text: str, expected: tuple[str, str | None]) -> None:
    assert parse_header(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("X", "not a header"),
        (": a", "not a header"),
        ("X Y: a", "not a header"),
        ("X : a", "not a header"),
        ("X: a\r\nY: b", "has a line end"),
        ("X: a\nb", "has a line end"),
        ("X: a\0b", "a control character"),
        ("X: €", "latin-1"),
        ("Content-Length: 3", "is computed"),
        ("transfer-encoding: gzip", "can only be 'chunked'"),
    ],
)
def test_a_line_that_is_no_header_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_header(text)


@pytest.mark.parametrize("method", ["", "GET /", "G\r\nT", "GÉT"])
def test_a_method_is_a_token(method: str) -> None:
    with pytest.raises(ValueError, match="not a method"):
        check_method(method)


@pytest.mark.parametrize(
    ("status", "method", "expected"),
    [
        (301, "GET", "GET"),
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (302, "PUT", "PUT"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
def test_what_a_redirect_asks_for(status: int, method: str, expected: str) -> None:
    body = RequestContent(b"x") if method in ("POST", "PUT") else None
    headers = (("Content-Type", "text/plain"), ("X", "1"))
    after = redirected(ClientRequest(URL, method, headers, body), status, "/b")
    assert (after.url.target, after.method) == ("/b", expected)
    kept = method == expected
    assert after.body is (body if kept else None)
    assert after.headers == (headers if kept else (("X", "1"),))


def test_another_origin_gets_no_secrets_of_the_users() -> None:
    secrets = (("Authorization", "a"), ("cookie", "b"), ("Host", "c"), ("X-Api-Key", "d"))
    harmless = (("accept", "text/plain"), ("User-Agent", None), ("Range", "bytes=0-1"))
    request = ClientRequest(URL, headers=(*secrets, *harmless))
    same = redirected(request, 302, "/same")
    assert (same.headers, same.withheld) == (request.headers, ())
    for elsewhere in ("http://other:81/", "https://h:81/", "http://h:82/"):
        other = redirected(request, 302, elsewhere)
        assert (other.headers, other.withheld) == (
            harmless,
            ("Authorization", "X-Api-Key", "cookie"),
        )
        # And it gets none of them by sending the client back.
        back = redirected(other, 302, str(URL))
        assert (back.headers, back.withheld) == (other.headers, other.withheld)


def test_a_pipe_cannot_be_redirected_unless_it_is_dropped(pipe: RequestContent) -> None:
    request = ClientRequest(URL, "POST", body=pipe)
    with pytest.raises(ValueError, match="pipe"):
        redirected(request, 307, "/b")
    assert redirected(request, 303, "/b").body is None


@pytest.mark.parametrize(("method", "repeatable"), [("GET", True), ("PUT", True), ("POST", False)])
def test_what_may_be_sent_twice(method: str, repeatable: bool) -> None:
    assert ClientRequest(URL, method, body=RequestContent(b"x")).repeatable is repeatable


def test_a_pipe_is_never_sent_twice(pipe: RequestContent) -> None:
    assert not ClientRequest(URL, "PUT", body=pipe).repeatable
