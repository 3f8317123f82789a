"""Any bytes, cut anywhere: never an exception, and one reading, whole and in pieces."""

from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefork.http.limits import RequestLimits
from prefork.http.reader import RequestReader
from prefork.http.streamed_body import BodyError
from prefork.http.whole_heads import WholeHeads
from tests.unit.http_pieces import PIECES, WHOLE
from tests.unit.reading import BASE, LIMITS, cut, pieces_of, reading, taken

# So small that generated streams meet each of them.
SMALL = RequestLimits(40, 3, 90, 40, 10)

streams = st.lists(
    st.one_of(st.sampled_from(WHOLE), st.sampled_from(PIECES), st.binary(max_size=5)),
    max_size=14,
).map(b"".join)
cuts = st.lists(st.integers(0, 10_000), max_size=8)
limits = st.sampled_from([LIMITS, SMALL, RequestLimits(0, 0, 0, 0, 0)])


@given(streams, cuts, limits)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: 2\r\n\rZ\r\n\r\n", [40], SMALL)
@example(b"GET /" + b"a" * 40 + b"\x01 HTTP/1.1\r\n\r\n", [], SMALL)
@settings(max_examples=600, deadline=None)
def test_bytes_cut_anywhere_are_read_as_they_are_whole(
    data: bytes, places: list[int], limits: RequestLimits
) -> None:
    whole = reading([data], limits)
    assert reading(cut(data, places), limits) == whole
    assert reading(pieces_of(data, 1), limits) == whole


@given(st.binary(max_size=2000), cuts)
@settings(max_examples=200, deadline=None)
def test_any_bytes_at_all(data: bytes, places: list[int]) -> None:
    assert reading(cut(data, places)) == reading([data])


shared = WholeHeads()
"""Of all examples: what one has left there, the next may meet."""


@given(streams, cuts)
@settings(max_examples=300, deadline=None)
def test_what_is_kept_of_heads_changes_nothing(data: bytes, places: list[int]) -> None:
    for sent in ([data], cut(data, places)):
        expected = reading(sent)
        for heads in (shared, WholeHeads()):
            for _ in range(3):  # unknown, seen once, and kept
                assert reading(sent, heads=heads) == expected


