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
    AcceptInterrupted,
    AcceptorThread,
    MainAcceptor,
)
from prefork.worker.schedule.fairness import AcceptFairness
from prefork.worker.schedule.handover import Handover, HandoverMessage
from prefork.worker.schedule.poller import ConnectionPoller
from prefork.worker.schedule.wakeup import Wakeup
from prefork.worker.schedule.worker_listener import AcceptedSocket, WorkerListener
from prefork.worker.schedule.worker_loop import WorkerLoop
from tests.support.processes import asleep
from tests.support.waiting import PATIENCE, until


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as made:
        yield made


@pytest.fixture
def listener(listening: socket.socket) -> Iterator[WorkerListener]:
    """One worker's view of it: a descriptor of its own."""
    listener = WorkerListener(listening.dup())
    yield listener
    listener.sock.close()


@pytest.fixture
def clients(listening: socket.socket) -> Iterator[Callable[[], socket.socket]]:
    made = []

    def connect() -> socket.socket:
        made.append(socket.create_connection(listening.getsockname(), PATIENCE))
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


def close_all(accepted: list[AcceptedSocket]) -> set[Any]:
    """The peers of what was accepted."""
    for fd, _ in accepted:
        os.close(fd)
    return {peer for _, peer in accepted}


class WakeSignals:
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


# The listener.


def test_a_replaced_listener_keeps_its_number_and_stays_open_for_others(
    listener: WorkerListener, listening: socket.socket, clients: Connect
) -> None:
    number = listener.sock.fileno()
    listener.stop_accepting()
    assert not listener.open
    assert listener.sock.fileno() == number
    assert os.readlink(f"/proc/self/fd/{number}") == os.devnull
    assert not os.get_inheritable(number)
    problem = MainAcceptor().accept(listener, [])
    assert problem is not None
    assert problem.errno == errno.ENOTSOCK
    client = clients()
    served, peer = listening.accept()
    served.close()
    assert peer == client.getsockname()


# The main thread in accept4.


def test_what_is_accepted_is_in_the_list(listener: WorkerListener, clients: Connect) -> None:
    client = clients()
    accepted: list[AcceptedSocket] = []
    assert MainAcceptor().accept(listener, accepted) is None
    assert close_all(accepted) == {client.getsockname()}


def test_the_empty_queue_of_a_listener_that_ends_is_reported(
    listener: WorkerListener, clients: Connect
) -> None:
    clients()
    listener.sock.setblocking(False)
    accepted: list[AcceptedSocket] = []
    assert MainAcceptor().accept(listener, accepted) is None
    problem = MainAcceptor().accept(listener, accepted)
    assert problem is not None
    assert problem.errno in QUEUE_EMPTY
    assert len(close_all(accepted)) == 1


def test_so_it_is_for_a_unix_socket_shut_for_reading() -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind("")  # an abstract name of the kernel's choice, unix(7)
        listening.listen()
        client.connect(listening.getsockname())
        listening.shutdown(socket.SHUT_RD)
        listener, accepted = WorkerListener(listening), list[AcceptedSocket]()
        assert MainAcceptor().accept(listener, accepted) is None
        problem = MainAcceptor().accept(listener, accepted)
        assert problem is not None
        assert problem.errno in QUEUE_EMPTY
        for fd, _ in accepted:
            os.close(fd)
        assert len(accepted) == 1


