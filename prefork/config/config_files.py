"""The files of a configuration: TOML, JSON and KEY=VALUE lines.

Each problem of a file is an `Unreadable`, with the place in the file.
"""

import json
import re
from typing import Any

from prefork import regular_file
from prefork.config.values import Invalid

_TOML_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_NAMES = re.compile(r"\((?:'[^']*',? ?)+\)")
"""The tuple of a table's names, as tomllib writes it."""
_NAME = re.compile(r"'([^']*)'")
_VARIABLE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", re.DOTALL)
_QUOTED = re.compile(r"""(?:"([^"]*)"|'([^']*)')\s*(?:#.*)?""")


class Unreadable(Invalid):
    """A file that cannot be read or does not parse."""


def read_text(path: str) -> str:
    try:
        data = regular_file.read(path)
    except OSError as problem:
        raise Unreadable(f"cannot be read: {problem.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise Unreadable(f"line {line}: not UTF-8") from None


def read_toml(path: str) -> dict[str, Any]:
    import tomllib

    text = read_text(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise Unreadable(_place(str(problem), text)) from None
    except (
        ValueError,
        RecursionError,
    ) as problem:  # such as a number of 5,000 digits, or 500 brackets
        raise Unreadable(f"cannot be read as TOML: {problem}") from None


def _place(message: str, text: str) -> str:
    """The message of tomllib with the place first, as compilers write it."""
    match = _TOML_PLACE.fullmatch(message)
    if match is None:
        return message
    what, line, column = match.groups()
    what = what.replace(r"Illegal character '\n'", "the string does not end on its line")
    what = _NAMES.sub(lambda names: f"[{'.'.join(_NAME.findall(names[0]))}]", what)
    if line is None:
        lines = text.split("\n")
        line, column = len(lines), len(lines[-1]) + 1
    return f"line {line}, column {column}: {what[0].lower()}{what[1:]}"


def read_table(path: str) -> dict[str, Any]:
    """The table in a .toml or .json file."""
    if path.endswith(".toml"):
        return read_toml(path)
    if not path.endswith(".json"):
        raise Unreadable("expected a file that ends in .json or .toml")
    text = read_text(path)
    try:
        table = json.loads(text)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise Unreadable(f"{place}: {problem.msg}") from None
    except (ValueError, RecursionError) as problem:
        raise Unreadable(f"cannot be read as JSON: {problem}") from None
    if not isinstance(table, dict):
        raise Unreadable("expected a JSON object")
    return table


def read_env_file(path: str) -> dict[str, str]:
    return parse_env(read_text(path))


def parse_env(text: str) -> dict[str, str]:
    """The variables of lines `KEY=VALUE`.

    Blank lines and lines that begin with # are skipped. A name may be preceded by `export `. A
    value in single or double quotes is literal; an unquoted one ends before " #", and spaces around
    it are removed. Nothing is expanded. Of several lines for a name the last one counts.

    Raises Unreadable with the numbers of the bad lines, without their text: it may be a secret.
    """
    variables = {}
    reasons = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            name, value = _parse_variable(stripped)
            variables[name] = value
        except ValueError as reason:
            reasons.append(f"line {number}: {reason}")
    if reasons:
        raise Unreadable(*reasons)
    return variables


def _parse_variable(line: str) -> tuple[str, str]:
    match = _VARIABLE.fullmatch(line)
    if match is None:
        raise ValueError("expected KEY=VALUE")
    name, value = match.groups()
    if "\0" in value:
        raise ValueError("the value contains a NUL character")
    if value.startswith(("'", '"')):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise ValueError("the quote is not closed, or is followed by other text")
        return name, quoted[1] if quoted[1] is not None else quoted[2]
    if value.startswith("#"):
        return name, ""
    return name, re.split(r"\s#", value, maxsplit=1)[0].rstrip()
