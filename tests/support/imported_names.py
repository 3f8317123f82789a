"""What a module imports, by its source."""

import ast
from collections.abc import Iterable


def imported_names(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that the import statements among `nodes` name; "" for `from . import x`."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names
