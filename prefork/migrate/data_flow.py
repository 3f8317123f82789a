"""Finds which names of a Python file depend on the environment, the CPUs or the file's path.

The file has been run, and each read of a variable or of the number of CPUs is known by the line of
the module's top level that was executed. This module follows assignments from there: a name depends
on what its statement read and on the names that its statement uses. Statements under a condition
depend on the condition, too. The rule looks at statements, not at values, so it may name a source
that a value does not depend on.
"""

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

FILE = "__file__"
"""The source: the path of the file."""

CPUS = "the number of CPUs"
"""The source: os.cpu_count() and similar functions."""

ALL = "*"
"""The source: all variables, if a file iterates over the environment."""

Sources = frozenset[str]
"""Names of environment variables, ALL, FILE and CPUS."""


@dataclass
class Flow:
    """The result for one file."""

    sources: dict[str, Sources] = field(default_factory=dict)
    """By name, for names that depend on something."""
    expressions: dict[str, str] = field(default_factory=dict)
    """The text of what was assigned last, by name."""
    used: set[str] = field(default_factory=set)
    """Names that the file reads somewhere."""
    bound: dict[str, int] = field(default_factory=dict)
    """Names that plain assignments bind, with the line."""
    idle: set[str] = field(default_factory=set)
    """Functions that do nothing, or only log."""
    calls: set[str] = field(default_factory=set)
    """Names of functions and methods that are called anywhere."""


def follow(
    text: str,
    reads: Iterable[tuple[int, str]],
    imported: Callable[[str], dict[str, Sources]] = lambda module: {},
) -> Flow:
    """Follows a file's text. `reads`: (line, source). `imported`: what the names of a module of the
    site's own depend on. A text that does not parse has no flow."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Flow()
    follower = _Follower(text, list(reads), imported)
    follower.block(module.body, frozenset())
    return follower.flow


class _Follower:
    def __init__(
        self,
        text: str,
        reads: list[tuple[int, str]],
        imported: Callable[[str], dict[str, Sources]],
    ) -> None:
        self.flow = Flow()
        self._text = text
        self._reads = reads
        self._imported = imported
        self._depth = 0
        """How many compound statements stand around the present one."""

    def block(self, body: list[ast.stmt], above: Sources) -> None:
        for statement in body:
            self._statement(statement, above)

    def _statement(self, node: ast.stmt, above: Sources) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
            return
        inner = [
            child
            for name in ("body", "orelse", "finalbody", "handlers", "cases")
            for child in getattr(node, name, [])
        ]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not inner:
            self._simple(node, above)
            return
        # A compound statement: its header first, which its body depends on.
        lines = [child.lineno for child in inner if hasattr(child, "lineno")]
        first = min(lines, default=node.lineno + 1)
        header = self._sources_at(node.lineno, max(node.lineno, first - 1)) | above
        parts = [part for part in ast.iter_child_nodes(node) if part not in inner]
        for part in parts:
            header |= self._used_in(part)
        for name in _targets(parts):
            self._bind(name, header)
        self._depth += 1
        for child in inner:
            if isinstance(child, ast.stmt):
                self._statement(child, header)
            else:  # an except clause, a case
                self.block(child.body, header)
        self._depth -= 1

    def _simple(self, node: ast.stmt, above: Sources) -> None:
        end = node.end_lineno or node.lineno
        sources = above | self._sources_at(node.lineno, end) | self._used_in(node)
        targets = _targets([node])
        for name in targets:
            # What a condition may have skipped, or what changes a value, replaces no source.
            plain = isinstance(node, ast.Assign | ast.AnnAssign) and not self._depth
            self._bind(name, sources, keep=not plain)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            for name in targets:
                self.flow.bound[name] = node.lineno
                if self._depth:
                    self.flow.expressions.pop(name, None)
                elif node.value is not None:
                    text = ast.get_source_segment(self._text, node.value) or ""
                    self.flow.expressions[name] = " ".join(text.split())
        elif isinstance(node, ast.FunctionDef) and all(map(_is_idle, node.body)):
            self.flow.idle.add(node.name)

    def _bind(self, name: str, sources: Sources, *, keep: bool = False) -> None:
        if keep:
            sources |= self.flow.sources.get(name, frozenset())
        if sources:
            self.flow.sources[name] = sources
        else:
            self.flow.sources.pop(name, None)

    def _sources_at(self, first: int, last: int) -> Sources:
        return frozenset(source for line, source in self._reads if first <= line <= last)

    def _used_in(self, node: ast.AST) -> Sources:
        found: Sources = frozenset()
        parameters = {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)}
        for part in ast.walk(node):
            if isinstance(part, ast.Call):
                called = part.func
                self.flow.calls.add(getattr(called, "attr", "") or getattr(called, "id", ""))
            if not isinstance(part, ast.Name) or part.id in parameters:
                continue
            if isinstance(part.ctx, ast.Load):
                self.flow.used.add(part.id)
                found |= self.flow.sources.get(part.id, frozenset())
                if part.id == FILE:
                    found |= {FILE}
        return found

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = self._imported(node.module)
            for alias in node.names:
                if alias.name == "*":
                    for name, sources in names.items():
                        self._bind(name, sources)
                else:
                    self._bind(alias.asname or alias.name, names.get(alias.name, frozenset()))


def _targets(nodes: Iterable[ast.AST]) -> list[str]:
    """The names that statements bind or change, also by `x.append()` and `globals()["x"] = `."""
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.append(part.id)
            elif isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Store):
                names += _base(part.value)
                if isinstance(part.value, ast.Call) and isinstance(part.slice, ast.Constant):
                    names.append(str(part.slice.value))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            function = node.value.func
            if isinstance(function, ast.Attribute):
                names += _base(function.value)
    return names


def _base(node: ast.expr) -> list[str]:
    return [node.id] if isinstance(node, ast.Name) else []


def _is_idle(node: ast.stmt) -> bool:
    """`pass`, a docstring, or a call such as `server.log.info(...)` or `print(...)`."""
    if isinstance(node, ast.Pass):
        return True
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Constant):
        return True
    call = node.value
    if not isinstance(call, ast.Call):
        return False
    receiver = getattr(call.func, "value", None)
    name = getattr(receiver, "attr", "") or getattr(receiver, "id", "")
    return name in ("log", "logger", "logging") or getattr(call.func, "id", "") == "print"
