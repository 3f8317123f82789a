"""Runs a Python configuration file in a process of its own, and reports what it did.

`prefork.migrate.python_file` starts this process and reads its report. A file may print, end the
process or change directories: that must not affect `prefork migrate`. Reads of the environment and
of the number of CPUs are recorded while the file runs. Modules that only hooks need are replaced by
stand-ins if they are not installed.
"""

import json
import os
import sys
from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from math import isfinite
from types import FrameType, ModuleType
from typing import Any

from prefork.migrate.stand_ins import Anything, Finder

_MUTATIONS = {
    "os.mkdir": "made the directory {0}",
    "os.remove": "removed {0}",
    "os.rmdir": "removed the directory {0}",
    "os.rename": "renamed {0}",
    "os.chmod": "changed the mode of {0}",
    "os.chown": "changed the owner of {0}",
    "os.link": "made the link {1}",
    "os.symlink": "made the link {1}",
    "os.truncate": "truncated {0}",
    "os.system": "ran the command {0}",
    "os.exec": "replaced the process by {0}",
    "os.posix_spawn": "started {0}",
    "os.fork": "forked",
    "os.kill": "sent a signal to the process {0}",
    "subprocess.Popen": "started {0}",
    "socket.connect": "opened a connection to {1}",
    "socket.bind": "bound a socket to {1}",
    "shutil.rmtree": "removed the directory {0}",
}
"""Audit events (PEP 578) that are reported; {0} and {1} are their arguments."""


class Ended(BaseException):
    """The file called os._exit()."""


class Watch:
    """Records what a file reads and changes while it runs."""

    def __init__(self, file: str, directory: str) -> None:
        self.file = file
        self._roots = (directory + os.sep, os.path.dirname(file) + os.sep)
        self.reads: list[tuple[str, int, str, bool]] = []
        """(file, line of its top level, source, whether it was unset)."""
        self.written: dict[str, str] = {}
        """Variables that the file has set."""
        self.effects: list[tuple[int, str]] = []
        self.active = False

    def is_own(self, path: str) -> bool:
        """Whether a source file belongs to the site: it is no library's."""
        return path == self.file or (
            path.startswith(self._roots) and f"{os.sep}site-packages{os.sep}" not in path
        )

    def place(self) -> tuple[str, int] | None:
        """The file of the site, and the line of its top level, that runs now.

        None inside the import of a library and outside of files of the site.
        """
        frame: FrameType | None = sys._getframe(1)
        own = False
        while frame is not None:
            path = frame.f_code.co_filename
            if self.is_own(path):
                own = True
                if frame.f_code.co_name == "<module>":
                    return path, frame.f_lineno
            elif not own and path.startswith("<frozen importlib"):
                return None
            frame = frame.f_back
        return None

    def read(self, source: str, *, unset: bool = False) -> None:
        if self.active and (place := self.place()):
            self.reads.append((*place, source, unset))

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active or (event not in _MUTATIONS and event != "open"):
            return
        if event == "open":
            path, _, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not writes or not isinstance(path, str) or "__pycache__" in path:
                return
            what = f"opened {path} for writing"
        else:
            what = _MUTATIONS[event].format(*map(_shown, args), "", "")
        place = self.place()
        if place is not None and (place[1], what) not in self.effects:
            self.effects.append((place[1], what))


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


class WatchedEnviron(MutableMapping[str, str]):
    """os.environ, watched."""

    def __init__(self, real: MutableMapping[str, str], watch: Watch) -> None:
        self._real = real
        self._watch = watch

    def __getitem__(self, name: str) -> str:
        # A variable that the file itself has set does not come from the environment.
        if isinstance(name, str) and name not in self._watch.written:
            self._watch.read(name, unset=name not in self._real)
        return self._real[name]

    def __setitem__(self, name: str, value: str) -> None:
        self._real[name] = value
        if self._watch.active and self._watch.place():
            self._watch.written[name] = value

    def __delitem__(self, name: str) -> None:
        del self._real[name]
        self._watch.written.pop(name, None)

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str) and name not in self._watch.written:
            self._watch.read(name, unset=name not in self._real)
        return name in self._real

    def __iter__(self) -> Iterator[str]:
        self._watch.read("*")
        return iter(dict(self._real))

    def __len__(self) -> int:
        return len(self._real)

    # As a whole, and not variable by variable.

    def items(self) -> ItemsView[str, str]:
        return self.copy().items()

    def values(self) -> ValuesView[str]:
        return self.copy().values()

    def copy(self) -> dict[str, str]:
        self._watch.read("*")
        return dict(self._real)


