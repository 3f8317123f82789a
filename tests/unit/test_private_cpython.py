"""What prefork takes from CPython that its documentation does not promise: each by its name.

One of these tests fails if a version of CPython renames or changes it.
"""

import _collections_abc
import ast
import atexit
import collections.abc
import contextlib
import inspect
import multiprocessing
import multiprocessing.util
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import deque
from itertools import islice

import pytest

from prefork import stack_dump
from prefork.config import interpreter
from prefork.worker.boot import stack_writer
from tests.support.imported_names import imported_names
from tests.unit.test_rooms import trees

KNOWN = {
    "os._exit",  # documented, as the next
    "sys._current_frames",
    "sys._getframe",
    "atexit._clear",
    "atexit._run_exitfuncs",
    "threading._shutdown",
    "sock._accept",
    "zlib._Compress",  # types, in annotations only
    "zlib._Decompress",
}


def _private(tree: ast.AST) -> set[str]:
    """Private attributes of what a file imports from the standard library, and of sockets."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.partition(".")[0] in sys.stdlib_module_names
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr[0] == "_" and node.attr[:2] != "__":
            owner = getattr(node.value, "id", getattr(node.value, "attr", ""))
            if owner in imported | {"sock"}:
                found.add(f"{owner}.{node.attr}")
    return found


def test_each_private_thing_is_named_here() -> None:
    assert set().union(*map(_private, trees().values())) == KNOWN


def test_no_private_module_is_imported() -> None:
    names = set().union(*(imported_names(ast.walk(tree)) for tree in trees().values()))
    documented = {"__future__", "_thread"}
    documented.add("_collections_abc")  # of collections.abc, and frozen: see prefork/__init__.py
    private = {name for name in names if name.startswith("_")} - documented
    assert not private


def test_the_frozen_module_has_the_classes_of_collections_abc() -> None:
    for name in ("Callable", "Mapping", "Sequence"):
        assert getattr(_collections_abc, name) is getattr(collections.abc, name)


def test_socket_accept_gives_a_descriptor_and_an_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            fd, address = listener._accept()  # type: ignore[attr-defined]
            with socket.socket(fileno=fd) as accepted:
                assert address == client.getsockname() == accepted.getpeername()
            assert isinstance(fd, int)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener._accept()  # type: ignore[attr-defined]


def test_a_list_is_extended_by_accept_in_one_call() -> None:
    """So no handler of a signal comes between accept4() and the place of its result."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[tuple[int, tuple[str, int]]] = []
        with socket.create_connection(listener.getsockname()) as client:
            accepted.extend(islice(iter(listener._accept, None), 1))  # type: ignore[attr-defined]
            ((fd, address),) = accepted
            socket.socket(fileno=fd).close()
            assert address == client.getsockname()


def test_an_object_of_ssl_reads_and_writes_by_one_of_c() -> None:
    """Without it, TLS works as well, and a request takes two functions of Python more."""
    tls = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a"
    )
    inner = tls._sslobj  # type: ignore[attr-defined]
    assert inspect.isbuiltin(inner.read)
    assert inspect.isbuiltin(inner.write)


def test_socket_type_is_the_plain_class() -> None:
    """It is made without enums, which take most of the time of socket.socket()."""
    assert socket.SocketType is not socket.socket
    assert issubclass(socket.socket, socket.SocketType)
    ours, theirs = socket.socketpair()
    with theirs:
        plain = socket.SocketType(fileno=ours.detach())
        assert type(plain) is socket.SocketType
        plain.close()


