"""What prefork takes from CPython that its documentation does not promise: each by its name.

One of these tests fails if a version of CPython renames or changes it.
"""

import ast
import atexit
import socket
import subprocess
import sys
import threading
from itertools import islice

import pytest

from prefork.config import interpreter
from tests.unit.test_rooms import TREES

KNOWN = {
    "os._exit",  # documented, as the next
    "sys._current_frames",
    "sys._getframe",
    "atexit._clear",
    "atexit._run_exitfuncs",
    "threading._shutdown",
    "sock._accept",
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
    assert set().union(*map(_private, TREES.values())) == KNOWN


def test_no_private_module_is_imported() -> None:
    names = {
        name
        for tree in TREES.values()
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    documented = {"__future__", "_thread"}
    private = {name for name in names if name.startswith("_")} - documented
    assert not private


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
