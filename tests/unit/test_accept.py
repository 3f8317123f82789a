"""In and out of accept4 without losing a connection, and orders that a handler carries out."""

import errno
import gc
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from prefork.channel import Channel, LeavingReport, ReadyReport, RetireOrder, StopOrder
from prefork.scoreboard import Scoreboard, ThreadRecord
from prefork.worker.schedule.accept import (
    QUEUE_EMPTY,
    WAKE,
    AcceptorThread,
    Arrival,
    LeaveAccept,
    MainAcceptor,
    WorkerListener,
)
from prefork.worker.schedule.handover import Handover, HandoverMessage
from prefork.worker.schedule.poller import ConnectionPoller
from prefork.worker.schedule.worker_loop import WorkerLoop
from tests.support.processes import asleep

PATIENCE = 30.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as made:
        yield made


@pytest.fixture
def door(listener: socket.socket) -> Iterator[WorkerListener]:
    """One worker's view of it: a descriptor of its own."""
    door = WorkerListener(listener.dup())
    yield door
    door.sock.close()


@pytest.fixture
def clients(listener: socket.socket) -> Iterator[Callable[[], socket.socket]]:
    made = []

    def connect() -> socket.socket:
        made.append(socket.create_connection(listener.getsockname(), PATIENCE))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def handle() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Installs a handler for WAKE, for as long as the test."""
    before = signal.getsignal(WAKE), signal.getsignal(signal.SIGTERM)

    def install(action: Callable[[], None]) -> None:
        signal.signal(WAKE, lambda *_: action())

    yield install
    signal.signal(WAKE, before[0])
    signal.signal(signal.SIGTERM, before[1])


Handle = Callable[[Callable[[], None]], None]
Connect = Callable[[], socket.socket]


def close_all(arrivals: list[Arrival]) -> set[Any]:
    """The peers of what was accepted."""
    for fd, _ in arrivals:
        os.close(fd)
    return {peer for _, peer in arrivals}


def until(condition: Callable[[], Any]) -> None:
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline
        threading.Event().wait(0.001)


class Kicks:
    """A thread that sends WAKE to the main thread again and again."""

    def __init__(self) -> None:
        self._over = threading.Event()
        main = threading.main_thread().ident
        self._thread = threading.Thread(target=self._run, args=(main,), daemon=True)

    def _run(self, main: int) -> None:
        while not self._over.wait(0.0002):
            signal.pthread_kill(main, WAKE)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


# The door.


def test_a_shut_door_keeps_its_number_and_leaves_the_listener_to_others(
    door: WorkerListener, listener: socket.socket, clients: Connect
) -> None:
    number = door.sock.fileno()
    door.shut()
    assert not door.open
    assert door.sock.fileno() == number
    assert os.readlink(f"/proc/self/fd/{number}") == os.devnull
    assert not os.get_inheritable(number)
    problem = MainAcceptor().accept(door, [])
    assert problem is not None
    assert problem.errno == errno.ENOTSOCK
    client = clients()
    served, peer = listener.accept()
    served.close()
    assert peer == client.getsockname()


# The main thread's place.


def test_what_is_accepted_is_in_the_list(door: WorkerListener, clients: Connect) -> None:
    client = clients()
    got: list[Arrival] = []
    assert MainAcceptor().accept(door, got) is None
    assert close_all(got) == {client.getsockname()}


def test_an_empty_queue_of_a_listener_that_ends_is_told(
    door: WorkerListener, clients: Connect
) -> None:
    clients()
    door.sock.setblocking(False)
    got: list[Arrival] = []
    assert MainAcceptor().accept(door, got) is None
    problem = MainAcceptor().accept(door, got)
    assert problem is not None
    assert problem.errno in QUEUE_EMPTY
    assert len(close_all(got)) == 1


def test_so_it_is_for_a_unix_socket_shut_for_reading() -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")  # an abstract name of the kernel's choice, unix(7)
        listener.listen()
        client.connect(listener.getsockname())
        listener.shutdown(socket.SHUT_RD)
        door, got = WorkerListener(listener), list[Arrival]()
        assert MainAcceptor().accept(door, got) is None
        problem = MainAcceptor().accept(door, got)
        assert problem is not None
        assert problem.errno in QUEUE_EMPTY
        for fd, _ in got:
            os.close(fd)
        assert len(got) == 1


class Failing:
    """A listener whose accept fails with what the kernel says of a connection, or of us."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return 0

    def _accept(self) -> Arrival:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
