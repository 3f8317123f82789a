"""Start lines of servers, as shells, units and container files have them."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence

from prefork.migrate.python_file import SourceError
from prefork.migrate.secrets import is_secret

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^}]*))?\})")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_FACTORY = re.compile(r"[\w.-]+:[\w.]+\(.*\)", re.DOTALL)
_SECRET = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)
_SERVERS = ("gunicorn", "uvicorn", "hypercorn", "daphne", "uwsgi")
_FASTAPI = "it starts uvicorn: write that, as in uvicorn --host 0.0.0.0 app.main:app"
_READ_BY_PREFORK = {"PORT": "8000", "WEB_CONCURRENCY": "1"}
"""Variables that may be unset, with the values that stand for them."""


def shown_words(words: Sequence[str]) -> str:
    """A command line without the secrets in it."""
    return shlex.join(_SECRET.sub(_hidden, word) for word in words)


def _hidden(match: re.Match[str]) -> str:
    return f"{match[1]}=***" if is_secret(match[1], match[2]) else match[0]


def split_line(words: Sequence[str], programs: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the server, such as `exec env A=1` or `python -m`, and its arguments.

    A command line may be one word, in quotes, or a JSON array as in a Dockerfile.  Raises
    SourceError for quotes that do not end.
    """
    rest = list(words)
    if len(rest) == 1 and " " in rest[0] and not _FACTORY.fullmatch(rest[0]):
        rest = _array(rest[0])
        try:
            rest = rest or shlex.split(words[0])
        except ValueError as error:
            raise SourceError(f"this is no command line: {error}") from None
    if rest and rest[0].startswith("-"):
        return [], rest
    for index, word in enumerate(rest):
        if os.path.basename(word) in programs:
            option = rest[index - 1] if index else ""
            if not option.startswith("-") or option in ("-m", "--"):  # else it is a value
                return rest[:index], rest[index + 1 :]
    _refuse_other(rest)
    return [], rest


def _refuse_other(words: Sequence[str]) -> None:
    """Raises SourceError for the start line of another server."""
    for word in words:
        name = os.path.basename(word)
        if name in _SERVERS:
            raise SourceError(
                f"this is a start line of {name}: prefork migrate {name} -- {shown_words(words)}"
            )
        if name == "fastapi":
            raise SourceError(f"this is a start line of fastapi: {_FASTAPI}")


def _array(text: str) -> list[str]:
    """The strings of a JSON array; none for any other text."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return list(map(str, found)) if isinstance(found, list) else []


def assignments(before: Sequence[str]) -> dict[str, str]:
    """The environment variables that are set before the server in its command line."""
    return dict(word.split("=", 1) for word in before if _ASSIGNMENT.match(word))


def programs_before(before: Sequence[str]) -> list[str]:
    """The words before the server that start more than the server."""
    return [word for word in before if not _ASSIGNMENT.match(word) and not _is_usual(word)]


def _is_usual(word: str) -> bool:
    """Whether a word before the server is of no interest: it only finds or starts it."""
    name = os.path.basename(word)
    usual = ("exec", "env", "poetry", "pipenv", "uv", "pdm", "run", "-m", "--", "web:", "")
    return name in usual or name.startswith(("python", "ExecStart="))


def variables_in(text: str) -> list[str]:
    """The names of the shell variables in a word."""
    return [match[1] or match[2] for match in _VARIABLE.finditer(text)]


def expanded(option: str, text: str, environ: Mapping[str, str], server: str) -> str:
    """The text with its shell variables; PORT and WEB_CONCURRENCY, which prefork reads itself, may
    be unset.  Raises SourceError for any other that is."""

    def value_of(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        value = environ.get(variable) or match[3] or _READ_BY_PREFORK.get(variable)
        if value is None:
            raise SourceError(
                f"the option for {option} names the variable {variable}, which is not set here; set"
                f" {variable} as it is on the server, as in {variable}=... prefork migrate {server}"
            )
        return value

    return _VARIABLE.sub(value_of, text)
