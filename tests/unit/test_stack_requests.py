"""Stacks of a worker: asked for, and read once they are whole."""

import errno
import faulthandler
import fcntl
import os
from time import monotonic

import pytest

import prefork
from prefork import stack_dump
from prefork.master.processes import stack_requests as master
from prefork.worker.boot import stack_writer as worker
from prefork.worker.schedule.kernel_thread import KernelThread

OURS = os.path.dirname(prefork.__file__)
LIBRARY = os.path.dirname(os.__file__)


def test_the_main_thread_comes_first_and_what_says_nothing_is_left_out() -> None:
    text = (
        "Current thread 0x00006e (most recent call first):\n"
        f'  File "{OURS}/worker/boot/stack_writer.py", line 4 in _write_on_request\n'
        f'  File "{LIBRARY}/threading.py", line 5 in run\n'
        "\n"
        "Thread 0x00007f (most recent call first):\n"
        f'  File "{LIBRARY}/threading.py", line 5 in run\n'
        "\n"
        "Thread 0x00008a (most recent call first):\n"
        f'  File "{OURS}/channel.py", line 2 in order\n'
        f'  File "{OURS}/worker/schedule/master_orders.py", line 4 in _on_wake\n'
        '  File "/srv/shop.py", line 3 in app\n'
        f'  File "{OURS}/worker/schedule/worker_loop.py", line 9 in run\n'
        f'  File "{OURS}/worker/boot/process.py", line 123 in run_worker\n'
        f'  File "{OURS}/master/main_loop.py", line 77 in run\n'
        '  File "<frozen runpy>", line 88 in <module>\n'
    )
    assert stack_dump.is_whole(text)
    assert stack_dump.shown(text) == (
        "Thread 0x00008a (most recent call first):\n"
        '  File "/srv/shop.py", line 3 in app\n'
        "\n"
        "Thread 0x00007f (most recent call first):\n"
        f'  File "{LIBRARY}/threading.py", line 5 in run'
    )


def test_of_an_idle_worker_the_main_thread_is_shown() -> None:
    text = (
        "Thread 0x00007f (most recent call first):\n"
        f'  File "{LIBRARY}/threading.py", line 5 in wait\n'
        f'  File "{OURS}/worker/schedule/watcher.py", line 5 in _run\n'
        f'  File "{LIBRARY}/threading.py", line 5 in _bootstrap\n'
        "\n"
        "Thread 0x00008a (most recent call first):\n"
        f'  File "{OURS}/worker/schedule/worker_loop.py", line 9 in run\n'
        f'  File "{OURS}/worker/boot/process.py", line 123 in run_worker\n'
        '  File "<frozen runpy>", line 88 in <module>\n'
    )
    assert stack_dump.shown(text) == (
        "Thread 0x00008a (most recent call first):\n"
        f'  File "{OURS}/worker/schedule/worker_loop.py", line 9 in run'
    )


def test_a_thread_of_ours_that_calls_the_application_is_shown() -> None:
    text = (
        "Thread 0x00007f (most recent call first):\n"
        f'  File "{LIBRARY}/socket.py", line 5 in recv\n'
        '  File "/srv/shop.py", line 3 in app\n'
        f'  File "{OURS}/apps/static.py", line 3 in mounts\n'
        '  File "/srv/middleware.py", line 3 in app\n'
        f'  File "{OURS}/worker/schedule/threads.py", line 5 in _run\n'
        f'  File "{LIBRARY}/threading.py", line 5 in run\n'
        f'  File "{LIBRARY}/threading.py", line 5 in _bootstrap\n'
        "\n"
        "Thread 0x00008a (most recent call first):\n"
        f'  File "{OURS}/worker/schedule/worker_loop.py", line 9 in run\n'
        f'  File "{OURS}/worker/boot/process.py", line 123 in run_worker\n'
        '  File "<frozen runpy>", line 88 in <module>\n'
    )
    assert stack_dump.shown(text).partition("\n\n")[2] == (
        "Thread 0x00007f (most recent call first):\n"
        f'  File "{LIBRARY}/socket.py", line 5 in recv\n'
        '  File "/srv/shop.py", line 3 in app\n'
        f'  File "{OURS}/apps/static.py", line 3 in mounts\n'
        '  File "/srv/middleware.py", line 3 in app'
    )