def test_an_error_of_the_connection_is_none_of_the_listener(number: int) -> None:
    assert MainAcceptor().accept(WorkerListener(Failing(number)), []) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_an_error_of_the_listener_is_returned_and_disarms(number: int) -> None:
    place = MainAcceptor()
    problem = place.accept(WorkerListener(Failing(number)), [])  # type: ignore[arg-type]
    assert problem is not None
    assert problem.errno == number
    assert not place.armed


def test_a_handler_outside_of_accept_raises_nothing() -> None:
    place = MainAcceptor()
    place.interrupt(place.disarm())


def test_only_the_outermost_handler_raises() -> None:
    place = MainAcceptor()
    place.armed = True
    outer = place.disarm()
    place.interrupt(place.disarm())  # one that came in the middle
    with pytest.raises(LeaveAccept):
        place.interrupt(outer)


def test_a_signal_brings_the_main_thread_out(door: WorkerListener, handle: Handle) -> None:
    place = MainAcceptor()
    handle(lambda: place.interrupt(place.disarm()))
    got: list[Arrival] = []
    with Kicks():
        for _ in range(50):
            assert place.accept(door, got) is None
            assert not place.armed
    assert got == []


def test_no_connection_is_lost_to_an_interruption(
    door: WorkerListener, clients: Connect, handle: Handle
) -> None:
    """It was accepted and is in the list, or it is still in the queue."""
    place = MainAcceptor()
    deadline = monotonic() + PATIENCE

    def interrupt() -> None:
        place.interrupt(place.disarm())

    handle(interrupt)
    got: list[Arrival] = []
    peers = set()
    with Kicks():
        for _ in range(800):
            peers.add(clients().getsockname())
            while len(got) < len(peers):
                # Each kick brings it out: a connection that was lost ends the test, not its time.
                assert monotonic() < deadline, f"{len(peers) - len(got)} connections were lost"
                assert place.accept(door, got) is None
    assert len(got) == 800
    assert close_all(got) == peers


def test_an_interruption_is_not_lost_to_code_that_the_collector_runs(
    door: WorkerListener, clients: Connect, handle: Handle
) -> None:
    """An exception that is raised in there goes nowhere, and it would be the only one."""
    place = MainAcceptor()
    waits = threading.Event()
    kicks = Kicks()

    def interrupt() -> None:
        place.interrupt(place.disarm())

    def collected(*_: object) -> None:
        if place.armed and not waits.is_set():
            signal.raise_signal(WAKE)

    def kick() -> None:
        until(lambda: asleep(os.getpid()))  # in accept4
        waits.set()
        kicks.__enter__()

    handle(interrupt)
    got: list[Arrival] = []
    kicker, rescue = threading.Thread(target=kick), threading.Timer(5.0, clients)
    before = gc.get_threshold()
    gc.callbacks.append(collected)
    try:
        kicker.start()
        rescue.start()
        gc.set_threshold(1)
        assert place.accept(door, got) is None
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collected)
        rescue.cancel()
        rescue.join()
        kicker.join()
        kicks.__exit__()
    close_all(got)
    assert got == [], "only a client has brought it out"


# The acceptor thread.


class Place:
    """An acceptor with all that it works with."""

    def __init__(self, door: WorkerListener) -> None:
        self.arrivals: deque[tuple[Arrival, WorkerListener]] = deque()
        self.woken = threading.Semaphore(0)
        self.go_on = False
        self.acceptor = AcceptorThread(door, self.arrivals, self.woken.release, lambda: self.go_on)

    def wait_woken(self) -> None:
        assert self.woken.acquire(timeout=PATIENCE)


@pytest.fixture
def place(door: WorkerListener, handle: Handle) -> Iterator[Place]:
    handle(lambda: None)
    made = Place(door)
    yield made
    if door.open:
        door.shut()
    made.acceptor.dismiss()
    close_all([arrival for arrival, _ in made.arrivals])


