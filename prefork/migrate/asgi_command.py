"""The command lines of uvicorn, hypercorn and daphne, and what else they read."""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prefork.migrate.asgi_options import SERVERS, AsgiOption, strings
from prefork.migrate.data_flow import ALL, CPUS, FILE
from prefork.migrate.python_file import Opaque, SourceError, run_file
from prefork.migrate.start_line import (
    assignments,
    expanded,
    programs_before,
    shown_words,
    split_line,
    variables_in,
)

_TRUE = ("1", "true", "yes", "on", "t", "y")
_FALSE = ("0", "false", "no", "off", "f", "n", "")
_OWN_VARIABLES = ("PORT", "WEB_CONCURRENCY")
"""Of those before the server, the ones that prefork reads, too."""


@dataclass
class AsgiLine:
    """What a server would start with."""

    server: str
    """"uvicorn", "hypercorn" or "daphne"."""
    shown: str
    values: dict[str, Any] = field(default_factory=dict)
    """By the name in the table of the server; only what is set."""
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Environment variables that a value depends on, by the same names."""
    environ: Mapping[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables that the command line sets for the application."""
    before: list[str] = field(default_factory=list)
    """Words before the server in the command line that prefork needs, too."""
    unknown: list[str] = field(default_factory=list)
    """Names in a configuration file that the server does not know."""


def gather(server: str, words: Sequence[str], environ: Mapping[str, str]) -> AsgiLine:
    """Reads a command line, and the variables or the file that the server reads, too.

    The command line takes precedence.  Raises SourceError.
    """
    before, words = split_line(words, (server,))
    assigned = assignments(before)
    environ = {**environ, **assigned}
    line = AsgiLine(server, f"`{server} {shown_words(words)}`", environ=environ)
    given = _parsed(line, words)
    if server == "uvicorn":
        _read_variables(line)
    if server == "hypercorn" and (file := given.pop("config", None)):
        _read_file(line, str(file))
    line.values |= given
    line.variables = {
        name: text
        for name, text in assigned.items()
        if name not in _OWN_VARIABLES and not (server == "uvicorn" and _is_uvicorn_s(name))
    }
    line.before = [
        *(f"{name}={assigned[name]}" for name in _OWN_VARIABLES if name in assigned),
        *programs_before(before),
    ]
    return line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SourceError(f"this is no command line of {self.prog}: {message}")


def _parsed(line: AsgiLine, words: Sequence[str]) -> dict[str, Any]:
    """The options of a command line, with their shell variables replaced."""
    # Abbreviations would be taken for options of a newer version.
    parser = _Parser(prog=line.server, add_help=False, allow_abbrev=False)
    table = SERVERS[line.server]
    for name, option in table.items():
        names = strings(name, option)
        if option.kind == "switch" and len(names) == 2:
            for text, value in zip(names, (True, False), strict=True):
                parser.add_argument(text, dest=name, action="store_const", const=value)
        elif names and option.kind == "flag":
            parser.add_argument(*names, dest=name, action="store_const", const=True)
        elif names:
            action = "append" if option.kind == "texts" else "store"
            parser.add_argument(*names, dest=name, action=action)
    parser.add_argument("app" if line.server == "uvicorn" else "application", nargs="?")
    found: dict[str, Any] = {}
    for name, value in vars(parser.parse_args(list(words))).items():
        if value is None:
            continue
        texts = value if isinstance(value, list) else [value]
        named = [each for text in texts if isinstance(text, str) for each in variables_in(text)]
        if named:
            line.origins[name] = tuple(named)
            texts = [expanded(name, text, line.environ, line.server) for text in texts]
        if isinstance(value, list):
            found[name] = texts
        else:
            shown = strings(name, table[name])[:1] or (name,)
            found[name] = _converted(shown[0], table[name], texts[0])
    return found


def _read_variables(line: AsgiLine) -> None:
    """UVICORN_PORT is --port, and so on; WEB_CONCURRENCY is left to the translation."""
    for name, option in SERVERS["uvicorn"].items():
        variable = f"UVICORN_{name.upper()}"
        text = line.environ.get(variable)
        if not text:
            continue
        if option.kind == "texts":
            line.values[name] = text.split()
        elif option.kind in ("flag", "switch"):
            line.values[name] = _boolean(variable, text)
        else:
            line.values[name] = _converted(variable, option, text)
        line.origins.setdefault(name, (variable,))


def _is_uvicorn_s(variable: str) -> bool:
    return variable.removeprefix("UVICORN_").lower() in SERVERS["uvicorn"] and variable.startswith(
        "UVICORN_"
    )


def _read_file(line: AsgiLine, location: str) -> None:
    """hypercorn's --config: a TOML file, python:MODULE, or file:PATH of a Python file."""
    if location.startswith(("python:", "file:")):
        ran = run_file(location, environ=line.environ)
        found = {name: value for name, value in ran.names.items() if not name.startswith("_")}
        for name in found:
            if variables := sorted(ran.origin(name) - {ALL, CPUS, FILE}):
                line.origins[name] = tuple(variables)
        found = {name: value for name, value in found.items() if not isinstance(value, Opaque)}
    else:
        try:
            with open(location, "rb") as file:
                found = tomllib.load(file)
        except (OSError, ValueError) as reason:
            raise SourceError(f"{location}: it cannot be read as TOML: {reason}") from None
    line.shown += f" and {location}"
    table = SERVERS["hypercorn"]
    for name, value in found.items():
        option = table.get(name)
        if option is None:
            line.unknown.append(name)
        elif option.kind == "texts":
            line.values[name] = list(map(str, value)) if isinstance(value, list) else [str(value)]
        elif isinstance(value, bool) or option.kind == "text":
            line.values[name] = value if isinstance(value, bool) else str(value)
        else:
            line.values[name] = _converted(name, option, str(value))


def _converted(shown: str, option: AsgiOption, value: Any) -> Any:
    """A value as its kind; `shown` is what an error calls it."""
    if not isinstance(value, str):
        return value
    if option.kind == "boolean":
        return _boolean(shown, value)
    try:
        if option.kind == "integer":
            return int(value)
        if option.kind == "number":
            return float(value)
    except ValueError:
        raise SourceError(f"{shown} {value}: expected a number") from None
    return value


def _boolean(shown: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise SourceError(f"{shown} {text}: expected true or false")