@given(streams, cuts)
@settings(max_examples=300, deadline=None)
def test_a_body_is_the_same_where_it_is_read_while_it_comes(data: bytes, places: list[int]) -> None:
    whole = reading([data])
    reader = RequestReader(BASE, LIMITS._replace(stream=True))
    requests = [each for piece in cut(data, places) if piece for each in taken(reader, piece)]
    # One whose body is not complete, or is refused, was given out all the same.
    assert len(requests) - len(whole.requests) in (
        (0, 1) if whole.status or whole.in_body else (0,)
    )
    own = {"wsgi.input", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"}
    for request, (environ, body, line, _, keep_alive) in zip(
        requests, whole.requests, strict=False
    ):
        assert request.environ["wsgi.input"].read() == body
        assert (request.line, request.keep_alive) == (line, keep_alive)
        assert {k: v for k, v in request.environ.items() if k not in own} == {
            k: v for k, v in environ.items() if k not in own
        }
    for request in requests[len(whole.requests) :]:
        with pytest.raises(BodyError):
            request.environ["wsgi.input"].read()


@given(streams, cuts)
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_kept_for_later_are_read_as_if_they_came_then(
    data: bytes, places: list[int]
) -> None:
    """The owner of a reader may take no further request for a while."""
    whole = reading([data])
    reader = RequestReader(BASE, LIMITS)
    requests = []
    for piece in filter(None, cut(data, places)):
        if reader.pending:
            reader.keep(piece)
        elif (request := reader.feed(piece)) is not None:
            requests.append(request)
    while not reader.idle:
        request = reader.next()
        if request is not None:
            requests.append(request)
        elif not reader.pending:
            break
    assert [each.line for each in requests] == [each[2] for each in whole.requests]
    assert (reader.error.status if reader.error is not None else 0) == whole.status
    assert reader.in_body == whole.in_body


names = st.from_regex(rb"\A[!#$%&'*+.^`|~0-9A-Za-z-]{1,10}\Z")
values = st.from_regex(
    rb"\A[\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]{0,10}[\x21-\x7e\x80-\xff])?\Z"
)
spaces = st.sampled_from([b"", b" ", b"\t", b" \t "])
OWN = (b"host", b"expect", b"connection", b"content-length", b"content-type", b"cookie")
fields = st.lists(
    st.tuples(names, spaces, values, spaces).filter(
        lambda field: field[0].lower() not in (*OWN, b"transfer-encoding", b"forwarded")
    ),
    max_size=8,
    unique_by=lambda field: field[0].lower(),
)
tokens = st.from_regex(rb"\A[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}\Z")
quoted = st.sampled_from([b'""', b'"a b"', b'"\\""', b'"\\\\;="', b'"\x80\xff\t"'])
extensions = st.lists(
    st.tuples(spaces, spaces, tokens, st.none() | st.tuples(spaces, spaces, tokens | quoted)),
    max_size=3,
).map(
    lambda parts: b"".join(
        before + b";" + after + name + (b"%b=%b%b" % value if value is not None else b"")
        for before, after, name, value in parts
    )
)


@given(
    tokens.filter(lambda method: method != b"CONNECT"),
    fields,
    st.lists(st.tuples(st.binary(min_size=1, max_size=50), extensions), max_size=5),
    st.booleans(),
    cuts,
)
@settings(max_examples=100, deadline=None)
def test_what_is_valid_is_served_as_it_was_sent(
    method: bytes,
    fields: list[tuple[bytes, bytes, bytes, bytes]],
    body: list[tuple[bytes, bytes]],
    chunked: bool,
    places: list[int],
) -> None:
    lines = [method + b" /x HTTP/1.1", b"Host: test"]
    lines += [name + b":" + before + value + after for name, before, value, after in fields]
    content = b"".join(piece for piece, _ in body)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
        sent = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), ext, piece) for piece, ext in body)
        sent += b"0\r\nTrailer: x\r\n\r\n"
    else:
        lines.append(b"Content-Length: %d" % len(content))
        sent = content
    data = b"\r\n".join([*lines, b"", b""]) + sent
    for pieces in ([data * 2], [data, data], cut(data * 2, places)):
        found = reading(pieces)
        assert found.status == 0, found.reason
        assert len(found.requests) == 2
        for environ, received, line, *_ in found.requests:
            assert line == method + b" /x"
            assert received == content
            for name, _, value, _ in fields:
                key = "HTTP_" + name.decode().upper().replace("-", "_")
                if not name.lower().startswith(b"x-forwarded-"):
                    assert environ[key] == value.decode("latin-1")


def test_a_body_in_one_read_is_that_of_a_body_in_pieces() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\n"
    for sent in (
        head + b"Content-Length: 30\r\n\r\n" + b"x" * 30,
        head + b"Transfer-Encoding: chunked\r\n\r\n1e\r\n" + b"x" * 30 + b"\r\n0\r\n\r\n",
    ):
        (whole,) = taken(RequestReader(BASE, LIMITS), sent)
        assert whole.body is None
        assert type(whole.environ["wsgi.input"]) is BytesIO
        (on_disk,) = taken(RequestReader(BASE, LIMITS._replace(body_memory=29)), sent)
        assert on_disk.environ["wsgi.input"].fileno() >= 0
        in_pieces = [
            request
            for reader in [RequestReader(BASE, LIMITS)]
            for piece in pieces_of(sent, 10)
            for request in taken(reader, piece)
        ]
        bodies = [r.environ["wsgi.input"].read() for r in (whole, on_disk, *in_pieces)]
        assert bodies == [b"x" * 30] * 3
