"""What a reader of requests is to its owner, beside what it reads."""

import gc
import weakref
from io import BytesIO

import pytest

from prefork.http.disk_budget import DiskBudget
from prefork.http.field_lines import FieldLines
from prefork.http.forwarded import trust
from prefork.http.gathered_body import GatheredBody
from prefork.http.limits import RequestLimits
from prefork.http.memory_budget import MemoryBudget
from prefork.http.proxied_reader import ProxiedReader, keys
from prefork.http.reader import RequestReader, State
from prefork.http.streamed_body import BodyError, StreamedBody
from prefork.http.whole_heads import WholeHeads
from tests.unit.reading import BASE, LIMITS, taken

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n"
CHUNKS = b"PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


def reader(limits: RequestLimits = LIMITS) -> RequestReader:
    return RequestReader(BASE, limits)


# States.


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (b"\r\n", State.START),
        (b"G", State.HEAD),
        (GET[:-1], State.HEAD),
        (GET, State.START),
        (GET + b"\r\n", State.START),
        (GET + b"G", State.HEAD),
        (POST, State.LENGTH),
        (POST + b"ab", State.LENGTH),
        (POST + b"abc", State.START),
        (CHUNKS, State.CHUNKED),
        (CHUNKS + b"0\r\n", State.CHUNKED),
        (CHUNKS + b"0\r\n\r\n", State.START),
        (CLOSE, State.END),
        (b"\0", State.END),
    ],
)
def test_the_state_and_what_it_means(data: bytes, state: State) -> None:
    read = reader()
    taken(read, data)
    assert read.state is state
    assert read.idle is (state is State.START)
    assert read.in_body is (state in (State.LENGTH, State.CHUNKED))
    assert read.last is (data is CLOSE)
    assert (read.error is not None) is (data == b"\0")


def test_the_method_of_what_is_being_read_or_was_refused() -> None:
    for data, method in (
        (b"", "GET"),
        (b"HEAD", "GET"),
        (b"HEAD ", "HEAD"),
        (b"\r\nHEAD / HTTP/1.1\r\nHost: a", "HEAD"),
        (b"HEAD / HTTP/2.0\r\n", "HEAD"),
        (b"HEAD / HTTP/1.1\r\n\r\n", "HEAD"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", "HEAD"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", "HEAD"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "GET"),
        (b"\0EAD / HTTP/1.1\r\n", "GET"),
    ):
        read = reader()
        if data:
            taken(read, data)
        assert read.method == method, data


def test_one_request_is_read_and_no_further() -> None:
    """What follows stays bytes, and all of them are counted."""
    read = reader()
    pipeline = GET * 500
    assert read.feed(pipeline) is not None
    assert read.pending
    assert not read.idle
    assert read.held == len(pipeline)
    assert read.error is None
    for _ in range(499):
        assert read.next() is not None
    assert (read.held, read.pending, read.idle) == (0, False, True)
    assert read.next() is None


def test_a_fault_behind_a_request_is_not_seen_before_that_is_answered() -> None:
    read = reader()
    assert read.feed(GET + b"\0") is not None
    assert read.error is None
    assert read.next() is None
    assert read.error is not None
    assert read.held == 0


def test_bytes_may_be_kept_for_later() -> None:
    read = reader()
    assert read.feed(GET + GET[:10]) is not None
    read.keep(GET[10:])
    read.keep(POST)
    assert read.held == len(GET + POST)
    lines = []
    while read.pending:
        request = read.next()
        if request is not None:
            lines.append(request.line)
    assert lines == [b"GET /"]
    assert read.state is State.LENGTH


@pytest.mark.parametrize(
    ("data", "held"),
    [(b"", 0), (GET[:-1], len(GET) - 1), (POST + b"ab", 0), (CHUNKS + b"3;abc", 5), (b"\r\n", 0)],
)
def test_what_is_held_is_counted(data: bytes, held: int) -> None:
    read = reader()
    if data:
        taken(read, data)
    assert read.held == held


