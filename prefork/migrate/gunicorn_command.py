"""gunicorn's command line, and the order in which it reads file, environment and options."""

import argparse
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prefork.migrate.gunicorn_settings import SETTINGS, options
from prefork.migrate.python_file import Ran, SourceError, run_file

DEFAULT_FILE = "gunicorn.conf.py"
"""Read from the working directory if no other file is named."""

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^}]*))?\})")
_PROGRAMS = ("gunicorn", "gunicorn3")


@dataclass
class Gathered:
    """What gunicorn would start with."""

    shown: str
    settings: dict[str, Any] = field(default_factory=dict)
    ran: Ran | None = None
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Variables that options name, by setting."""


def gather(words: Sequence[str], environ: Mapping[str, str]) -> Gathered:
    """Reads a command line, GUNICORN_CMD_ARGS and the file that either of them names, or else
    ./gunicorn.conf.py. Options win over GUNICORN_CMD_ARGS, and that over the file.

    Raises SourceError.
    """
    words = _without_program(words)
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
    shown = f"`gunicorn {shlex.join(words)}`" if words else "gunicorn"
    if not file and os.path.exists(DEFAULT_FILE):
        file = DEFAULT_FILE
        shown += f" and ./{DEFAULT_FILE}"
    gathered = Gathered(shown, ran=read(file, given.get("chdir")) if file else None)
    if gathered.ran is not None:
        gathered.settings |= gathered.ran.names
    gathered.settings |= {**said, **given}
    gathered.origins = {**origins_said, **origins}
    # What the file says of a setting that an option has replaced is of no interest.
    for name in {**said, **given}:
        gathered.origins.setdefault(name, ())
    return gathered


def gather_file(location: str, app: str | None, environ: Mapping[str, str]) -> Gathered:
    """A file alone, with the application if it is given beside it."""
    words = ["-c", location, *([app] if app else [])]
    gathered = gather(words, environ)
    gathered.shown = location if app is None else f"{location} and {app}"
    return gathered


def read(location: str, chdir: str | None = None) -> Ran:
    return run_file(location, paths=[os.path.abspath(chdir)] if chdir else [])


def _without_program(words: Sequence[str]) -> list[str]:
    """A whole command line begins with variables, perhaps, and the program: `exec env A=1
    /venv/bin/gunicorn`, `python -m gunicorn`."""
    rest = list(words)
    for index, word in enumerate(rest):
        if os.path.basename(word) in _PROGRAMS:
            before = rest[:index]
            plain = (each for each in before if not each.startswith("-"))
            if all("=" in each or _is_starter(each) for each in plain):
                return rest[index + 1 :]
        if word.startswith("-") and word != "-m":
            break
    return rest


def _is_starter(word: str) -> bool:
    name = os.path.basename(word)
    return name in ("exec", "env", "poetry", "pipenv", "uv", "pdm", "run", "sudo", "web:") or (
        name.startswith("python")
    )


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
        variables = [
            match[1] or match[2]
            for text in texts
            if isinstance(text, str)
            for match in _VARIABLE.finditer(text)
        ]
        if variables:
            origins[name] = tuple(variables)
            expanded = [_expanded(name, text, environ) for text in texts]
            value = expanded if isinstance(value, list) else expanded[0]
        given[name] = value
    return given, origins


def _expanded(name: str, text: str, environ: Mapping[str, str]) -> str:
    """The text with its shell variables; PORT and WEB_CONCURRENCY, which prefork reads itself, may
    be unset."""

    def value_of(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        known = {"PORT": "8000", "WEB_CONCURRENCY": "1"}
        value = environ.get(variable) or match[3] or known.get(variable)
        if value is None:
            raise SourceError(
                f"the option for {name} names the variable {variable}, which is not set here; set"
                f" {variable} as it is on the server, as in {variable}=... prefork migrate gunicorn"
            )
        return value

    return _VARIABLE.sub(value_of, text)


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
