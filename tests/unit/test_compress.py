"""Compression around an application, which is called as a server calls it."""

import gzip
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
import zstandard

from prefork.apps.compress import Compress, is_compressible
from prefork.apps.wsgi import FileWrapper

TEXT = b"a line that comes again and again\n" * 100
HTML = ("Content-Type", "text/html; charset=utf-8")


class Answer:
    def __init__(self, application: Any, accept: str | None = "gzip", method: str = "GET") -> None:
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": ""}
        if accept is not None:
            environ["HTTP_ACCEPT_ENCODING"] = accept
        setup_testing_defaults(environ)
        self.pieces: list[bytes] = []
        self.started = 0
        self.result = application(environ, self._start)
        self.pieces += self.result
        if hasattr(self.result, "close"):
            self.result.close()
        self.body = b"".join(self.pieces)

    def _start(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        self.started += 1
        self.status = status
        self.headers = dict(headers)
        assert len(self.headers) == len(headers)
        return self.pieces.append

    @property
    def coding(self) -> str | None:
        return self.headers.get("Content-Encoding")


def app(
    body: Iterable[bytes] = (TEXT,), *headers: tuple[str, str], status: str = "200 OK"
) -> Callable[..., Iterable[bytes]]:
    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(status, [HTML, *headers])
        return body

    return application


def compressed(application: Any, **asked: Any) -> Answer:
    return Answer(Compress(application, ("zstd", "gzip"), 1000), **asked)


LENGTH = ("Content-Length", str(len(TEXT)))


def test_a_body_in_one_piece_is_one_piece_and_has_no_length_that_is_not_true() -> None:
    answer = compressed(app([TEXT], LENGTH, ("ETag", '"1"'), ("Accept-Ranges", "bytes")))
    assert len(answer.pieces) == 1
    assert gzip.decompress(answer.body) == TEXT
    assert len(answer.body) < len(TEXT) / 10
    assert answer.headers == {
        **dict([HTML]),
        "ETag": 'W/"1"',
        "Vary": "Accept-Encoding",
        "Content-Encoding": "gzip",
    }


def test_zstd_where_it_is_wanted() -> None:
    answer = compressed(app(), accept="gzip, zstd")
    assert answer.coding == "zstd"
    assert zstandard.ZstdDecompressor().decompressobj().decompress(answer.body) == TEXT


def test_each_piece_can_be_read_when_it_comes() -> None:
    pieces = [b"one", b"", b"two", b"three"]
    for accept, reader in (
        ("gzip", __import__("zlib").decompressobj(31)),
        ("zstd", zstandard.ZstdDecompressor().decompressobj()),
    ):
        answer = compressed(app(iter(pieces)), accept=accept)
        assert [reader.decompress(piece) for piece in answer.pieces] == [
            b"one",
            b"two",
            b"three",
            b"",
        ]


def test_write_and_what_is_returned_are_one_body() -> None:
    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [HTML])
        write(b"written, ")
        return [b"returned"]

    assert gzip.decompress(compressed(application).body) == b"written, returned"


def test_a_generator_starts_its_response_when_it_runs() -> None:
    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [HTML])
        yield TEXT
        yield TEXT

    assert gzip.decompress(compressed(application).body) == TEXT * 2
    assert compressed(application, accept=None).body == TEXT * 2


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Encoding", "br")],
        [("Cache-Control", "max-age=5, no-transform")],
        [("Content-Length", "999")],
        [("content-length", "0")],
    ],
)
def test_what_stays_as_it_is(headers: list[tuple[str, str]]) -> None:
    body = [TEXT]
    answer = compressed(app(body, *headers))
    assert answer.result is body
    assert answer.headers == dict([HTML, *headers])


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial Content", "304 X", "301 X"])
def test_statuses_that_stay(status: str) -> None:
    assert compressed(app([b""], status=status)).coding is None


def test_an_error_page_is_compressed_too() -> None:
    assert gzip.decompress(compressed(app(status="404 Not Found")).body) == TEXT


def test_a_cache_is_told_even_where_this_client_takes_no_coding() -> None:
    answer = compressed(app([TEXT], LENGTH, ("ETag", '"1"')), accept=None)
    assert answer.body == TEXT
    assert answer.headers == dict([HTML, LENGTH, ("ETag", '"1"'), ("Vary", "Accept-Encoding")])
    for vary, expected in (
        ("Cookie", "Cookie, Accept-Encoding"),
        ("*", "*"),
        ("accept-encoding",) * 2,
    ):
        assert compressed(app([TEXT], ("Vary", vary))).headers["Vary"] == expected


def test_head_has_the_headers_of_get() -> None:
    application = app([TEXT], LENGTH)
    assert compressed(application, method="HEAD").headers == compressed(application).headers


def test_a_file_is_the_servers_to_send_where_it_is_not_compressed() -> None:
    with open(__file__, "rb") as file:
        wrapped = FileWrapper(file)
        answer = compressed(app(wrapped), accept=None)
        assert answer.result is wrapped
    with open(__file__, "rb") as file:
        answer = compressed(app(FileWrapper(file)))
        assert gzip.decompress(answer.body).startswith(b'"""Compression')
        assert file.closed


def test_an_answer_that_is_replaced_is_compressed_as_the_new_one_wants() -> None:
    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [HTML])
        try:
            raise ValueError
        except ValueError:
            start_response("500 X", [("Content-Type", "image/png")], sys.exc_info())
        return [TEXT]

    answer = compressed(application)
    assert (answer.body, answer.coding, answer.started) == (TEXT, None, 2)


def test_it_is_an_application_by_the_letter() -> None:
    for body in ([TEXT], iter([TEXT, b"more"])):
        compressed: Any = Compress(validator(app(body)), ("gzip",), 10)
        wrapped = validator(compressed)
        assert gzip.decompress(Answer(wrapped).body).startswith(TEXT)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text/html; charset=utf-8", True),
        ("application/json", True),
        ("Application/LD+JSON", True),
        ("image/svg+xml", True),
        ("application/wasm", True),
        ("image/png", False),
        ("application/zip", False),
        ("text/event-stream", False),
        ("", False),
    ],
)
def test_what_becomes_smaller(kind: str, expected: bool) -> None:
    assert is_compressible(kind) is expected