@pytest.mark.timeout(PATIENCE)
def test_an_acceptor_posted_and_dismissed_as_it_leaves_is_waited_for(
    door: WorkerListener, handle: Handle, clients: Connect
) -> None:
    handle(lambda: None)
    arrivals: deque[tuple[Arrival, WorkerListener]] = deque()
    leaving = threading.Event()

    def wake() -> None:
        # The thread has said that it is out, and has not looked yet whether it is dismissed.
        leaving.set()
        until(lambda: acceptor._dismissed)

    acceptor = AcceptorThread(door, arrivals, wake, lambda: False)
    clients()
    acceptor.post()
    assert leaving.wait(PATIENCE)
    acceptor.post()
    door.shut()
    acceptor.dismiss()  # for ever, where the thread has ended without its second turn
    assert not acceptor.in_place
    close_all([arrival for arrival, _ in arrivals])


def test_an_acceptor_takes_one_and_leaves_its_place(
    place: Place, door: WorkerListener, clients: Connect
) -> None:
    clients()
    place.acceptor.post()
    place.wait_woken()
    until(lambda: not place.acceptor.in_place)
    clients()
    place.acceptor.post()
    place.wait_woken()
    until(lambda: not place.acceptor.in_place)
    assert len(place.arrivals) == 2
    assert all(which is door for _, which in place.arrivals)
    assert place.acceptor.problem is None


def test_an_acceptor_that_may_go_on_takes_them_all(place: Place, clients: Connect) -> None:
    place.go_on = True
    place.acceptor.post()
    for number in range(1, 11):
        clients()
        place.wait_woken()
        until(lambda number=number: len(place.arrivals) == number)
    assert place.acceptor.in_place


def test_posted_twice_it_is_there_once(place: Place, clients: Connect) -> None:
    before = threading.active_count()
    for _ in range(5):
        place.acceptor.post()
    assert threading.active_count() == before + 1
    clients()
    place.wait_woken()
    until(lambda: not place.acceptor.in_place)
    clients()  # nobody has posted it since
    assert not place.woken.acquire(timeout=0.05)
    assert len(place.arrivals) == 1


def test_dismissed_it_is_out_when_the_call_returns(place: Place, door: WorkerListener) -> None:
    place.acceptor.post()
    door.shut()
    place.acceptor.dismiss()
    assert not place.acceptor.in_place
    place.acceptor.post()
    assert not place.acceptor.in_place
    place.acceptor.dismiss()  # as often as one likes


def test_dismissed_before_it_was_ever_posted(place: Place, clients: Connect) -> None:
    place.acceptor.dismiss()
    place.acceptor.post()
    clients()
    assert not place.acceptor.in_place
    assert not place.arrivals


def test_an_error_ends_its_turn_and_is_told(place: Place, door: WorkerListener) -> None:
    door.sock.setblocking(False)
    place.acceptor.post()
    place.wait_woken()
    until(lambda: not place.acceptor.in_place)
    assert isinstance(place.acceptor.problem, BlockingIOError)


def test_no_connection_is_lost_when_an_acceptor_is_dismissed(
    listener: socket.socket, clients: Connect, handle: Handle
) -> None:
    """It is among the arrivals, or another process finds it in the queue."""
    handle(lambda: None)
    for _ in range(100):
        with listener.dup() as ours:
            place = Place(WorkerListener(ours))
            place.go_on = True
            place.acceptor.post()
            peers = {clients().getsockname() for _ in range(3)}
            place.acceptor.door.shut()
            place.acceptor.dismiss()
            found = close_all([arrival for arrival, _ in place.arrivals])
            while len(found) < len(peers):
                served, peer = listener.accept()
                served.close()
                found.add(peer)
            assert found == peers


# The loop.


