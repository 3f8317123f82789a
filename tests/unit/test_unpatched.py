"""Modules that run in a worker use no part of the standard library that gevent or eventlet replace.

They take it from `prefork.unpatched`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "prefork"

REPLACED = {
    "_thread": None,
    "os": {"read", "write", "open", "fdopen", "fork", "forkpty", "wait", "waitpid"},
    "queue": None,
    "select": {"epoll", "poll", "select"},
    "socket": {"SocketType", "create_connection", "create_server", "socket", "socketpair"},
    "subprocess": None,
    "threading": {
        *("Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"),
        *("Thread", "Timer", "get_ident", "local"),
    },
    "time": {"sleep"},
}
"""By module: the names that are replaced; None: all."""

PLACES = ("worker", "apps", "http", "logs", "scoreboard")
ALONE = ("channel.py", "linux.py", "stop_notice.py", "temporary_file.py", "stack_dump.py")

ALLOWED = {
    # The application gets a socket of its own kind.
    ("worker/service/tcp_service.py", "socket.socket"),
    # A thread that calls the application is one of `threading`, unless that is replaced.
    ("worker/schedule/threads.py", "threading.Thread"),
    # A type.
    ("worker/service/listener_profile.py", "socket.SocketType"),
    # A class that is made before the application is imported.
    ("worker/transport/upgraded_socket.py", "socket.socket"),
    # Taken when the package is imported, which is before all else.
    ("stop_notice.py", "_thread.allocate_lock"),
    # Only of the master.
    ("stack_dump.py", "os.write"),
    ("scoreboard/board.py", "os.open"),
    # Before the application is imported.
    ("worker/boot/application_setup.py", "os.open"),
}


def files() -> Iterator[Path]:
    for place in PLACES:
        yield from sorted((ROOT / place).rglob("*.py"))
    yield from (ROOT / name for name in ALONE)


def uses(tree: ast.Module) -> Iterator[str]:
    """The names of the standard library's modules that the code of a module uses."""
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        match node:
            case ast.Attribute(ast.Name(module), attribute) if module in modules:
                yield f"{module}.{attribute}"


@pytest.mark.parametrize("path", [*files()], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_worker_uses_nothing_that_is_replaced(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for used in uses(ast.parse(path.read_text(encoding="utf-8"))):
        module, _, attribute = used.partition(".")
        replaced = REPLACED.get(module, set())
        wrong = replaced is None or attribute in replaced
        assert not wrong or (name, used) in ALLOWED, (
            f"{name}: gevent and eventlet replace {used}; import it from prefork.unpatched"
        )
