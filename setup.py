"""Builds the compiled wheel, if PREFORK_COMPILE=1; all else is in pyproject.toml.

    PREFORK_COMPILE=1 python -m build --wheel       # or: make wheel-compiled

The modules below are compiled by mypyc, from the source as it is but for one thing: a Struct of
msgspec becomes a class that mypyc knows.  In pure Python a Struct is made faster, in compiled code
such a class is.  Without the variable, and in an editable installation, nothing is compiled.
"""

import ast
import contextlib
import os
import re
import shutil
import sys
import sysconfig
from importlib.util import source_hash
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

MODULES = (
    "apps/asgi_response.py",
    "apps/asgi_response_state.py",
    "apps/asgi_websocket_state.py",
    "apps/wsgi.py",
    "http/asgi_scope.py",
    "http/composed_head.py",
    "http/field_lines.py",
    "http/head_reader.py",
    "http/head_rules.py",
    "http/limits.py",
    "http/proxied_reader.py",
    "http/reader.py",
    "http/request.py",
    "http/response_head.py",
    "http/response_sink.py",
    "http/whole_heads.py",
    "scoreboard/call_records.py",
    "scoreboard/slot_layout.py",
    "scoreboard/slot_writer.py",
    "websocket/frame_reader.py",
    "websocket/frame_writer.py",
    "websocket/message_deflate.py",
    "websocket/websocket_session.py",
    "worker/protocol/asgi_connection.py",
    "worker/protocol/connection_state.py",
    "worker/protocol/http_connection.py",
    "worker/protocol/state_change.py",
    "worker/schedule/accept_strategy.py",
    "worker/schedule/async_worker_loop.py",
    "worker/schedule/deadline_wheel.py",
    "worker/schedule/pending_work.py",
    "worker/schedule/poller.py",
    "worker/schedule/turn_size.py",
    "worker/schedule/worker_loop.py",
    "worker/service/admission.py",
    "worker/service/application_caller.py",
    "worker/service/asgi_call.py",
    "worker/service/asgi_caller.py",
    "worker/service/asgi_service.py",
    "worker/service/asgi_websocket.py",
    "worker/service/eager_task.py",
    "worker/service/http_service.py",
    "worker/service/listener_profile.py",
    "worker/service/refusals.py",
    "worker/service/websocket_sender.py",
    "worker/service/wsgi_caller.py",
    "worker/transport/accepted_socket.py",
    "worker/transport/client_limits.py",
    "worker/transport/response_writer.py",
)
"""The way of a request, and of a message of a WebSocket.

What blocks is called by `accept`, `epoll_wait` and `fairness`, and signal handlers are in
`master_orders`: those stay interpreted, since compiled code does not look for signals before it
blocks.  So do modules with coroutines: `send` and `receive` are those of Python."""

RECORD = "compiled.record"
"""See prefork/compiled.py."""


def with_native_classes(source: str) -> str:
    """Each Struct as a plain class with `__init__`; every line stays where it is."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        bases = getattr(node, "bases", ())
        if not any(isinstance(base, ast.Name) and base.id == "Struct" for base in bases):
            continue
        assert isinstance(node, ast.ClassDef)
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        arguments = ", ".join(lines[each.lineno - 1].strip() for each in fields)
        names = [each.target.id for each in fields if isinstance(each.target, ast.Name)]
        assert len(names) == len(fields)
        assert all(each.lineno == each.end_lineno for each in fields), node.name
        for each in fields:
            lines[each.lineno - 1] = "    pass"
        body = "; ".join(f"self.{name} = {name}" for name in names)
        lines[fields[0].lineno - 1] = f"    def __init__(self, {arguments}) -> None: {body}"
        head = node.lineno - 1
        lines[head] = re.sub(r"\(Struct\b.*\):", ":", lines[head])
    return "\n".join(lines)


NATIVE = Path("build/native")
"""The sources that are compiled, and the record of what they were made of."""


def extensions() -> "list[Extension]":
    """The extension modules."""
    from mypyc.build import mypycify

    place, record = NATIVE, ""
    # Of an earlier build: setuptools would install modules that are no more.
    for stale in (place, *Path("build").glob("lib*")):
        shutil.rmtree(stale, ignore_errors=True)
    shutil.copytree("prefork", place / "prefork", ignore=shutil.ignore_patterns("__pycache__"))
    for name in MODULES:
        copy = place / "prefork" / name
        source = copy.read_bytes()
        record += f"{name} {source_hash(source).hex()}\n"
        copy.write_text(with_native_classes(source.decode()), encoding="utf-8")
    (place / RECORD).write_text(record)
    (place / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = silent\nignore_missing_imports = True\n"
    )
    given = ["--config-file=mypy.ini", *(f"prefork/{name}" for name in MODULES)]
    target = str(Path("build").absolute())
    # From there: tracebacks have the paths that are given, and those can be found on sys.path.
    with contextlib.chdir(place):
        return list(mypycify(given, opt_level="2", debug_level="0", target_dir=target))


class BuildWithRecord(build_py):
    """Puts the record beside the sources."""

    def run(self) -> None:
        super().run()
        shutil.copy(NATIVE / RECORD, Path(self.build_lib, "prefork"))


def main() -> None:
    if os.environ.get("PREFORK_COMPILE") != "1" or {"editable_wheel", "develop"} & {*sys.argv}:
        setup()
    elif sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SystemExit("PREFORK_COMPILE=1: free-threaded CPython has no compiled build: unset it")
    elif "bdist_wheel" in sys.argv:
        setup(ext_modules=extensions(), cmdclass={"build_py": BuildWithRecord})
    else:  # what is asked first: what the build needs
        setup(setup_requires=["mypy[mypyc]>=1.11"])


if __name__ == "__main__":
    main()
