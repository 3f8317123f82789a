"""Which build runs, the compiled one or pure Python: both are made of the same source.

A wheel that was built with PREFORK_COMPILE=1 has extension modules beside some of the source files
(mypyc; `setup.py`), and a record of the sources that they were made of.  Python
prefers the extension module.  So this module, which `prefork` imports before any other, sees to it
that they are used only if each of those sources is still the one that was compiled: code that was
changed or replaced in place runs as it stands there.  A checkout has no record, and runs as pure
Python.  With PREFORK_PURE=1 in the environment each process does.

Only built-in and frozen modules of Python are imported here, since `python -m prefork` would find
others in the working directory.
"""

import os
import sys
from _collections_abc import Callable, Sequence  # of collections.abc, which is not frozen
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import source_hash

__all__ = ["BUILD", "COMPILED", "RECORD", "SourceFinder", "digest", "is_current", "native"]

# A type checker takes this name for true; `typing` is among the modules that may be a stranger's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    # mypyc knows the decorator by this name.
    from mypy_extensions import mypyc_attr as native
else:

    def native(**_options: bool) -> Callable[[type], type]:
        """Marks a class for mypyc: `allow_interpreted_subclasses`."""
        return lambda marked: marked


RECORD = "compiled.record"
"""In the package: a line for each source, its path in the package and its digest."""


def digest(source: bytes) -> str:
    """By which Python tells a source from another, too (PEP 552)."""
    return source_hash(source).hex()


def is_current(package: str) -> bool:
    """Whether the extension modules in the directory of a package are those of its sources."""
    try:
        with open(os.path.join(package, RECORD), encoding="utf-8") as record:
            entries = [line.split(" ") for line in record.read().splitlines()]
        for path, compiled in entries:
            with open(os.path.join(package, path), "rb") as source:
                if digest(source.read()) != compiled:
                    return False
    except (OSError, ValueError):
        return False
    return bool(entries)


class SourceFinder:
    """Finds the modules of a package by their sources only, whatever else is beside them."""

    def __init__(self, package: str) -> None:
        self._prefix = package + "."

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        if path is None or not name.startswith(self._prefix):
            return None
        for directory in path:
            finder = FileFinder(directory, (SourceFileLoader, SOURCE_SUFFIXES))
            spec = finder.find_spec(name)
            if spec is not None:
                return spec
        return None


def _choose(package: str) -> bool:
    """Returns whether the compiled modules are used; else sees to it that no import finds one."""
    if os.environ.get("PREFORK_PURE") != "1" and is_current(package):
        return True
    try:
        names = os.listdir(os.path.join(package, "http"))  # which has some in a compiled build
    except OSError:
        return False
    if any(name.endswith(".so") for name in names):
        sys.meta_path.insert(0, SourceFinder(__package__))
    return False


COMPILED = _choose(os.path.dirname(__file__))
"""This process runs the compiled build."""

BUILD = "compiled" if COMPILED else "pure Python"
"""The same for users."""