class Quiet:
    """A service that keeps what arrives; `on_last` runs in the middle of the order to leave."""

    def __init__(self) -> None:
        self.parking: ConnectionPoller[Any] = ConnectionPoller()
        self.arrivals: list[Arrival] = []
        self.on_last: Callable[[], None] = lambda: None
        self.left = 0

    def welcome(self, arrival: Arrival, door: WorkerListener, record: ThreadRecord) -> None:
        self.arrivals.append(arrival)

    def adopt(
        self, parcel: HandoverMessage, fd: int, door: WorkerListener, record: ThreadRecord
    ) -> None: ...

    def ready(self, fd: int, events: int, record: ThreadRecord) -> None: ...

    def overdue(self, now: float, record: ThreadRecord) -> None: ...

    def offer(self, fd: int, slot: int | None = None) -> bool:
        return False

    def hand_over_all(self) -> None: ...

    def last(self) -> None:
        self.on_last()

    def leave(self) -> None:
        self.left += 1

    def expire(self, now: float) -> None: ...

    def flush(self) -> None: ...


class Master:
    """The other end of a loop's channel, in a thread, since the loop is in the main thread."""

    def __init__(self, channel: Channel, work: Callable[["Master"], None]) -> None:
        self.channel = channel
        self.main = threading.get_ident()
        self.reports: list[object] = []
        self.error: BaseException | None = None
        self._work = work
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work(self)
        except BaseException as error:
            self.error = error

    def hear(self, wanted: object, *, kick: bool = True) -> None:
        """Waits for a report; kicks the worker meanwhile, since it may miss a signal."""
        deadline = monotonic() + PATIENCE
        while wanted not in self.reports:
            assert monotonic() < deadline, self.reports
            if (report := self.channel.report()) is not None:
                self.reports.append(report)
            elif kick and ReadyReport() in self.reports:
                self._over.wait(0.01)
                signal.pthread_kill(self.main, WAKE)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture
def run(door: WorkerListener, handle: Handle) -> Iterator[Callable[..., Quiet]]:
    """Runs a loop in the main thread while `work` plays the master in another."""
    channels: list[Channel] = []

    def run(work: Callable[[Master], None], service: Quiet, *doors: WorkerListener) -> Quiet:
        ours, theirs = Channel.pair()
        channels.extend((ours, theirs))
        # As in the master: whoever forks has the signal blocked or handled.
        signal.signal(WAKE, lambda *_: None)
        master = Master(ours, work)
        board = Scoreboard()
        handover = Handover(board, 0, 1)
        records = [board.record(0, 0)]
        WorkerLoop(
            list(doors) or [door],
            theirs,
            lambda paths, fds: None,
            handover,
            records,
            board.accept_flags(0),
        ).run(service)
        master.join()
        return service

    yield run
    for channel in channels:
        channel.close()


Run = Callable[..., Quiet]


def test_retired_it_leaves_the_queue_alone(
    run: Run, door: WorkerListener, listener: socket.socket, clients: Connect
) -> None:
    def work(master: Master) -> None:
        master.hear(ReadyReport(), kick=False)
        master.channel.send(RetireOrder())
        master.hear(LeavingReport())

    service = run(work, Quiet())
    assert service.left == 1
    assert not door.open
    client = clients()
    served, peer = listener.accept()
    served.close()
    assert peer == client.getsockname()
    assert service.arrivals == []


def test_stopped_it_drains_the_queue_to_its_end(
    run: Run, door: WorkerListener, clients: Connect
) -> None:
    peers = {clients().getsockname() for _ in range(50)}

    def work(master: Master) -> None:
        master.hear(ReadyReport(), kick=False)
        door.sock.setblocking(False)
        master.channel.send(StopOrder((0,)))
        master.hear(LeavingReport())

    service = run(work, Quiet())
    assert close_all(service.arrivals) == peers


