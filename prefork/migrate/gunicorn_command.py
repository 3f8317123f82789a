"""gunicorn's command line, and the order in which it reads file, environment and options."""

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prefork.migrate.gunicorn_settings import SETTINGS, options
from prefork.migrate.python_file import Ran, SourceError, run_file
from prefork.migrate.start_line import (
    assignments,
    expanded,
    programs_before,
    shown_words,
    split_line,
    variables_in,
)

DEFAULT_FILE = "gunicorn.conf.py"
"""Read from the working directory if no other file is named."""

_PROGRAMS = ("gunicorn", "gunicorn3")
_READ_BY_GUNICORN = ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS")


@dataclass
class Gathered:
    """What gunicorn would start with."""

    shown: str
    settings: dict[str, Any] = field(default_factory=dict)
    ran: Ran | None = None
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Variables that options name, by setting."""
    environ: Mapping[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    """Words before gunicorn in the command line that prefork needs, too."""


def gather(words: Sequence[str], environ: Mapping[str, str]) -> Gathered:
    """Reads a command line, GUNICORN_CMD_ARGS and the file that they name, or ./gunicorn.conf.py.

    Options take precedence over GUNICORN_CMD_ARGS, and those over the file.

    Raises SourceError.
    """
    before, words = split_line(words, _PROGRAMS)
    assigned = assignments(before)
    environ = {**environ, **assigned}
    given, origins = _options(words, environ)
    said: dict[str, Any] = {}
    origins_said: dict[str, tuple[str, ...]] = {}
    if text := environ.get("GUNICORN_CMD_ARGS"):
        try:
            said, origins_said = _options(shlex.split(text), environ)
        except ValueError as error:
            raise SourceError(f"GUNICORN_CMD_ARGS: {error}") from None
    named = given.pop("config", None)
    file = named or said.pop("config", None)
    said.pop("config", None)
    said.pop("wsgi_app", None)  # there it is no option
    shown = f"`gunicorn {shown_words(words)}`" if words else "gunicorn"
    if not file and os.path.exists(DEFAULT_FILE):
        file = DEFAULT_FILE
        shown += f" and ./{DEFAULT_FILE}"
    gathered = Gathered(shown, environ=environ)
    if file:
        chdir = given.get("chdir")
        paths = [os.path.abspath(chdir)] if chdir else []
        gathered.ran = run_file(file, paths=paths, environ=environ)
        gathered.settings |= gathered.ran.names
    gathered.settings |= {**said, **given}
    # An option replaces the setting of the file, and so its origins.
    gathered.origins = dict.fromkeys({**said, **given}, ()) | origins_said | origins
    _note_before(gathered, before, assigned)
    return gathered


def gather_file(location: str, app: str | None, environ: Mapping[str, str]) -> Gathered:
    """A file alone, with the application if it is given beside it."""
    gathered = gather(["-c", location, *([app] if app else [])], environ)
    gathered.shown = location if app is None else f"{location} and {app}"
    return gathered


def _note_before(gathered: Gathered, before: list[str], assigned: Mapping[str, str]) -> None:
    """What a command line has before gunicorn: variables for the application, and programs."""
    own = [f"{name}={value}" for name, value in assigned.items() if name not in _READ_BY_GUNICORN]
    if own:
        given = gathered.settings.get("raw_env") or []
        gathered.settings["raw_env"] = [*own, *([given] if isinstance(given, str) else given)]
    gathered.before = [
        *(f"{name}={value}" for name, value in assigned.items() if name in _READ_BY_GUNICORN),
        *programs_before(before),
    ]


def _options(
    words: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    found = vars(_parser().parse_args(list(words)))
    given: dict[str, Any] = {}
    origins: dict[str, tuple[str, ...]] = {}
    for name, value in found.items():
        if value is None:
            continue
        texts = value if isinstance(value, list) else [value]
        variables = [name for text in texts if isinstance(text, str) for name in variables_in(text)]
        if variables:
            origins[name] = tuple(variables)
            full = [expanded(name, text, environ, "gunicorn") for text in texts]
            value = full if isinstance(value, list) else full[0]
        given[name] = value
    return given, origins


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SourceError(f"this is no command line of gunicorn: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gunicorn", add_help=False)
    for name, setting in SETTINGS.items():
        if not (strings := options(name)):
            continue
        how: dict[str, Any] = {"dest": name, "default": None}
        if setting.flag:
            how |= {"action": "store_const", "const": True}
        elif setting.kind == "strings":
            how |= {"action": "append"}
        elif name == "proxy_protocol":
            how |= {"nargs": "?", "const": "auto"}
        parser.add_argument(*strings, **how)
    parser.add_argument("wsgi_app", nargs="?")
    return parser