def test_threading_shutdown_waits_for_threads_that_are_no_daemons() -> None:
    program = (
        "import threading, os, time\n"
        "gate = threading.Event()\n"
        "thread = threading.Thread(target=lambda: (gate.wait(), print('ended', flush=True)))\n"
        "thread.start(); gate.set(); threading._shutdown(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_atexit_runs_and_clears_its_callbacks() -> None:
    program = (
        "import atexit, os\n"
        "atexit.register(print, 'dropped'); atexit._clear()\n"
        "atexit.register(print, 'called', flush=True); atexit._run_exitfuncs(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "called\n", "")
    assert callable(atexit._clear)


def test_atexit_reports_a_callback_that_raises_in_these_words() -> None:
    """exit_callbacks finds by them what to log."""
    program = (
        "import atexit, os, sys\n"
        "def fails(): raise LookupError\n"
        "def report(raised):\n"
        "    print(raised.err_msg, raised.object or '')\n"
        "sys.unraisablehook = report\n"
        "atexit.register(fails); atexit._run_exitfuncs()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"Exception ignored in atexit callback:? <function fails at ", done.stdout)


def test_threads_append_to_a_list_without_a_lock() -> None:
    appended: list[int] = []

    def append() -> None:
        for number in range(20_000):
            appended.append(number)

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(appended) == 4 * 20_000


@pytest.mark.parametrize(
    ("version", "warned"),
    [
        ((3, 11, 0), False),
        ((3, 13, 9), False),
        ((3, 14, 0), True),
        ((3, 14, 4), True),
        ((3, 14, 5), False),
        ((3, 15, 0), False),
    ],
)
def test_check_warns_of_the_collector_that_was_taken_back(
    version: tuple[int, int, int], warned: bool
) -> None:
    found = interpreter.warnings(version)
    assert bool(found) == warned
    assert all("use 3.14.5 or later" in line for line in found)


def test_a_module_in_c_has_getsignal_without_an_enum() -> None:
    """worker_loop: signal.getsignal makes an enum of its answer, at each wait."""
    plain = sys.modules["_signal"].getsignal

    def handler(*_: object) -> None: ...

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        assert plain(int(signal.SIGUSR2)) is handler
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
        assert plain(signal.SIGUSR2) == 0
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_multiprocessing_has_a_callback_at_exit_and_a_set_of_children() -> None:
    """fork_protection registers the one anew; leftovers names the others in the log."""
    assert callable(multiprocessing.util._exit_function)  # type: ignore[attr-defined]
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    try:
        assert child in multiprocessing.process._children  # type: ignore[attr-defined]
    finally:
        child.join()
    assert multiprocessing.process.active_children() == []


def test_faulthandler_writes_what_stack_dump_reads() -> None:
    """The main thread comes last and its stack ends where the program began, or after 100 calls."""
    program = (
        "import faulthandler, sys, threading\n"
        "def deep(n):\n"
        "    deep(n - 1) if n else faulthandler.dump_traceback(1, all_threads=True)\n"
        "gate = threading.Event()\n"
        "threading.Thread(target=gate.wait, daemon=True).start()\n"
        "deep(int(sys.argv[1]))\n"
    )
    for calls, ends in ((0, (" in <module>\n",)), (150, ("  ...\n", " in deep\n"))):
        command = [sys.executable, "-c", program, str(calls)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert stack_dump.is_whole(done.stdout)
        assert done.stdout.endswith(ends)
        threads = done.stdout.rstrip("\n").split("\n\n")
        assert len(threads) == 2
        assert re.match(
            r"(Thread|Current thread) 0x[0-9a-f]+ .*\(most recent call first\):", threads[1]
        )
        assert re.search(r'^  File ".*", line \d+ in deep$', threads[1], re.MULTILINE)


def test_a_signal_handler_that_raises_ends_a_system_call_in_c() -> None:
    """PEP 475: one that returns does not. MainAcceptor rests on it."""

    class Interrupted(BaseException): ...

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            accepted: list[object] = []
            with pytest.raises(Interrupted):
                accepted.extend(islice(iter(listener._accept, None), 1))  # type: ignore[attr-defined]
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert accepted == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_of_several_threads_one_gets_what_is_popped() -> None:
    """ConnectionPoller.claim, and the deques of PendingWork: docs/free-threading.md."""
    parked = {number: number for number in range(20_000)}
    waiting = deque(range(20_000))
    taken: list[int] = []
    popped: list[int] = []

    def take() -> None:
        for number in range(20_000):
            if parked.pop(number, None) is not None:
                taken.append(number)
            with contextlib.suppress(IndexError):
                popped.append(waiting.popleft())

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(popped) == list(range(20_000))


def test_the_front_of_a_list_is_removed_while_others_append() -> None:
    """AccessLog: what is removed was copied before, and appending does not move it."""
    lines: list[int] = []
    written: list[int] = []
    done = threading.Event()

    def append(first: int) -> None:
        for number in range(first, 40_000, 2):
            lines.append(number)

    def flush() -> None:
        while not done.is_set() or lines:
            batch = lines[:]
            written.extend(batch)
            del lines[: len(batch)]

    writers = [threading.Thread(target=append, args=(first,)) for first in range(2)]
    flusher = threading.Thread(target=flush)
    for thread in (flusher, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    flusher.join()
    assert sorted(written) == list(range(40_000))


def test_the_stacks_without_the_interpreter_lock_look_the_same() -> None:
    """stack_writer: a free-threaded build's faulthandler shows the calling thread only."""
    stacks = stack_writer._stacks(threading.main_thread().ident or 0)
    assert stack_dump.is_whole(stacks)
    assert re.search(r'^  File ".*", line \d+ in test_the_stacks_without', stacks, re.MULTILINE)
    main = stacks.rstrip("\n").split("\n\n")[-1]
    assert main.startswith(f"Thread 0x{threading.main_thread().ident:016x} ")
    assert "test_the_stacks_without" in stack_dump.shown(stacks)
