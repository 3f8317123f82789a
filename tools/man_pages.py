"""The man pages: prefork(1) from the commands, prefork.toml(5) from the reference configuration.

The markup is that of man(7), as groff and mandoc read it."""

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import click

from prefork import __version__
from prefork.cli.group import group
from prefork.config import reference
from prefork.config.schema import SECTIONS

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"

_DESCRIPTION = """\
prefork is a server for WSGI and ASGI applications, static files and TCP handlers. A master binds
and listens once and forks workers that accept connections on the shared sockets. It watches,
replaces and signals them. No connection is lost on reload, upgrade, scale-down, stop or the crash
of another worker."""

_FILE = """\
A file in TOML says what prefork serves, and how. Each key below is shown with the values that it
takes, and with its default or, if there is no such value, an example. prefork init writes a file to
begin with, and prefork explain prints what one key means."""

_ENVIRONMENT = {
    "PORT": "The default of server.bind is 0.0.0.0:PORT.",
    "WEB_CONCURRENCY": "The default of workers.count.",
    "PREFORK_RUN_DIR": "The directory of control sockets, in place of /run/prefork.",
}

_FILES = {
    "prefork.toml": "A configuration, under any name that ends with .toml; see prefork.toml(5).",
    "/run/prefork/NAME.sock": "The control socket of a server of this name.",
}

_STATUS = {
    "0": "The command is done; a server has stopped as ordered.",
    "1": "The command failed; the reason is on the standard error.",
    "2": "The command line is wrong.",
    "3": "The application cannot be imported (prefork serve).",
}


def escape(text: str) -> str:
    """The text as it is, in roff: no escape, no control line, and hyphens that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def bold(text: str) -> str:
    return f"\\fB{escape(text)}\\fP"


def commands() -> str:
    """prefork(1)."""
    return _page(_commands())


def configuration() -> str:
    """prefork.toml(5)."""
    return _page(_configuration())


def _page(lines: Iterator[str]) -> str:
    return "\n".join(['.\\" Made by tools/man_pages.py: do not edit.', *lines, ""])


def _title(name: str, section: int, what: str) -> Iterator[str]:
    yield f'.TH "{name.upper()}" {section} "" "prefork {__version__}" "prefork"'
    yield ".nh"
    yield ".SH NAME"
    yield f"{escape(name)} \\- {escape(what)}"


def _commands() -> Iterator[str]:
    yield from _title("prefork", 1, "a pre-fork server with a supervisor")
    yield ".SH SYNOPSIS"
    yield f"{bold('prefork')} \\fICOMMAND\\fP [\\fIOPTION\\fP]... [\\fIARGUMENT\\fP]..."
    yield ".SH DESCRIPTION"
    yield escape(_DESCRIPTION)
    yield ".SH OPTIONS"
    for option in group.params:
        yield from _option(option)
    yield ".SH COMMANDS"
    context = click.Context(group, info_name="prefork")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from _command(command, f"prefork {name}")
    yield ".SH SIGNALS"
    yield "The master obeys these signals:"
    for signal, meaning in _signals():
        yield from (".TP", bold(signal), escape(meaning))
    for title, entries in (
        ("ENVIRONMENT", _ENVIRONMENT),
        ("FILES", _FILES),
        ("EXIT STATUS", _STATUS),
    ):
        yield f".SH {title}"
        for name, meaning in entries.items():
            yield from (".TP", bold(name), escape(meaning))
    yield ".SH SEE ALSO"
    yield "\\fBprefork.toml\\fP(5)"


def _command(command: click.Command, name: str) -> Iterator[str]:
    """A command with its help; a group with each of its commands."""
    if isinstance(command, click.Group):
        for inner, each in command.commands.items():
            yield from _command(each, f"{name} {inner}")
        return
    yield f".SS {bold(name)} {escape(' '.join(_usage(command)))}"
    yield from _help(command.help or "")
    for option in command.params:
        yield from _option(option)


def _usage(command: click.Command) -> Iterator[str]:
    if any(isinstance(param, click.Option) for param in command.params):
        yield "[OPTION]..."
    for param in command.params:
        if isinstance(param, click.Argument):
            name = param.metavar or (param.name or "").upper()
            yield name if param.required or name.startswith("[") else f"[{name}]"


def _help(text: str) -> Iterator[str]:
    """The paragraphs of a command's help; click takes one after "\\b" as it is."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        yield ".PP"
        if paragraph.startswith("\b\n"):
            yield from (".nf", escape(paragraph.removeprefix("\b\n")), ".fi")
        else:
            yield escape(" ".join(paragraph.split()))


def _option(param: click.Parameter) -> Iterator[str]:
    if not isinstance(param, click.Option) or param.hidden:
        return
    names = ", ".join(map(bold, [*param.opts, *param.secondary_opts]))
    value = "" if param.is_flag or param.count else f" \\fI{escape(_value(param))}\\fP"
    yield from (".TP", names + value, escape(param.help or ""))


def _value(param: click.Option) -> str:
    if isinstance(param.type, click.Choice):
        return "|".join(map(str, param.type.choices))
    return param.metavar or param.type.name.upper()


def _signals() -> Iterator[tuple[str, str]]:
    """Signal and meaning, by the table of docs/operations.md."""
    chapter = OPERATIONS.read_text(encoding="utf-8").partition("## Commands and signals\n")[2]
    for command, signal, meaning in re.findall(
        r"^\| (.*?) ?\| ([A-Z0-9, ]+) \| (.+) \|$", chapter.partition("\n## ")[0], re.MULTILINE
    ):
        plain = meaning.replace("`", "")
        yield signal, f"{plain} (as {command.replace('`', '')})" if command else plain


def _configuration() -> Iterator[str]:
    yield from _title("prefork.toml", 5, "configuration of prefork")
    yield ".SH DESCRIPTION"
    yield escape(_FILE)
    for paragraph in reference.preamble()[2:]:
        if paragraph.startswith("  "):
            yield from (".PP", ".nf", escape(paragraph), ".fi")
        else:
            yield from (".PP", escape(" ".join(paragraph.split())))
    explanations = list(reference.explanations())
    for section, struct in SECTIONS.items():
        yield f".SH [{section}]"
        yield escape((struct.__doc__ or "").partition(": ")[2].capitalize())
        for explanation in explanations:
            if explanation.lines[0].key.section == section:
                yield from _keys(explanation)
    yield ".SH SEE ALSO"
    yield "\\fBprefork\\fP(1)"


def _keys(explanation: reference.Explanation) -> Iterator[str]:
    for number, line in enumerate(explanation.lines):
        kind = "default" if line.is_default else "example"
        yield ".TP" if number == 0 else ".TQ"
        yield f"{bold(line.key.key)}: {escape(f'{line.key.kind.expected} ({kind}: {line.line})')}"
    first, *others = explanation.paragraphs()
    yield escape(first)
    for is_list, paragraphs in groupby(others, lambda paragraph: paragraph.startswith(" ")):
        lines = map(escape, paragraphs)
        if is_list:
            yield from (".nf", *lines, ".fi")
        else:
            for paragraph in lines:
                yield from (".IP", paragraph)
