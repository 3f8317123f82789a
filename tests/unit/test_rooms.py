"""The layout of prefork/: which package may import which, and names that are unique."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "prefork"

FLOORS = (
    "__main__",
    "cli",
    "top",
    "embed",
    "migrate",
    "wire",
    "client",
    "master.start",
    "master.main_loop",
    "master.reaper",
    "master.supervisor",
    "master.signals",
    "master.control_commands",
    "master.operations",
    "master.observe",
    "master.upgrade",
    "master.rollout",
    "master.processes",
    "master.control_server",
    "master.client_acceptor",
    "master.pool",
    "master",
    "worker.boot",
    "worker.service",
    "worker.protocol",
    "worker.transport",
    "worker.schedule",
    "worker",
    "apps",
    "websocket",
    "http",
    "listeners",
    "control",
    "channel",
    "logs",
    "certificates",
    "config",
    "",
)
"""From top to bottom: a module may import from its own package and from those below.

The last entry is every module directly in prefork/ that is not named before."""

EXCEPTIONS = {
    ("prefork", "embed"): "prefork.serve() imports the server when it is called",
    ("config.checks", "certificates"): "`prefork check` tries the certificate that a file names",
}


def modules() -> dict[str, Path]:
    """Dotted name below `prefork` (the package itself is "prefork") to file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name or "prefork"] = path
    return found


MODULES = modules()


@cache
def trees() -> dict[str, ast.Module]:
    """Each module, parsed: not before a test asks, since that is a part of a second."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules of prefork that a file imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] != "prefork":
                continue
            below = name.removeprefix("prefork").removeprefix(".")
            while below and below not in MODULES:  # a name in a module
                below = below.rpartition(".")[0]
            yield below or "prefork"


def floor(module: str) -> int:
    inside = "" if module == "prefork" else module
    while inside not in FLOORS:
        inside = inside.rpartition(".")[0]
    return FLOORS.index(inside)


@pytest.mark.parametrize("module", MODULES)
def test_every_import_points_down(module: str) -> None:
    up = {
        imported
        for imported in imports(trees()[module])
        if floor(imported) < floor(module) and (module, imported) not in EXCEPTIONS
    }
    assert not up, f"prefork.{module} imports from a floor above it: {', '.join(sorted(up))}"


def test_every_exception_is_needed() -> None:
    found = {(module, imported) for module, tree in trees().items() for imported in imports(tree)}
    assert set(EXCEPTIONS) <= found


def test_no_import_goes_in_a_circle() -> None:
    """Within a package, too; imports inside functions aside."""

    class AtImport(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            """A function's body runs later."""

    graph = {}
    for module, path in MODULES.items():
        tree = AtImport().visit(ast.parse(path.read_text(encoding="utf-8")))
        graph[module] = set(imports(tree)) - {"prefork", module}
    done: set[str] = set()
    under_way: list[str] = []

    def visit(module: str) -> None:
        if module in done:
            return
        assert module not in under_way, f"circle: {' -> '.join([*under_way, module])}"
        under_way.append(module)
        for each in sorted(graph[module]):
            visit(each)
        under_way.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


def _public_classes() -> dict[str, list[str]]:
    found = defaultdict(list)
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(module)
    return found


def test_a_public_class_name_stands_for_one_class() -> None:
    twice = {name: where for name, where in _public_classes().items() if len(where) > 1}
    assert not twice


def test_a_file_name_stands_for_one_file() -> None:
    """In tabs and tracebacks the base name is what one sees; `cli/NAME.py` is `prefork NAME`."""
    where = defaultdict(list)
    for module, path in MODULES.items():
        if path.name != "__init__.py" and not module.startswith("cli."):
            where[path.name].append(module)
    assert not {name: files for name, files in where.items() if len(files) > 1}
