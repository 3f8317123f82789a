"""Lazy imports (PEP 810, CPython 3.15) of an application that is preloaded.

A module that is imported lazily is loaded where its name is used first. After a fork that would be
in each worker for itself, at a client's request: neither shared memory nor a fast first answer.
"""

import contextlib
import sys
import types

_OTHERS = frozenset({*sys.stdlib_module_names, "prefork"})


def resolve_lazy_imports() -> None:
    """Imports what modules import lazily at their top level, and what these import so in turn.

    Those of the standard library and of prefork are left: they would bring much that nobody uses.
    An import that fails stays lazy, since the application may expect that where it uses the name.
    """
    lazy = getattr(types, "LazyImportType", None)
    if lazy is None:
        return
    seen: set[str] = set()
    while new := {name for name in sys.modules if name.partition(".")[0] not in _OTHERS} - seen:
        seen |= new
        for name in new:
            module = sys.modules.get(name)
            for key, value in list(getattr(module, "__dict__", {}).items()):
                if type(value) is lazy:
                    with contextlib.suppress(Exception, SystemExit):
                        getattr(module, key)  # to read the name is to import it