def test_an_idle_reader_holds_nothing_of_what_it_has_read() -> None:
    read = reader()
    taken(read, b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 5000)
    taken(read, b"\r\n\r\n" + POST + b"abc" + CHUNKS + b"3\r\nabc\r\n0\r\n\r\n" + CHUNKS[:5])
    taken(read, CHUNKS[5:] + b"0\r\nX: 1\r\n\r\n")
    assert read.idle
    held = gc.get_referents(read)
    assert not [each for each in held if isinstance(each, bytes | bytearray) and each]
    assert read.body is None


def test_no_reader_and_no_body_waits_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for data in (
            GET,
            GET[:9],
            POST,
            POST + b"a",
            CHUNKS + b"z\r\n",
            b"\0",
            GET[:-2] + b"\0\r\n\r\n",
        ):
            for stream in (False, True):
                budget = MemoryBudget()
                read = reader(LIMITS._replace(stream=stream, budget=budget))
                taken(read, data)
                body = read.body
                kept = weakref.ref(body) if type(body) is StreamedBody else None
                del read, body
                assert kept is None or kept() is None
                assert budget.used == 0
        assert gc.collect() == 0
    finally:
        gc.enable()


# The end.


def test_what_follows_a_last_request_is_read_by_nobody() -> None:
    for pieces in ([CLOSE + GET], [CLOSE, GET]):
        read = reader()
        assert sum(len(taken(read, piece)) for piece in pieces) == 1
        assert (read.last, read.surplus, read.held) == (True, True, 0)
    read = reader()
    taken(read, CLOSE)
    assert not read.surplus


def test_the_end_may_be_said_at_any_time() -> None:
    for data, surplus in ((GET, False), (GET + GET, True), (GET[:5], True), (POST, True)):
        read = reader()
        read.feed(data)
        read.finish()
        assert (read.last, read.surplus, read.state) == (True, surplus, State.END)
        assert (read.held, read.body, read.wants_continue) == (0, None, False)
        read.finish()
        assert read.surplus is surplus
        read.keep(GET)
        assert read.surplus
        assert read.next() is None


def test_a_reader_that_was_extended_says_so_in_each_environ() -> None:
    read = reader()
    read.extend({"SSL_PROTOCOL": "TLSv1.3"})
    (one, other) = taken(read, GET + GET)
    assert one.environ["SSL_PROTOCOL"] == other.environ["SSL_PROTOCOL"] == "TLSv1.3"
    assert "SSL_PROTOCOL" not in BASE


# Bodies.


def test_a_client_that_waits_for_100_is_known_until_its_body_comes() -> None:
    head = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-Continue\r\n\r\n")
    for stream in (False, True):
        read = reader(LIMITS._replace(stream=stream))
        read.feed(head)
        assert read.wants_continue
        read.feed(b"a")
        assert not read.wants_continue
        for data in (head + b"a", head.replace(b"/1.1", b"/1.0")):
            read = reader()
            read.feed(data)
            assert not read.wants_continue


def test_a_body_beyond_its_memory_goes_to_disk_whole_or_in_pieces() -> None:
    limits = LIMITS._replace(body_memory=2)
    for data in (POST + b"abc", CHUNKS + b"3\r\nabc\r\n0\r\n\r\n"):
        for size in (1, len(data)):
            read = reader(limits)
            requests = [
                r for at in range(0, len(data), size) for r in taken(read, data[at : at + size])
            ]
            assert requests[0].environ["wsgi.input"].fileno() >= 0
            assert requests[0].environ["wsgi.input"].read() == b"abc"


