"""Finds the name of the application in a module that is given without one.

Nothing is imported: the file of the module is parsed. So `prefork check` can show the name, and a
reload finds a changed name.
"""

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import Any

from prefork import regular_file
from prefork.config.values import is_module

USUAL = ("application", "app")
"""The usual names of an application, in the order of the search."""

_ONLY_AST = 0x400
"""ast.PyCF_ONLY_AST. The module `ast` is not imported: it would use memory in each worker."""


def application_of(module: str, directory: str) -> str | None:
    """ "module:name" for a module that can be imported from `directory`, else None.

    If the module binds neither name, the result has the first one: the import then shows whether
    the module makes it in another way.
    """
    if not is_module(module):
        return None
    file = _file_of(module, directory)
    if file is None:
        return None
    bound = set(_bound_in(file))
    return f"{module}:{next((name for name in USUAL if name in bound), USUAL[0])}"


def _file_of(module: str, directory: str) -> str | None:
    top, *rest = module.split(".")
    spec = PathFinder.find_spec(top, [directory, *sys.path])
    if spec is None:
        return None
    if not rest:
        return spec.origin
    for place in spec.submodule_search_locations or ():
        base = os.path.join(place, *rest)
        for file in (f"{base}.py", os.path.join(base, "__init__.py")):
            if os.path.isfile(file):
                return file
    return None


def _bound_in(file: str) -> Iterator[str]:
    """Names that are bound by statements at the level of the module, also in `if` and `try`."""
    try:
        tree: Any = compile(regular_file.read(file), file, "exec", _ONLY_AST)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        kind = type(node).__name__
        if kind in ("FunctionDef", "AsyncFunctionDef", "ClassDef"):
            yield node.name
            continue
        if kind in ("Import", "ImportFrom"):
            yield from (alias.asname or alias.name for alias in node.names)
        elif kind in ("Assign", "AnnAssign"):
            targets = [*getattr(node, "targets", []), getattr(node, "target", None)]
            for target in targets:
                for part in (target, *getattr(target, "elts", [])):
                    yield getattr(part, "id", "")
        for name in ("body", "orelse", "finalbody", "handlers"):
            waiting += getattr(node, name, [])