def test_with_several_listeners_each_is_drained(
    run: Run, clients: Connect, door: WorkerListener
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as second, socket.socket() as other:
        other.connect(second.getsockname())
        peers = {clients().getsockname(), other.getsockname()}

        def work(master: Master) -> None:
            master.hear(ReadyReport(), kick=False)
            door.sock.setblocking(False)
            second.setblocking(False)
            master.channel.send(StopOrder((0, 1)))
            master.hear(LeavingReport())

        service = run(work, Quiet(), door, WorkerListener(second))
        assert close_all(service.arrivals) == peers


def test_a_signal_in_the_middle_of_an_order_does_not_break_it_off(
    run: Run, door: WorkerListener
) -> None:
    """The handler of the second comes in the middle of the first: nothing may climb out of it."""
    service = Quiet()
    service.on_last = lambda: [signal.raise_signal(WAKE) for _ in range(3)]  # type: ignore[assignment,return-value]

    def work(master: Master) -> None:
        master.hear(ReadyReport(), kick=False)
        master.channel.send(RetireOrder())
        master.hear(LeavingReport())

    run(work, service)
    assert service.left == 1
    assert not door.open


def test_the_end_of_the_master_retires_it(run: Run, door: WorkerListener) -> None:
    def work(master: Master) -> None:
        master.hear(ReadyReport(), kick=False)
        master.channel.close()
        # The kernel sends TERM for it, prctl(2).
        until(lambda: door.open is False or signal.pthread_kill(master.main, signal.SIGTERM))

    assert run(work, Quiet()).left == 1
    assert not door.open


# The main thread at work, between two looks into its epoll.


@pytest.fixture
def at_work(door: WorkerListener, handle: Handle) -> Iterator[tuple[WorkerLoop, Quiet]]:
    """A loop that knows a sibling, and does not run."""
    with loop_at_work(door, handle, inboxes=2) as made:
        yield made


@contextmanager
def loop_at_work(
    door: WorkerListener, handle: Handle, *, inboxes: int, single: bool = False
) -> Iterator[tuple[WorkerLoop, Quiet]]:
    """`inboxes`: that the worker knows, first its own, then a sibling's; `single`: what the master
    says."""
    handle(lambda: None)
    ours, theirs = Channel.pair()
    board = Scoreboard()
    board.only_worker = single
    handover = Handover(board, 0, 1)
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends[inboxes:]:
        end.close()
    if inboxes:
        handover.learn(1, (1,), [end.detach() for end in ends[:inboxes]], own=True)
    records = [board.record(0, 0)]
    loop = WorkerLoop(
        [door], theirs, lambda paths, fds: None, handover, records, board.accept_flags(0)
    )
    service = loop._service = Quiet()  # type: ignore[assignment]
    loop._parking = service.parking
    loop._install_handlers()
    loop._watcher.start(service)  # type: ignore[arg-type]
    yield loop, service
    loop._watcher.dismiss()
    handover.in_child()
    ours.close()
    theirs.close()


def test_at_work_it_accepts_itself_and_at_rest_an_acceptor_does(
    at_work: tuple[WorkerLoop, Quiet], clients: Connect
) -> None:
    loop, service = at_work
    (acceptor,) = loop._acceptors
    peers = {clients().getsockname() for _ in range(3)}
    loop._at_work = True
    assert loop._tend_doors()
    assert 0 < len(service.arrivals) < 3, "those who are parked have their turn between"
    assert loop._tend_doors()
    assert not acceptor.in_place
    assert close_all(service.arrivals) == peers
    assert loop._tend_doors(), "it had something to do just now"
    assert not loop._tend_doors()
    assert acceptor.in_place
    acceptor.door.shut()
    acceptor.dismiss()


@pytest.mark.parametrize(
    ("inboxes", "single", "taken"),
    [
        (2, False, 2),
        (1, True, 5),
        (1, False, 0),  # another is being born, or is not known
        (0, True, 0),  # nothing would tell of another
    ],
)
def test_without_siblings_it_accepts_as_many_as_it_has_found_where_nobody_else_can(
    door: WorkerListener, handle: Handle, clients: Connect, inboxes: int, single: bool, taken: int
) -> None:
    with loop_at_work(door, handle, inboxes=inboxes, single=single) as (loop, service):
        for _ in range(6):
            clients()
        loop._acceptors[0].dismiss()  # whatever it would take
        loop._at_work, loop._found = True, 5
        assert loop._tend_doors() is bool(taken)
        assert len(service.arrivals) == taken
        close_all(service.arrivals)


def test_beaten_to_a_connection_it_comes_back(
    at_work: tuple[WorkerLoop, Quiet], door: WorkerListener
) -> None:
    loop, service = at_work

    class Wrong:
        def mine(self) -> bool:
            return True

    door.turn = None
    loop._accept_at_once(door, Wrong(), 2)  # type: ignore[arg-type]
    assert service.arrivals == []
    assert not loop._at_work