def test_a_body_of_known_length_is_received_into_its_own_memory() -> None:
    read = reader(LIMITS._replace(body_memory=0))
    head = POST.replace(b"Length: 3", b"Length: 5")
    assert read.room() is None
    assert read.feed(head + b"a") is None
    pieces = [b"bc", b"de"]
    request = None
    for piece in pieces:
        assert request is None
        room = read.room()
        assert room is not None
        with room:
            room[:2] = piece
        request = read.received(2)
    assert request is not None
    assert (read.state, read.room()) == (State.START, None)
    assert request.environ["wsgi.input"].getvalue() == b"abcde"
    # The memory is the application's: nothing else holds it.
    request.environ["wsgi.input"].write(b"longer than it was")


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        (LIMITS._replace(body_memory=2), POST + b"a"),
        (LIMITS._replace(budget=MemoryBudget(1)), POST + b"a"),
        (LIMITS._replace(stream=True), POST + b"a"),
        (LIMITS, CHUNKS + b"3\r\na"),
        (LIMITS, GET[:9]),
    ],
)
def test_only_a_body_that_stays_in_memory_has_room_there(
    limits: RequestLimits, data: bytes
) -> None:
    read = reader(limits)
    read.feed(data)
    assert read.room() is None


def test_a_body_in_pieces_is_counted_in_the_budget_until_it_is_gone() -> None:
    budget = MemoryBudget()
    read = reader(LIMITS._replace(budget=budget))
    read.feed(POST + b"ab")
    assert type(read.body) is GatheredBody
    assert (budget.used, read.body.size) == (3, 2)  # the memory for all of it is there
    request = read.feed(b"c")
    assert request is not None
    assert budget.used == 3
    assert request.environ["wsgi.input"].read() == b"abc"
    del request
    assert budget.used == 0


