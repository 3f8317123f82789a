"""Messages with a number of things; none writes "1 workers"."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork.quantity import quantity

PACKAGE = Path(__file__).parents[2] / "prefork"

COUNTED = re.compile(
    r" (of )?(worker|thread|request|connection|client|WebSocket|header|trailer|byte|CPU|second"
    r"|packet|process|socket|file|descriptor|overflow|listener|change|line|problem|parameter)(s|es)\b(?!/)"
)

NEVER_ONE = {
    "cli/client_options.py": "_LONGEST is a constant",
    "config/values.py": "WORKERS_MAX is a constant",
    "http/forwarded.py": "_MAX_PAIRS is a constant",
    "http/proxy_protocol.py": "V1_LIMIT and V2_LIMIT are constants",
    "address.py": "the length is that of a path that is too long",
    "listeners.py": "more sockets than one, and a path that is too long",
    "cli/serving.py": "threads are named if there are several",
    "client/response_parser.py": "LIMIT is a constant; `of N` stands between number and bytes",
    "master/control_server.py": "MAX_CLIENTS and REQUEST_LIMIT are constants",
    "migrate/python_file.py": "_PATIENCE is a constant",
    "migrate/uwsgi.py": "one CPU is set, and not named",
}


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 workers"), (1, "1 worker"), (2, "2 workers"), (-1, "-1 workers")]
)
def test_quantity(number: int, text: str) -> None:
    assert quantity(number, "worker") == text


def plurals(tree: ast.AST) -> Iterator[str]:
    """The values in f-strings that stand in front of a plural; "1.5 requests/s" is a rate."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for before, piece in zip(node.values, node.values[1:], strict=False):
                if (
                    isinstance(before, ast.FormattedValue)
                    and isinstance(piece, ast.Constant)
                    and COUNTED.match(str(piece.value))
                ):
                    yield ast.unparse(before)


def test_every_number_of_things_is_written_by_quantity() -> None:
    found = {
        str(path.relative_to(PACKAGE)): [*plurals(ast.parse(path.read_text(encoding="utf-8")))]
        for path in PACKAGE.rglob("*.py")
    }
    wrong = {path: values for path, values in found.items() if values and path not in NEVER_ONE}
    assert not wrong
    assert {path for path in NEVER_ONE if found[path]} == set(NEVER_ONE)