def install(watch: Watch) -> Finder:
    """Replaces os.environ and the functions that count CPUs by recording ones."""
    finder = Finder(os.environ)
    # os.getenv() uses this, too.
    vars(os)["environ"] = WatchedEnviron(os.environ, watch)
    for holder, name in ((os, "cpu_count"), (os, "sched_getaffinity"), (os, "process_cpu_count")):
        if hasattr(holder, name):
            setattr(holder, name, _counting(getattr(holder, name), watch))
    sysconf = os.sysconf

    def counting_sysconf(name: str | int) -> int:
        if name in ("SC_NPROCESSORS_ONLN", "SC_NPROCESSORS_CONF"):
            watch.read("the number of CPUs")
        return sysconf(name)

    getcwd = os.getcwd

    def noting_getcwd() -> str:
        watch.read("__file__")  # a path of this machine, too
        return getcwd()

    vars(os).update(sysconf=counting_sysconf, getcwd=noting_getcwd)
    try:
        import psutil
    except ImportError:
        pass
    else:
        vars(psutil)["cpu_count"] = _counting(psutil.cpu_count, watch)

    def leave(status: int) -> None:
        raise Ended(status)

    vars(os)["_exit"] = leave
    sys.meta_path.append(finder)
    sys.addaudithook(watch.audit)
    return finder


def _counting(function: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    def count(*args: object, **options: object) -> Any:
        watch.read("the number of CPUs")
        return function(*args, **options)

    return count


_DEEPEST = 20
"""Levels of lists and tables in a setting; a list may hold itself."""

_LARGEST = 1000
"""Bits of a number; str() refuses thousands of digits."""


def encoded(value: Any, depth: int = 0) -> Any:
    """A value as JSON. A value that JSON cannot hold becomes a table with its kind as "!"."""
    try:
        return _encoded(value, depth)
    except Exception:  # an object may run any code here
        return _other(value)


def _other(value: object) -> Any:
    return {"!": "other", "text": f"a value of the type {type(value).__name__}"}


def _encoded(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return _other(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() <= _LARGEST:
        return int(value)
    if isinstance(value, float) and isfinite(value):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Anything):
        return {"!": "stand-in", "text": value.path}
    if isinstance(value, list | tuple | set | frozenset):
        return [encoded(item, depth + 1) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: encoded(item, depth + 1) for key, item in value.items() if key != "!"}
    if isinstance(value, type):
        return {"!": "class", "text": f"{value.__module__}.{value.__qualname__}"}
    if callable(value):
        code = getattr(value, "__code__", None)
        line = getattr(code, "co_firstlineno", 0)
        return {"!": "function", "text": str(getattr(value, "__name__", value)), "line": line}
    return _other(value)


def _line(error: BaseException, file: str) -> int:
    line = 0
    if isinstance(error, SyntaxError) and error.filename == file:
        line = error.lineno or 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def run(location: str, paths: list[str], report: int) -> None:
    """Runs a file, or "python:MODULE", with `paths` importable, and writes the report to the
    descriptor `report`."""
    leave, process = os._exit, os.getpid()
    directory = os.getcwd()
    is_module = location.startswith("python:")
    name = location.removeprefix("python:") if is_module else "__config__"
    file = "" if is_module else os.path.abspath(location)
    watch = Watch(file, directory)
    finder = install(watch)
    sys.path[:0] = [directory, *paths]  # from here on for the file alone: all of ours is imported
    names: dict[str, Any] = {}
    problem = None
    sys.dont_write_bytecode = True  # the migration leaves nothing beside the file
    watch.active = True
    try:
        if is_module:
            module = __import__(name, fromlist=["*"])
            file = watch.file = getattr(module, "__file__", None) or ""
        else:
            # Any name is one of a Python file, as in gunicorn.
            loader = SourceFileLoader(name, file)
            spec = spec_from_file_location(name, file, loader=loader)
            assert spec is not None
            module = module_from_spec(spec)
            sys.modules[name] = module
            loader.exec_module(module)
        names = dict(vars(module))
    except BaseException as error:  # the file is a program and may do anything
        problem = {
            "kind": type(error).__name__,
            "text": _text(error),
            "line": _line(error, file),
            "name": str(getattr(error, "name", None) or ""),
        }
    watch.active = False
    if os.getpid() != process:  # the file has forked
        leave(0)
    sys.stdout.flush()
    # A name that the file has imported is no setting of its making, a function or class may be.
    modules = {key for key, value in names.items() if issubclass(type(value), ModuleType)}
    found = {
        key: encoded(value)
        for key, value in names.items()
        if not key.startswith("__") and key not in modules
    }
    own = {
        name: module.__file__
        for name, module in list(sys.modules.items())
        if isinstance(getattr(module, "__file__", None), str) and watch.is_own(module.__file__)  # type: ignore[arg-type]
    }
    answer = {
        "file": file,
        "names": found,
        "problem": problem,
        "reads": watch.reads,
        "written": watch.written,
        "effects": watch.effects,
        "stood_in": sorted(finder.used),
        "env_files": finder.env_files,
        "modules": own,
    }
    with open(report, "w", encoding="utf-8", errors="surrogatepass") as pipe:
        json.dump(answer, pipe)
    leave(0)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""