def test_no_room_on_disk_and_a_full_disk_are_507(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = LIMITS._replace(body_memory=1, disk=DiskBudget(1))
    read = reader(limits)
    assert read.feed(POST + b"ab") is None
    assert read.error is not None
    assert read.error.status == 507

    def full() -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prefork.http.disk_budget.unnamed_file", full)
    read = reader(LIMITS._replace(body_memory=1, disk=DiskBudget()))
    assert read.feed(POST + b"ab") is None
    assert read.error is not None
    assert (read.error.status, "No space left" in read.error.reason) == (507, True)
    assert read.state is State.END


def test_a_body_that_is_read_while_it_comes() -> None:
    read = reader(LIMITS._replace(stream=True))
    request = read.feed(CHUNKS + b"3\r\nab")
    assert request is not None
    body = request.body
    assert type(body) is StreamedBody
    assert read.body is body
    assert read.feed(b"c\r\n0\r\n\r\n" + GET) is None
    assert read.body is None
    assert read.pending
    assert request.environ["wsgi.input"].read() == b"abc"
    assert read.next() is not None


def test_a_body_that_is_whole_is_no_stream() -> None:
    read = reader(LIMITS._replace(stream=True))
    request = read.feed(POST + b"abc")
    assert request is not None
    assert request.body is None
    assert type(request.environ["wsgi.input"]) is BytesIO


def test_a_fault_in_a_body_that_is_read_while_it_comes_is_the_applications() -> None:
    read = reader(LIMITS._replace(stream=True))
    request = read.feed(CHUNKS)
    assert request is not None
    assert read.feed(b"3\r\nabc\r\nz\r\n") is None
    assert read.error is None
    assert (read.last, read.surplus, read.state) == (True, True, State.END)
    stream = request.environ["wsgi.input"]
    assert stream.read(3) == b"abc"
    with pytest.raises(BodyError):
        stream.read(1)


# Whole heads.


def test_a_head_is_kept_when_it_comes_for_the_second_time() -> None:
    heads = WholeHeads()
    found = []
    for _ in range(4):
        read = RequestReader(BASE, LIMITS, ("192.0.2.1", "1"))
        read.heads = heads
        request = read.feed(GET)
        assert request is not None
        found.append(request.repeated is not None)
        request.environ["REQUEST_METHOD"] = "changed"
        assert request.environ["REMOTE_ADDR"] == "192.0.2.1"
    assert found == [False, False, True, True]
    assert len(heads) == 1


def test_what_is_one_connections_own_is_in_no_head_that_is_kept() -> None:
    """As with TLS: the certificate of one client must not be another's."""
    heads = WholeHeads()
    first = {"SSL_CIPHER": "A", "SSL_CLIENT_CERT": "of the first client"}
    for own in (first, first, first, {"SSL_CIPHER": "B"}, {}):
        read = RequestReader(BASE, LIMITS, ("192.0.2.1", "1"))
        read.heads = heads
        if own:
            read.extend(own)
        request = read.feed(GET)
        assert request is not None
        assert {key: request.environ[key] for key in request.environ if key[:3] == "SSL"} == own
    assert request is not None
    assert request.repeated is not None


@pytest.mark.parametrize(
    "data",
    [
        GET.replace(b"\r\n\r\n", b"\r\nCookie: a=b\r\n\r\n"),
        GET.replace(b"\r\n\r\n", b"\r\nAuthorization: Basic abc\r\n\r\n"),
        GET.replace(b"\r\n\r\n", b"\r\nX-Unknown: abc\r\n\r\n"),
        GET.replace(b" / ", b" /?token=abc "),
        GET.replace(b"\r\n\r\n", b"\r\nAccept: " + b"a" * 250 + b"\r\n\r\n"),
        GET + GET,
        b"\r\n" + GET,
        POST + b"abc",
    ],
)
def test_a_head_that_is_not_kept(data: bytes) -> None:
    heads = WholeHeads()
    for _ in range(4):
        read = reader()
        read.heads = heads
        taken(read, data)
    assert len(heads) == 0 or list(heads) == [GET]
    assert data not in heads


def test_a_known_head_may_end_the_connection() -> None:
    heads = WholeHeads()
    for _ in range(4):
        read = reader()
        read.heads = heads
        assert read.feed(CLOSE) is not None
        assert (read.last, read.state, read.surplus) == (True, State.END, False)
        assert read.feed(CLOSE) is None
        assert read.surplus


def test_clients_cannot_fill_the_memory_with_heads() -> None:
    heads = WholeHeads()
    read = reader()
    read.heads = heads
    for number in range(3000):
        for _ in range(2):
            taken(read, GET.replace(b" / ", b" /%d " % number))
    assert 0 < len(heads) <= 256
    assert len(heads._marks) <= 1024


# Behind a trusted proxy.

NAMES = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto"]
BELIEVED = FieldLines(keys(NAMES))


def proxied() -> ProxiedReader:
    base = {**BASE, "SERVER_NAME": "", "SERVER_PORT": "", "SCRIPT_NAME": ""}
    return ProxiedReader(base, LIMITS, ("10.0.0.1", "1"), trust(["10.0.0.1"]), BELIEVED)


def proxied_get(*lines: bytes, target: bytes = b"/") -> bytes:
    return b"\r\n".join([b"GET %b HTTP/1.1" % target, b"Host: test", *lines, b"", b""])


def test_a_trusted_proxy_speaks_for_its_client() -> None:
    (request,) = taken(
        proxied(),
        proxied_get(
            b"X-Forwarded-For: 192.0.2.9", b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-Proto: https"
        ),
    )
    assert request.environ["REMOTE_ADDR"] == "192.0.2.9"
    assert request.environ["wsgi.url_scheme"] == "https"


def test_what_is_not_believed_is_dropped() -> None:
    (request,) = taken(
        proxied(), proxied_get(b"X-Forwarded-Host: evil", b"X_Forwarded_For: 192.0.2.9")
    )
    assert request.environ["HTTP_HOST"] == "test"
    assert request.environ["REMOTE_ADDR"] == "10.0.0.1"
    assert "evil" not in request.environ.values()
    (request,) = taken(reader(), proxied_get(b"X-Forwarded-For: 192.0.2.9"))
    assert "192.0.2.9" not in request.environ.values()


def test_a_proxy_that_contradicts_itself_is_refused() -> None:
    data = proxied_get(b"X-Forwarded-For: 192.0.2.9", b"Forwarded: for=192.0.2.8")
    for size in (1, len(data)):
        read = proxied()
        assert not [
            r for at in range(0, len(data), size) for r in taken(read, data[at : at + size])
        ]
        assert read.error is not None
        assert read.error.status == 400


def test_a_trusted_gateway_may_ask_for_an_https_resource() -> None:
    assert len(taken(proxied(), proxied_get(target=b"https://test/"))) == 1
