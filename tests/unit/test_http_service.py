"""What is done around a call of the application, each for itself: most servers do none of it."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pytest

from prefork.apps.wsgi import StartResponse
from prefork.http.request import Environ
from prefork.http.request_id import RequestIds
from prefork.http.whole_heads import WholeHeads
from prefork.scoreboard import Scoreboard, ThreadRecord
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.worker_listener import WorkerListener
from prefork.worker.service.admission import Admission
from prefork.worker.service.http_service import HttpService
from prefork.worker.service.listener_profile import ListenerProfile
from prefork.worker.service.refusals import Refusals
from prefork.worker.service.wsgi_caller import WsgiCaller
from tests.support.client_limits import BASE, client_limits

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


class NoSiblings:
    expects_receiver = False
    expected = wanted = False


class Threads:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def before_call(self, record: ThreadRecord) -> None:
        self.told.append(record)

    def after_call(self, seconds: float) -> None:
        self.told.append(seconds)


class Access:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def add(self, *line: Any) -> None:
        self.told.append(line)

    def flush(self) -> None: ...


def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


class Served(NamedTuple):
    board: Scoreboard
    service: HttpService
    record: ThreadRecord
    client: socket.socket

    def ask(self) -> bytes:
        """The answer to a request on the one kept connection."""
        self.client.sendall(GET)
        for fd in list(self.service.poller.parked):
            self.service.serve_ready(fd, 1, self.record, 0.0)
        return self.client.recv(65536)


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    ends: list[Callable[[], None]] = []

    def serve(**around: Any) -> Served:
        given: dict[str, Any] = {
            **dict.fromkeys(("threads", "access", "ids", "draining")),
            "proxies": False,
            **around,
        }
        board = Scoreboard()
        siblings: Any = NoSiblings()
        admission = Admission[HttpConnection](0, 0, descriptors=None)
        threads, stats = given.pop("threads"), board.stats_writer(0)
        refusals = given.pop("refusals", None) or Refusals(None)
        service = HttpService(
            *(WsgiCaller(app, threads, stats, **given), client_limits(), threads, siblings, stats),
            [ListenerProfile(BASE, HttpConnection, WholeHeads())],
            admission=admission,
            refusals=refusals,
            request_timeout=0.0,
            graceful_timeout=0.0,
        )
        listening = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listening.getsockname())
        listener = WorkerListener(listening)
        ends.extend((listening.close, client.close, lambda: os.close(listener.spare_fd)))
        record = board.record(0, 0)
        sock, peer = listening.accept()
        service.serve_accepted((sock.detach(), peer), listener, record)
        ends.extend(each.close for each in service.poller.parked.values())
        return Served(board, service, record, client)

    yield serve
    for end in ends:
        end()


def test_the_end_reports_the_refusals_that_no_event_has_yet(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    refusals = Refusals(None)
    service = serve(refusals=refusals).service
    refusals.note_of_call(413, "the first is an event at once")
    refusals.note_of_call(413, "this one waits for some seconds")
    service.flush()
    assert capfd.readouterr().err.count("requests refused") == 1
    service.begin_shutdown()
    service.flush()
    refusals.note_of_call(400, "no turn has a changed number")
    service.flush()
    events = [line for line in capfd.readouterr().err.splitlines() if "requests refused" in line]
    assert [event.partition("reason=")[2].split('"')[1] for event in events] == [
        "this one waits for some seconds",
        "no turn has a changed number",
    ]


def test_threads_are_notified_of_each_call(serve: Serve) -> None:
    threads = Threads()
    served = serve(threads=threads)
    for number in range(4):
        served.ask()
        entered, seconds = threads.told[2 * number :]
        assert entered is served.record
        assert isinstance(seconds, float)


def test_each_request_gets_its_id(serve: Serve) -> None:
    served = serve(ids=RequestIds("X-Request-ID"))
    answers = [served.ask() for _ in range(4)]
    assert all(b"\r\nX-Request-ID: " in answer for answer in answers)
    assert len(set(answers)) == 4


def test_each_call_is_a_line_of_the_access_log(serve: Serve) -> None:
    access = Access()
    served = serve(access=access)
    for number in range(4):
        served.ask()
        environ, status, size = access.told[number][:3]
        assert (environ["REQUEST_METHOD"], status, size) == ("GET", 200, 5)


def test_a_server_that_is_about_to_stop_says_so(serve: Serve) -> None:
    drains = False
    served = serve(draining=lambda: drains)
    for _ in range(3):
        assert b"Connection: close" not in served.ask()
    drains = True
    assert b"Connection: close" in served.ask()
    assert served.client.recv(1) == b""


def test_calls_are_counted_where_nothing_else_is_done(serve: Serve) -> None:
    served = serve()
    for _ in range(4):
        assert served.ask().endswith(b"\r\n\r\nhello")
    assert served.board.requests(0, 1) == 4
