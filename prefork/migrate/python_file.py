"""A Python configuration file: what it sets when it is run, and where its values come from."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefork.migrate.data_flow import CPUS, FILE, Flow, Sources, follow

_PATIENCE = 60.0
"""Seconds that a file may take."""

_START = "import sys; sys.path.insert(0, {root!r}); from prefork.migrate.python_child import run;"
_START += " del sys.path[0]; run({location!r}, {paths!r}, {report})"


class SourceError(Exception):
    """A configuration cannot be read. The text says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Opaque:
    """A value that JSON cannot hold. kind: "class", "function", "stand-in" or "other"."""

    kind: str
    text: str
    line: int = 0

    def __repr__(self) -> str:
        return self.text


@dataclass
class Ran:
    """What a file did."""

    shown: str
    """Its name, as it was given."""
    path: str = ""
    names: dict[str, Any] = field(default_factory=dict)
    """What it sets: plain values and Opaque ones."""
    flow: Flow = field(default_factory=Flow)
    variables: list[str] = field(default_factory=list)
    """Environment variables that it read, in order."""
    written: dict[str, str] = field(default_factory=dict)
    """Environment variables that it set."""
    effects: list[str] = field(default_factory=list)
    """Other changes that it made to the machine, a line each."""
    stood_in: list[str] = field(default_factory=list)
    """Modules that are not installed here and were replaced by stand-ins."""
    env_files: list[str] = field(default_factory=list)
    """Files that load_dotenv() was called for."""

    def origin(self, name: str) -> Sources:
        return self.flow.sources.get(name, frozenset())


def run_file(
    location: str,
    *,
    directory: str = ".",
    paths: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Ran:
    """Runs a file, or "python:MODULE", as a program of its own.

    directory: its working directory; modules in it and in `paths` can be imported.
    environ: its environment, by default that of this process.
    Its output goes to stderr. Raises SourceError.
    """
    if not location.startswith("python:"):
        location = location.removeprefix("file:")
        path = os.path.join(directory, location)
        try:
            with open(path, "rb"):
                pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SourceError(f"{location}: cannot be read: {reason}") from None
    answer = _run(location, directory, list(paths), environ)
    if answer["problem"] is not None:
        raise SourceError(_problem(location, answer))
    reads = answer["reads"]
    flows: dict[str, Flow] = {}
    by_module = {name: path for name, path in answer["modules"].items() if path != answer["file"]}

    def flow_of(path: str, depth: int = 0) -> Flow:
        if path not in flows:
            flows[path] = Flow()  # for modules that import each other
            own = [(line, source) for file, line, source, _ in reads if file == path]
            flows[path] = follow(_text_of(path), own, lambda module: imported(module))
        return flows[path]

    def imported(module: str) -> dict[str, Sources]:
        path = by_module.get(module)
        return flow_of(path).sources if path else {}

    return Ran(
        shown=location,
        path=answer["file"],
        names={name: _decoded(value) for name, value in answer["names"].items()},
        flow=flow_of(answer["file"]),
        variables=list(dict.fromkeys(read[2] for read in reads if read[2] not in (CPUS, FILE))),
        written=answer["written"],
        effects=[f"line {line}: it {what}" for line, what in answer["effects"]],
        stood_in=answer["stood_in"],
        env_files=answer["env_files"],
    )


def _run(location: str, directory: str, paths: list[str], environ: Mapping[str, str] | None) -> Any:
    root = str(Path(__file__).resolve().parents[2])
    # A file, not a pipe: a child cannot block on it, and it is read after the child has ended.
    with tempfile.TemporaryFile() as report:
        number = report.fileno()
        code = _START.format(root=root, location=location, paths=paths, report=number)
        try:
            process = subprocess.run(
                # -P: the child sets sys.path itself. -u: what it prints stays in order with what
                # the programs print that it starts.
                [sys.executable, "-P", "-u", "-c", code],
                cwd=directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__,
                pass_fds=(number,),
                timeout=_PATIENCE,
                check=False,
            )
        except OSError as error:
            raise SourceError(f"{directory}: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise SourceError(
                f"{location}: it has run for {_PATIENCE:g} seconds and does not end; does it"
                " start a server? Only settings belong in it"
            ) from None
        report.seek(0)
        data = report.read()
    try:
        return json.loads(data)
    except ValueError:
        raise SourceError(
            f"{location}: it ended the process that ran it (status {process.returncode})"
        ) from None


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict):
        if "!" in value:
            return Opaque(value["!"], value["text"], value.get("line", 0))
        return {key: _decoded(item) for key, item in value.items()}
    return value


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _problem(location: str, answer: Any) -> str:
    """Why a file cannot be run, and what to do."""
    problem = answer["problem"]
    line = problem["line"]
    where = f"{location}:{line}:" if line else f"{location}:"
    kind, text = problem["kind"], problem["text"]
    unset = _unset_at(answer, line)
    if unset:
        name = unset[0]
        return (
            f"{where} the variable {name} is not set here; set {name} as it is on the server, as in"
            f" {name}=... prefork migrate gunicorn ..."
        )
    if kind == "ModuleNotFoundError":
        module = problem["name"].partition(".")[0]
        return (
            f"{where} it cannot be run: there is no module {module!r} here; install it, or run this"
            " command in the directory and with the Python that gunicorn is started in"
        )
    if kind == "Ended":
        return f"{where} it cannot be run: it calls os._exit({text}), which would end gunicorn, too"
    if kind in ("SyntaxError", "NameError") and (hint := _hint_for(answer["file"])):
        return f"{location}: it is no Python file; {hint}"
    return (
        f"{where} it cannot be run: {kind}: {text}" if text else f"{where} it cannot be run: {kind}"
    )


def _hint_for(path: str) -> str:
    """What to do with a file of another kind; empty if it looks like none of them."""
    if path.endswith(".py"):
        return ""
    lines = [line.partition("#")[0].strip() for line in _text_of(path).splitlines()]
    if any(line.startswith(("[uwsgi]", "<uwsgi", "uwsgi:")) for line in lines):
        return "for a configuration of uWSGI use `prefork migrate uwsgi FILE`"
    if any("gunicorn" in line for line in lines):
        return "for a command use `prefork migrate gunicorn -- gunicorn ...`, with its arguments"
    return ""


def _unset_at(answer: Any, line: int) -> list[str]:
    """Variables that the failing statement read and that are not set."""
    return [
        source
        for file, at, source, unset in answer["reads"]
        if unset and file == answer["file"] and at == line
    ]
