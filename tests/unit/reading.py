"""What a reader makes of bytes, as something that can be compared."""

from itertools import pairwise
from typing import Any, NamedTuple

from prefork.http.limits import RequestLimits
from prefork.http.reader import RequestReader, State
from prefork.http.request import Request
from prefork.http.whole_heads import WholeHeads

BASE = {"wsgi.url_scheme": "http", "REMOTE_ADDR": "", "REMOTE_PORT": ""}
LIMITS = RequestLimits(8192, 100, 65536, 1 << 20, 65536)


class Reading(NamedTuple):
    """All that may not depend on how the bytes were cut."""

    requests: list[tuple[dict[str, Any], bytes, bytes, bool, bool]]
    """Environ without `wsgi.input`, body, line, whether it is HTTP/1.1 and keeps the connection."""
    status: int
    """Of the refusal, 0 for none."""
    reason: str
    ended: bool
    in_body: bool
    idle: bool
    method: str


def taken(reader: RequestReader, data: bytes) -> list[Request]:
    """Feeds a piece, and takes all requests that can be taken then."""
    requests = []
    request = reader.feed(data)
    while request is not None or (reader.pending and reader.state is State.START):
        if request is not None:
            requests.append(request)
        request = reader.next()
    return requests


def seen(request: Request) -> tuple[dict[str, Any], bytes, bytes, bool, bool]:
    environ = {key: value for key, value in request.environ.items() if key != "wsgi.input"}
    body = request.environ["wsgi.input"].read()
    return environ, body, request.line, request.http11, request.keep_alive


def reading(
    pieces: list[bytes], limits: RequestLimits = LIMITS, heads: WholeHeads | None = None
) -> Reading:
    reader = RequestReader(BASE, limits)
    reader.heads = heads
    requests = [seen(request) for piece in pieces if piece for request in taken(reader, piece)]
    error = reader.error
    return Reading(
        requests,
        error.status if error is not None else 0,
        error.reason if error is not None else "",
        reader.last or error is not None,
        reader.in_body,
        reader.idle,
        reader.method,
    )


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(at)]
