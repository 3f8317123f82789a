"""Stacks of a worker: asked for by a signal, and read once they are whole."""

import os

import pytest

import prefork
from prefork import stacks
from prefork.channel import Channel, Failed, Ready
from prefork.channel import Stacks as StacksAt
from prefork.master import stacks as master

OURS = os.path.dirname(prefork.__file__)


def test_the_main_thread_comes_first_and_what_is_above_the_worker_is_left_out() -> None:
    text = (
        "Thread 0x00007f (most recent call first):\n"
        '  File "/usr/lib/python3/threading.py", line 5 in run\n'
        "\n"
        "Current thread 0x00008a (most recent call first):\n"
        '  File "/srv/shop.py", line 3 in app\n'
        f'  File "{OURS}/worker/loop.py", line 9 in run\n'
        f'  File "{OURS}/worker/process.py", line 123 in live\n'
        f'  File "{OURS}/master/loop.py", line 77 in run\n'
        '  File "<frozen runpy>", line 88 in <module>\n'
    )
    assert stacks.is_whole(text)
    assert stacks.shown(text) == (
        "Current thread 0x00008a (most recent call first):\n"
        '  File "/srv/shop.py", line 3 in app\n'
        f'  File "{OURS}/worker/loop.py", line 9 in run\n'
        "\n"
        "Thread 0x00007f (most recent call first):\n"
        '  File "/usr/lib/python3/threading.py", line 5 in run'
    )


def test_a_server_that_was_started_by_python_m_is_no_exception() -> None:
    assert stacks.is_whole('  File "<frozen runpy>", line 198 in _run_module_as_main\n')


@pytest.mark.parametrize("text", ["", "Thread 0x0 (most", '  File "x", line 1 in app\n'])
def test_what_has_not_come_whole_is_waited_for(text: str) -> None:
    assert not stacks.is_whole(text)


def test_one_that_is_too_deep_ends_in_dots() -> None:
    assert stacks.is_whole('  File "x", line 1 in deeper\n  ...\n')


def test_the_descriptor_comes_with_the_message_and_others_are_closed() -> None:
    ours, theirs = Channel.pair()
    fds = [os.memfd_create("a"), os.memfd_create("b")]
    os.write(fds[0], b"hello")
    theirs.send(StacksAt(), (fds[0],))
    theirs.send(Ready(), (fds[1],))
    theirs.send(StacksAt())
    before = len(os.listdir("/proc/self/fd"))
    told = ours.report()
    assert isinstance(told, StacksAt)
    assert os.pread(told.fd, 10, 0) == b"hello"
    assert ours.report() == Ready()
    assert ours.report() == StacksAt(-1)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    for fd in (*fds, told.fd):
        os.close(fd)
    assert ours.report() is None
    theirs.send(Failed("why"))
    assert ours.report() == Failed("why")


class Subject:
    """This process, in the place of a worker, with a handler in the place of faulthandler."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.stacks: int | None = os.memfd_create("stacks")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append(number))
    return signals


def test_they_are_asked_for_once_and_told_to_all(asked: list[int]) -> None:
    subject, table, told = Subject(), master.Stacks(), list[str]()
    assert subject.stacks is not None
    table.take(subject, told.append)
    table.take(subject, told.append)
    assert asked == [stacks.SIGNAL]
    os.write(subject.stacks, b'Thread 1:\n  File "x", line 1 in <module>\n')
    while not told:
        table.look()
    assert told == ['Thread 1:\n  File "x", line 1 in <module>'] * 2
    assert table.look_at is None


def test_what_a_dead_one_has_written_is_all(asked: list[int]) -> None:
    subject, table, told = Subject(), master.Stacks(), list[str]()
    assert subject.stacks is not None
    table.take(subject, told.append)
    os.write(subject.stacks, b"Thread 1:\n")
    table.gone(subject)
    table.gone(subject)
    assert told == ["Thread 1:"]


def test_one_that_offers_none_is_sent_no_signal(asked: list[int]) -> None:
    subject, table, told = Subject(), master.Stacks(), list[str]()
    subject.stacks = None
    table.take(subject, told.append)
    assert (told, asked) == ([""], [])
