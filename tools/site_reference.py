"""The pages of the site that are made from the code: keys, commands, log events, metrics.

Keys come from the schema and the reference configuration, commands from their help, and what an
event or a metric means from the tables of docs/operations.md, which a test compares with the code.
"""

import inspect
import re
from collections.abc import Iterator

import click
from msgspec import Struct

from prefork.cli.group import group
from prefork.config import reference
from prefork.config.load import variable
from prefork.config.schema import SECTIONS
from tools.site_documents import ROOT

OPERATIONS = "docs/operations.md"


def text(plain: str) -> str:
    """Plain text in Markdown: only what stands in backticks is markup."""
    parts = re.split(r"(`[^`]+`)", plain)
    parts[::2] = [re.sub(r"([\\*_<>\[\]#|])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _purpose(section: str) -> str:
    sentence = (SECTIONS[section].__doc__ or "").partition(": ")[2]
    return sentence[:1].upper() + sentence[1:]


def configuration() -> str:
    """The page about the file as a whole, with a list of all keys."""
    lines = ["# The configuration file", ""]
    for paragraph in reference.preamble()[1:]:
        lines += (*_paragraph(paragraph), "")
    lines.append(
        "`prefork init site.toml` writes a file to begin with, and `prefork explain KEY` prints "
        "what stands here. Each section has a page:\n"
    )
    for section in SECTIONS:
        keys = [line.key for each in _explanations(section) for line in each.lines]
        links = ", ".join(f"[`{key.key}`]({section}.md#{key.key})" for key in keys)
        lines += (f"## [\\[{section}\\]]({section}.md) {{#{section}}}", "", text(_purpose(section)))
        lines += ("", f"{links}", "")
    return "\n".join(lines)


def section(name: str) -> str:
    """The page of one section: an anchor for each key."""
    lines = [f"# \\[{name}\\]", "", text(_purpose(name)), ""]
    for explanation in _explanations(name):
        for line in explanation.lines:
            key = line.key
            kind = "default" if line.is_default else "example"
            lines += (f"## {key.key} {{#{key.key}}}", "")
            lines += (f"{text(key.kind.expected)}; {kind}:", "")
            lines += ("```toml", f"[{name}]", line.line, "```", "")
        for paragraph in "\n".join(explanation.comment).split("\n\n"):
            lines += (*_paragraph(paragraph), "")
        names = ", ".join(f"`{variable(line.key.name)}`" for line in explanation.lines)
        lines += (f"Environment: {names}", "")
    return "\n".join(lines)


def _explanations(name: str) -> Iterator[reference.Explanation]:
    for explanation in reference.explanations():
        if explanation.lines[0].key.section == name:
            yield explanation


def _paragraph(paragraph: str) -> Iterator[str]:
    """A paragraph of the reference: running text, and what is indented as it stands."""
    running: list[str] = []
    listed: list[str] = []

    def flush() -> Iterator[str]:
        if running:
            yield text(" ".join(running))
        if listed:
            yield from ("", "```text", *inspect.cleandoc("\n".join(listed)).splitlines(), "```", "")
        running.clear()
        listed.clear()

    for line in paragraph.splitlines():
        if not line.startswith(" ") and listed:
            yield from flush()
        (listed if line.startswith(" ") else running).append(line)
    yield from flush()


def commands() -> str:
    """Each command with its help and options."""
    lines = ["# Commands", "", "Each command has `--help`, and prefork(1) has them all.", ""]
    context = click.Context(group, info_name="prefork")
    lines += _options(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        lines += _command(command, f"prefork {name}")
    return "\n".join(lines)


def _command(command: click.Command, name: str) -> Iterator[str]:
    anchor = name.removeprefix("prefork ").replace(" ", "-")
    if isinstance(command, click.Group):
        for inner, each in command.commands.items():
            yield from _command(each, f"{name} {inner}")
        return
    context = click.Context(command, info_name=name)
    yield from (f"## {name} {{#{anchor}}}", "", "```text", command.get_usage(context), "```", "")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield from ("```text", paragraph.removeprefix("\b\n"), "```", "")
        else:
            yield from (text(" ".join(paragraph.split())), "")
    yield from _options(command)


def _options(command: click.Command) -> Iterator[str]:
    options = [
        option
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
    ]
    if options:
        yield from ("| option | what it does |", "|---|---|")
    for option in options:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        if isinstance(option.type, click.Choice):
            value = f" `{{{','.join(map(str, option.type.choices))}}}`"
        else:
            value = "" if option.is_flag or option.count else f" {_metavar(option)}"
        yield f"| {names}{value} | {text(option.help or '')} |"
    yield ""


def _metavar(option: click.Option) -> str:
    return f"`{option.metavar or option.type.name.upper()}`"


class Row(Struct, frozen=True):
    """A row of a table of docs/operations.md: the names in its first cell, and the other cells."""

    names: tuple[str, ...]
    cells: tuple[str, ...]


def _table(chapter: str) -> tuple[str, list[Row]]:
    """The text before the first table of a chapter, and the rows of all of its tables."""
    whole = (ROOT / OPERATIONS).read_text(encoding="utf-8")
    body = whole.partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    rows = []
    for line in re.findall(r"^\| (?:`.*)\|$", body, re.MULTILINE):
        first, *others = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        rows.append(Row(tuple(re.findall(r"`([^`]+)`", first)), tuple(others)))
    return body.partition("\n|")[0].strip(), rows


def events() -> str:
    """The events of the log, with an anchor for each."""
    before, rows = _table("The log")
    lines = ["# Events of the log", "", before, ""]
    for row in rows:
        level, meaning, fields = row.cells
        for name in row.names:
            lines += (f"## {name} {{#{name.replace(' ', '-')}}}", "")
        lines += (f"*{level}*: {meaning}.", "")
        if fields:
            lines += (f"Fields: {fields}", "")
    return "\n".join(lines)


def metrics() -> str:
    """The metrics, with an anchor for each."""
    before, rows = _table("Metrics")
    lines = ["# Metrics", "", before, ""]
    for row in rows:
        kind, labels, meaning = row.cells
        for name in row.names:
            lines += (f"## {name} {{#{name}}}", "")
        lines += (f"*{kind}*: {meaning}." + (f" Labels: {labels}." if labels else ""), "")
    return "\n".join(lines)