def test_a_server_that_was_started_by_python_m_is_no_exception() -> None:
    assert stack_dump.is_whole('  File "<frozen runpy>", line 198 in _run_module_as_main\n')


@pytest.mark.parametrize("text", ["", "Thread 0x0 (most", '  File "x", line 1 in app\n'])
def test_what_has_not_come_whole_is_waited_for(text: str) -> None:
    assert not stack_dump.is_whole(text)


def test_one_that_is_too_deep_ends_in_dots() -> None:
    assert stack_dump.is_whole('  File "x", line 1 in deeper\n  ...\n')


def _none_left(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize("name", ["memfd_create", "dup", "pipe2"])
def test_where_there_is_no_room_nothing_is_left_open(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, name, _none_left)
        assert stack_dump.MasterStacks.create() is None
    assert before.issuperset(os.listdir("/proc/self/fd"))  # the collector may have closed others


def _no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_the_signal_still_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = stack_dump.MasterStacks.create()
    assert pair is not None
    masters, workers = pair
    with monkeypatch.context() as patched:
        patched.setattr(KernelThread, "start", _no_thread)
        worker.register_stack_signal(workers)
        worker.start_stack_thread(workers, lambda: None)
    try:
        os.kill(os.getpid(), stack_dump.SIGNAL)
        assert "test_without_a_thread" in masters.read()
    finally:
        faulthandler.unregister(stack_dump.SIGNAL)
        masters.close()
        workers.close()


def _invalid(*_: object) -> bytes:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_nothing_that_the_worker_does_to_its_ends_blocks_the_master_or_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = stack_dump.MasterStacks.create()
    assert pair is not None
    masters, workers = pair
    # Neither the flags of its own end nor a pipe that it never empties.
    os.set_blocking(workers.request, True)
    for _ in range(70_000):
        masters.ask()
    fcntl.fcntl(workers.memfd, fcntl.F_SETFL, os.O_NONBLOCK)
    os.ftruncate(workers.memfd, 1 << 40)
    assert len(masters.read()) <= 1 << 16
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", _invalid)  # O_DIRECT, on kernels that allow it there
        assert masters.read() == ""
    masters.ask()
    assert masters.read() == ""
    os.close(workers.request)
    with pytest.raises(BrokenPipeError):
        masters.ask()
    table, told = master.StackRequests(), list[str]()
    subject = Subject()
    subject.stacks = masters
    table.request(subject, told.append)
    assert (told, table.due) == ([""], None)
    os.close(workers.memfd)
    masters.close()


class Subject:
    """This process, in the place of a worker."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        pair = stack_dump.MasterStacks.create()
        assert pair is not None
        self.stacks: stack_dump.MasterStacks | None = pair[0]
        self.ends = pair[1]


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was sent."""
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append(number))
    return signals


def test_they_are_asked_for_once_and_given_to_all(signals: list[int]) -> None:
    subject, table, told = Subject(), master.StackRequests(), list[str]()
    table.request(subject, told.append)
    table.request(subject, told.append)
    assert len(os.read(subject.ends.request, 10)) == 1
    os.write(subject.ends.memfd, b'Thread 1:\n  File "x", line 1 in <module>\n')
    while not told:
        table.run(monotonic())
    assert told == ['Thread 1:\n  File "x", line 1 in <module>'] * 2
    assert (table.due, signals) == (None, [])


def test_one_that_does_not_answer_is_sent_a_signal_once(signals: list[int]) -> None:
    subject, table, told = Subject(), master.StackRequests(), list[str]()
    table.request(subject, told.append)
    while not told:
        table.run(monotonic())
    assert (told, signals) == ([""], [stack_dump.SIGNAL])


def test_what_a_dead_one_has_written_is_all(signals: list[int]) -> None:
    subject, table, told = Subject(), master.StackRequests(), list[str]()
    table.request(subject, told.append)
    os.write(subject.ends.memfd, b"Thread 1:\n")
    table.worker_gone(subject)
    table.worker_gone(subject)
    assert (told, signals) == (["Thread 1:"], [])


def test_one_that_offers_none_is_not_asked(signals: list[int]) -> None:
    subject, table, told = Subject(), master.StackRequests(), list[str]()
    subject.stacks = None
    table.request(subject, told.append)
    assert (told, signals) == ([""], [])