class Failing:
    """A listening whose accept fails with what the kernel says of a connection, or of us."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return 0

    def _accept(self) -> AcceptedSocket:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
def test_an_error_of_the_connection_is_none_of_the_listener(number: int) -> None:
    assert MainAcceptor().accept(WorkerListener(Failing(number)), []) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_an_error_of_the_listener_is_returned_and_disarms(number: int) -> None:
    main = MainAcceptor()
    problem = main.accept(WorkerListener(Failing(number)), [])  # type: ignore[arg-type]
    assert problem is not None
    assert problem.errno == number
    assert not main.armed


def test_a_handler_outside_of_accept_raises_nothing() -> None:
    main = MainAcceptor()
    main.interrupt(main.disarm())


def test_only_the_outermost_handler_raises() -> None:
    main = MainAcceptor()
    main.armed = True
    outer = main.disarm()
    main.interrupt(main.disarm())  # one that came in the middle
    with pytest.raises(AcceptInterrupted):
        main.interrupt(outer)


def test_a_signal_brings_the_main_thread_out(listener: WorkerListener, handle: Handle) -> None:
    main = MainAcceptor()
    handle(lambda: main.interrupt(main.disarm()))
    accepted: list[AcceptedSocket] = []
    with WakeSignals():
        for _ in range(50):
            assert main.accept(listener, accepted) is None
            assert not main.armed
    assert accepted == []


def test_no_connection_is_lost_to_an_interruption(
    listener: WorkerListener, clients: Connect, handle: Handle
) -> None:
    """It was accepted and is in the list, or it is still in the queue."""
    main = MainAcceptor()
    deadline = monotonic() + PATIENCE

    def interrupt() -> None:
        main.interrupt(main.disarm())

    handle(interrupt)
    accepted: list[AcceptedSocket] = []
    peers = set()
    with WakeSignals():
        for _ in range(800):
            peers.add(clients().getsockname())
            while len(accepted) < len(peers):
                # Each signal brings it out: a connection that was lost ends the test, not its time.
                assert monotonic() < deadline, f"{len(peers) - len(accepted)} connections were lost"
                assert main.accept(listener, accepted) is None
    assert len(accepted) == 800
    assert close_all(accepted) == peers


def test_an_interruption_is_not_lost_to_code_that_the_collector_runs(
    listener: WorkerListener, clients: Connect, handle: Handle
) -> None:
    """An exception that is raised in there goes nowhere, and it would be the only one."""
    main = MainAcceptor()
    waits = threading.Event()
    signals = WakeSignals()

    def interrupt() -> None:
        main.interrupt(main.disarm())

    def collected(*_: object) -> None:
        if main.armed and not waits.is_set():
            signal.raise_signal(WAKE)

    def begin() -> None:
        until(lambda: asleep(os.getpid()))  # in accept4
        waits.set()
        signals.__enter__()

    handle(interrupt)
    accepted: list[AcceptedSocket] = []
    beginner, rescue = threading.Thread(target=begin), threading.Timer(5.0, clients)
    before = gc.get_threshold()
    gc.callbacks.append(collected)
    try:
        beginner.start()
        rescue.start()
        gc.set_threshold(1)
        assert main.accept(listener, accepted) is None
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collected)
        rescue.cancel()
        rescue.join()
        beginner.join()
        signals.__exit__()
    close_all(accepted)
    assert accepted == [], "only a client has brought it out"


# The acceptor thread.


class Acceptor:
    """An acceptor with all that it works with."""

    def __init__(self, listener: WorkerListener) -> None:
        self.accepted: deque[tuple[AcceptedSocket, WorkerListener]] = deque()
        self.woken = threading.Semaphore(0)
        self.may_continue = False
        self.acceptor = AcceptorThread(
            listener, self.accepted, self.woken.release, lambda: self.may_continue
        )

    def wait_woken(self) -> None:
        assert self.woken.acquire(timeout=PATIENCE)

    def wait_accepted(self, number: int) -> None:
        until(lambda: len(self.accepted) == number)


@pytest.fixture
def one(listener: WorkerListener, handle: Handle) -> Iterator[Acceptor]:
    handle(lambda: None)
    made = Acceptor(listener)
    made.acceptor.start()
    yield made
    if listener.open:
        listener.stop_accepting()
    made.acceptor.stop()
    close_all([accepted for accepted, _ in made.accepted])


@pytest.mark.timeout(PATIENCE)
def test_an_acceptor_resumed_and_stopped_as_it_ends_is_waited_for(
    listener: WorkerListener, handle: Handle, clients: Connect
) -> None:
    handle(lambda: None)
    accepted: deque[tuple[AcceptedSocket, WorkerListener]] = deque()
    ending = threading.Event()

    def wake() -> None:
        # The thread has cleared `accepting`, and must have seen before whether it is stopped.
        ending.set()
        until(lambda: acceptor._stopped)

    acceptor = AcceptorThread(listener, accepted, wake, lambda: False)
    acceptor.start()
    clients()
    acceptor.resume()
    assert ending.wait(PATIENCE)
    acceptor.resume()
    listener.stop_accepting()
    acceptor.stop()  # never returns if the thread has ended without accepting once more
    assert not acceptor.accepting
    close_all([accepted for accepted, _ in accepted])


def test_an_acceptor_takes_one_and_stops(
    one: Acceptor, listener: WorkerListener, clients: Connect
) -> None:
    clients()
    one.acceptor.resume()
    one.wait_woken()
    until(lambda: not one.acceptor.accepting)
    clients()
    one.acceptor.resume()
    one.wait_woken()
    until(lambda: not one.acceptor.accepting)
    assert len(one.accepted) == 2
    assert all(which is listener for _, which in one.accepted)
    assert one.acceptor.problem is None


def test_an_acceptor_that_may_continue_takes_them_all(one: Acceptor, clients: Connect) -> None:
    one.may_continue = True
    one.acceptor.resume()
    for number in range(1, 11):
        clients()
        one.wait_woken()
        one.wait_accepted(number)
    assert one.acceptor.accepting


def test_resumed_several_times_it_takes_one(one: Acceptor, clients: Connect) -> None:
    for _ in range(5):
        one.acceptor.resume()
    clients()
    one.wait_woken()
    until(lambda: not one.acceptor.accepting)
    clients()  # nobody has resumed it since
    assert not one.woken.acquire(timeout=0.05)
    assert len(one.accepted) == 1


def test_stopped_it_has_ended_when_the_call_returns(
    one: Acceptor, listener: WorkerListener
) -> None:
    one.acceptor.resume()
    listener.stop_accepting()
    one.acceptor.stop()
    assert not one.acceptor.accepting
    one.acceptor.resume()
    assert not one.acceptor.accepting
    one.acceptor.stop()  # as often as one likes


def test_stopped_before_it_was_ever_resumed(one: Acceptor, clients: Connect) -> None:
    one.acceptor.stop()
    one.acceptor.resume()
    clients()
    assert not one.acceptor.accepting
    assert not one.accepted


def test_an_error_stops_it_and_is_reported(one: Acceptor, listener: WorkerListener) -> None:
    listener.sock.setblocking(False)
    one.acceptor.resume()
    one.wait_woken()
    until(lambda: not one.acceptor.accepting)
    assert isinstance(one.acceptor.problem, BlockingIOError)


def test_no_connection_is_lost_when_an_acceptor_is_stopped(
    listening: socket.socket, clients: Connect, handle: Handle
) -> None:
    """It is among the accepted, or another process finds it in the queue."""
    handle(lambda: None)
    for _ in range(100):
        with listening.dup() as ours:
            one = Acceptor(WorkerListener(ours))
            one.may_continue = True
            one.acceptor.resume()
            peers = {clients().getsockname() for _ in range(3)}
            one.acceptor.listener.stop_accepting()
            one.acceptor.stop()
            found = close_all([accepted for accepted, _ in one.accepted])
            while len(found) < len(peers):
                served, peer = listening.accept()
                served.close()
                found.add(peer)
            assert found == peers


# The loop.


class Quiet:
    """A service that keeps what arrives; `on_shutdown` runs in the middle of the order to stop."""

    def __init__(self) -> None:
        self.poller: ConnectionPoller[Any] = ConnectionPoller()
        self.accepted: list[AcceptedSocket] = []
        self.on_shutdown: Callable[[], None] = lambda: None
        self.left = 0

    def serve_accepted(
        self, accepted: AcceptedSocket, listener: WorkerListener, record: ThreadRecord
    ) -> None:
        self.accepted.append(accepted)

    def serve_received(
        self, message: HandoverMessage, fd: int, listener: WorkerListener, record: ThreadRecord
    ) -> None: ...

    def serve_ready(self, fd: int, events: int, record: ThreadRecord, now: float) -> float:
        return now

    def close_overdue(self, now: float, record: ThreadRecord) -> None: ...

    def hand_over(self, fd: int, slot: int | None = None) -> bool:
        return False

    def hand_over_all(self) -> bool:
        return False

    def begin_shutdown(self, seconds: float | None = None) -> None:
        self.on_shutdown()

    def shut_down_idle(self) -> None:
        self.left += 1

    def expire_requests(self, now: float) -> None: ...

    def flush(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


def make_loop(
    listeners: list[WorkerListener],
    channel: Channel,
    service: Quiet,
    handover: Handover,
    board: Scoreboard,
) -> WorkerLoop:
    """A loop of one thread; the test's process stands for the master's child."""
    for number, listener in enumerate(listeners):
        listener.number = number
        listener.fairness = AcceptFairness(listener.sock, board.accept_flags(0), handover, number)
    loop = WorkerLoop(
        *(service, listeners, channel, lambda paths, fds: None, handover, None),
        *(board.record(0, 0), Wakeup()),
        master=os.getppid(),
    )
    loop.create_threads()
    return loop


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

    def hear(self, wanted: object, *, wake: bool = True) -> None:
        """Waits for a report; signals the worker meanwhile, since it may miss a signal."""
        deadline = monotonic() + PATIENCE
        while wanted not in self.reports:
            assert monotonic() < deadline, self.reports
            if (report := self.channel.receive_report()) is not None:
                self.reports.append(report)
            elif wake and ReadyReport() in self.reports:
                self._over.wait(0.01)
                signal.pthread_kill(self.main, WAKE)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture
def run(listener: WorkerListener, handle: Handle) -> Iterator[Callable[..., Quiet]]:
    """Runs a loop in the main thread while `work` plays the master in another."""
    channels: list[Channel] = []

    def run(work: Callable[[Master], None], service: Quiet, *listeners: WorkerListener) -> Quiet:
        ours, theirs = Channel.pair()
        channels.extend((ours, theirs))
        # As in the master: whoever forks has the signal blocked or handled.
        signal.signal(WAKE, lambda *_: None)
        master = Master(ours, work)
        board = Scoreboard()
        handover = Handover(board, 0, 1)
        make_loop(list(listeners) or [listener], theirs, service, handover, board).run()
        master.join()
        return service

    yield run
    for channel in channels:
        channel.close()


Run = Callable[..., Quiet]


def test_retired_it_leaves_the_queue_alone(
    run: Run, listener: WorkerListener, listening: socket.socket, clients: Connect
) -> None:
    def work(master: Master) -> None:
        master.hear(ReadyReport(), wake=False)
        master.channel.send(RetireOrder())
        master.hear(LeavingReport())

    service = run(work, Quiet())
    assert service.left == 1
    assert not listener.open
    client = clients()
    served, peer = listening.accept()
    served.close()
    assert peer == client.getsockname()
    assert service.accepted == []


def test_stopped_it_drains_the_queue_to_its_end(
    run: Run, listener: WorkerListener, clients: Connect
) -> None:
    peers = {clients().getsockname() for _ in range(50)}

    def work(master: Master) -> None:
        master.hear(ReadyReport(), wake=False)
        listener.sock.setblocking(False)
        master.channel.send(StopOrder((0,)))
        master.hear(LeavingReport())

    service = run(work, Quiet())
    assert close_all(service.accepted) == peers


def test_with_several_listeners_each_is_drained(
    run: Run, clients: Connect, listener: WorkerListener
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as second, socket.socket() as other:
        other.connect(second.getsockname())
        peers = {clients().getsockname(), other.getsockname()}

        def work(master: Master) -> None:
            master.hear(ReadyReport(), wake=False)
            listener.sock.setblocking(False)
            second.setblocking(False)
            master.channel.send(StopOrder((0, 1)))
            master.hear(LeavingReport())

        service = run(work, Quiet(), listener, WorkerListener(second))
        assert close_all(service.accepted) == peers


def test_a_signal_in_the_middle_of_an_order_does_not_break_it_off(
    run: Run, listener: WorkerListener
) -> None:
    """The handler of the second comes in the middle of the first: nothing may climb out of it."""
    service = Quiet()

    def three_signals() -> None:
        for _ in range(3):
            signal.raise_signal(WAKE)

    service.on_shutdown = three_signals

    def work(master: Master) -> None:
        master.hear(ReadyReport(), wake=False)
        master.channel.send(RetireOrder())
        master.hear(LeavingReport())

    run(work, service)
    assert service.left == 1
    assert not listener.open


def test_the_end_of_the_master_retires_it(run: Run, listener: WorkerListener) -> None:
    def work(master: Master) -> None:
        master.hear(ReadyReport(), wake=False)
        master.channel.close()

        def stopped() -> bool:
            if listener.open:  # the kernel sends TERM for it, prctl(2)
                signal.pthread_kill(master.main, signal.SIGTERM)
            return not listener.open

        until(stopped)

    assert run(work, Quiet()).left == 1
    assert not listener.open


# The main thread at work, between two looks into its epoll.


@pytest.fixture
def at_work(listener: WorkerListener, handle: Handle) -> Iterator[tuple[WorkerLoop, Quiet]]:
    """A loop that knows a sibling, and does not run."""
    with loop_at_work(listener, handle, inboxes=2) as made:
        yield made


@contextmanager
def loop_at_work(
    listener: WorkerListener, handle: Handle, *, inboxes: int, single: bool = False
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
        handover.set_inboxes(1, (1,), [end.detach() for end in ends[:inboxes]], own=True)
    service = Quiet()
    loop = make_loop([listener], theirs, service, handover, board)
    loop._orders.install_handlers()
    loop._watcher.start()
    yield loop, service
    loop._watcher.stop()
    handover.after_fork_in_child()
    ours.close()
    theirs.close()


def test_at_work_it_accepts_itself_and_at_rest_an_acceptor_does(
    at_work: tuple[WorkerLoop, Quiet], clients: Connect
) -> None:
    loop, service = at_work
    (acceptor,) = loop.accepting.acceptors
    peers = {clients().getsockname() for _ in range(3)}
    loop.accepting.busy = True
    assert loop.accepting.provide()
    assert 0 < len(service.accepted) < 3, "those who are parked have their turn between"
    assert loop.accepting.provide()
    assert not acceptor.accepting
    assert close_all(service.accepted) == peers
    assert loop.accepting.provide(), "it had something to do just now"
    assert not loop.accepting.provide()
    assert acceptor.accepting
    acceptor.listener.stop_accepting()
    acceptor.stop()


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
    listener: WorkerListener,
    handle: Handle,
    clients: Connect,
    inboxes: int,
    single: bool,
    taken: int,
) -> None:
    with loop_at_work(listener, handle, inboxes=inboxes, single=single) as (loop, service):
        for _ in range(6):
            clients()
        loop.accepting.acceptors[0].stop()  # whatever it would take
        loop.accepting.busy, loop.accepting.last_found = True, 5
        assert loop.accepting.provide() is bool(taken)
        assert len(service.accepted) == taken
        close_all(service.accepted)


def test_beaten_to_a_connection_it_comes_back(
    at_work: tuple[WorkerLoop, Quiet], listener: WorkerListener
) -> None:
    loop, service = at_work

    class Wrong:
        def may_take(self) -> bool:
            return True

    listener.fairness = None
    loop.accepting._accept_at_once(listener, Wrong(), 2)  # type: ignore[arg-type]
    assert service.accepted == []
    assert not loop.accepting.busy
