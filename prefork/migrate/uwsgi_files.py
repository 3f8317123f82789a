"""uWSGI's configuration files, INI, YAML, XML and JSON, with their variables and conditions.

The result is a list of options in the order in which uWSGI reads them. Other sources, such as the
output of commands, are not read but reported.
"""

import json
import os
import pwd
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from prefork.migrate.python_file import SourceError

Lines = list[tuple[str, str]]
"""(name, value); an option without a value has the value "true"."""

_SECTION = re.compile(r"\[([^\]]+)\]")
_BEHIND = re.compile(r"\s[;#].*")
_PLACEHOLDER = re.compile(r"%\(([^)]+)\)|\$\(([^)]+)\)|%([dnpPscxXvhkuUgGVtTj%])")
_NAMED = re.compile(r"%\(([^)]+)\)")
_FORMULA = re.compile(r"\s*(%?\w+)\s*([-+*/])\s*(%?\w+)\s*")
_DIGITS = 18
INCLUDES = (
    *("ini", "include", "inherit", "config", "xml", "xmlconfig", "x"),
    *("yaml", "yml", "y", "json", "js", "j"),
)
_TESTS: dict[str, Callable[[str], bool]] = {
    "exists": os.path.exists,
    "file": os.path.isfile,
    "dir": os.path.isdir,
    "directory": os.path.isdir,
}
_DEPTH = 10
_LONGEST = 4096
"""Characters of a value in which placeholders are still looked for; each may be a longer text."""


@dataclass
class UwsgiFile:
    """The contents of a file, or of a command line with the files that it names."""

    options: Lines = field(default_factory=list)
    variables: dict[str, list[str]] = field(default_factory=dict)
    """The environment variables in an option's value, by the option's name."""
    remarks: list[str] = field(default_factory=list)
    """Decisions made while reading, a line each."""
    missing: list[str] = field(default_factory=list)
    """Parts that were not followed, a line each."""
    own_place: bool = False
    """Whether paths are derived from the path of the file itself, by %d or %p."""
    placeholders: set[str] = field(default_factory=set)
    """Options that other values refer to: they may be variables of the file."""


def read(
    options: Lines,
    files: Iterable[str],
    environ: Mapping[str, str],
    origins: Mapping[str, tuple[str, ...]] | None = None,
) -> UwsgiFile:
    """Reads options, and then files, each of which may be `FILE:SECTION`.

    origins: the environment variables in the value of an option, by its name.  Raises SourceError.
    """
    reader = _Reader(environ)
    for option, value in options:
        reader.line(option, value)
    for path in files:
        reader.load(path)
    if reader.open:
        reader.file.remarks.append("the last condition has no endif")
    reader.settle()
    for option, variables in (origins or {}).items():
        reader.file.variables.setdefault(option, []).extend(variables)
    return reader.file


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.file = UwsgiFile()
        self._path = ""
        """Empty while the options of a command line are read."""
        self._environ = environ
        self._sections: dict[str, Lines] = {}
        self._seen: dict[str, str] = {}
        """Of an option that stands twice the first value, which its placeholder has in uWSGI."""
        self._depth = 0
        self.open: list[bool] = []
        """For each condition around the current line, whether it is true."""

    def load(self, path: str) -> None:
        """Reads a file, or `FILE:SECTION` of one.  Raises SourceError."""
        name, colon, section = path.rpartition(":")
        if not colon or os.path.exists(path):
            name, section = path, "uwsgi"
        before = self._path, self._sections
        self._path, self._sections = name, _sections_of(name)
        try:
            self._section(section)
        finally:
            self._path, self._sections = before

    def _section(self, name: str) -> None:
        if name not in self._sections:
            found = ", ".join(f"[{each}]" for each in self._sections)
            raise SourceError(
                f"{self._path}: there is no section [{name}]"
                + (f"; it has {found}" if found else "; is it a configuration file of uWSGI?")
            )
        for option, raw in self._sections[name]:
            self.line(option, raw)

    def line(self, option: str, raw: str) -> None:
        if option in ("endif", "end-if"):
            if self.open:
                self.open.pop()
            return
        value = self._expanded(option, raw)
        if option.startswith("if-"):
            self.open.append(self._holds(option, value))
            return
        if not all(self.open):
            return
        if option in ("for", "endfor", "end-for", "for-glob", "for-times"):
            self.file.missing.append(f"{option} = {value}: loops are not followed")
        elif option in INCLUDES:
            self._include(option, value)
        elif option in ("set-placeholder", "set-ph", "set", "S"):
            name, _, text = value.partition("=")
            self._seen.setdefault(name, text)
        elif option != "print":
            self._seen.setdefault(option, value)
            self.file.options.append((option, value))

    def _include(self, option: str, value: str) -> None:
        """A file, or with `:SECTION` a section of the current file."""
        self._depth += 1
        try:
            if self._depth > _DEPTH:
                raise SourceError("files and sections include each other")
            if value.startswith(":"):
                self._section(value.removeprefix(":"))
            else:
                self.load(value)
        except SourceError as problem:
            self.file.missing.append(f"{option} = {value}: {problem}")
        finally:
            self._depth -= 1

    def _holds(self, option: str, value: str) -> bool:
        """Whether a condition is true on this machine."""
        kind = option.removeprefix("if-")
        negated = kind.startswith("not-")
        kind = kind.removeprefix("not-")
        name, equals, wanted = value.partition("=")
        if kind == "env":
            found = self._environ.get(name)
            holds = found is not None and (not equals or found == wanted)
        elif kind == "opt":
            holds = name in self._seen and (not equals or self._seen[name] == wanted)
        elif kind in _TESTS:
            holds = _TESTS[kind](value)
        else:
            holds = False
        holds = holds != negated
        self.file.remarks.append(
            f"{option} = {value}: this is true here, so the options under it are migrated"
            if holds
            else f"{option} = {value}: this is false here, so the options under it are left out"
        )
        return holds

    def _expanded(self, option: str, raw: str) -> str:
        found: list[str] = []

        def value_of(match: re.Match[str]) -> str:
            if match[1]:
                return self._named(match)
            if match[2]:
                found.append(match[2])
                if match[2] not in self._environ and all(self.open):
                    where = f"{self._path}: " if self._path else ""
                    raise SourceError(
                        f"{where}{option} = {raw}: the variable {match[2]} is not set here;"
                        f" set {match[2]} as it is on the server, as in {match[2]}=... prefork"
                        " migrate uwsgi ..."
                    )
                return self._environ.get(match[2], "")
            return self._magic(match[3])

        value = _PLACEHOLDER.sub(value_of, raw)
        if found:
            self.file.variables.setdefault(option, []).extend(found)
        return value

    def settle(self) -> None:
        """Replaces placeholders of options that stand further down, as uWSGI does at the end."""
        self.file.options = [(option, self._settled(value)) for option, value in self.file.options]

    def _settled(self, value: str) -> str:
        for _ in range(_DEPTH):  # what is put in may have placeholders, even its own
            if len(value) > _LONGEST:
                break
            value = _NAMED.sub(self._named, value)
        return value

    def _named(self, match: re.Match[str]) -> str:
        """The value of `%(OPTION)` or of a formula, or the text itself until there is one."""
        if formula := _FORMULA.fullmatch(match[1]):
            return self._computed(formula, match[0])
        self.file.placeholders.add(match[1])
        return self._seen.get(match[1], match[0])

    def _computed(self, formula: re.Match[str], text: str) -> str:
        """A formula with one operator, such as %(%k * 2); `text` itself if it has no numbers."""
        numbers = []
        for operand in (formula[1], formula[3]):
            if operand.startswith("%"):
                operand = self._magic(operand[1:])
            elif operand in self._seen:
                self.file.placeholders.add(operand)
                operand = self._seen[operand]
            if not operand.isdecimal() or len(operand) > _DIGITS:
                return text
            numbers.append(int(operand))
        first, second = numbers
        self.file.remarks.append(f"{text}: it was computed for this machine")
        match formula[2]:
            case "+":
                return str(first + second)
            case "-":
                return str(first - second)
            case "*":
                return str(first * second)
        return str(first // second) if second else text

    def _magic(self, letter: str) -> str:
        """The variables of one letter."""
        path = os.path.abspath(self._path)
        self.file.own_place = self.file.own_place or letter in "dpP"
        directory, name = os.path.split(path)
        stem, extension = os.path.splitext(name)
        account = pwd.getpwuid(os.getuid()) if letter in "uUgG" else None
        known = {
            "d": f"{directory}/",
            "c": os.path.basename(directory),
            "n": stem,
            "s": name,
            "p": path,
            "P": path,
            "e": extension.removeprefix("."),
            "h": socket.gethostname(),
            "k": str(os.cpu_count() or 1),
            "u": str(os.getuid()),
            "U": account.pw_name if account else "",
            "g": str(os.getgid()),
            "G": str(os.getgid()),
            "t": str(int(time.time())),
            "%": "%",
        }
        return known.get(letter, f"%{letter}")


def _sections_of(path: str) -> dict[str, Lines]:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceError(f"{path}: cannot be read: {reason}") from None
    if path.endswith((".yml", ".yaml")):
        return _yaml(text)
    if path.endswith(".xml"):
        return _xml(path, text)
    if path.endswith((".json", ".js")):
        return _json(path, text)
    return _ini(text)


def _ini(text: str) -> dict[str, Lines]:
    sections: dict[str, Lines] = {}
    lines: Lines | None = None
    for line in text.splitlines():
        plain = line.strip()
        if not plain or plain.startswith(("#", ";")):
            continue
        if match := _SECTION.match(plain):
            lines = sections.setdefault(match[1].strip(), [])
        elif lines is not None:
            name, equals, value = plain.partition("=")
            lines.append((name.strip(), value.strip() if equals else "true"))
    return sections


def _yaml(text: str) -> dict[str, Lines]:
    """The plain YAML that uWSGI reads: a mapping of names to values or lists of values."""
    sections: dict[str, Lines] = {}
    lines: Lines | None = None
    name = ""
    for line in text.splitlines():
        plain = _BEHIND.sub("", line).rstrip()
        if not plain.strip() or plain.lstrip().startswith("#") or plain.startswith("---"):
            continue
        item = plain.strip()
        if not plain[0].isspace():
            lines = sections.setdefault(item.partition(":")[0], [])
        elif lines is not None and item.startswith("- "):
            lines.append((name, _unquoted(item.removeprefix("- "))))
        elif lines is not None:
            name, _, value = item.partition(":")
            if value.strip():
                lines.append((name.strip(), _unquoted(value)))
    return sections


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _xml(path: str, text: str) -> dict[str, Lines]:
    if "<!ENTITY" in text:  # they may grow without bound
        raise SourceError(f"{path}: it declares entities, which are not read")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(f"{path}: it is no XML: {error}") from None
    roots: Iterable[ElementTree.Element] = [root] if root.tag == "uwsgi" else root.iter("uwsgi")
    lines = [(each.tag, (each.text or "").strip() or "true") for part in roots for each in part]
    return {"uwsgi": lines}


def _json(path: str, text: str) -> dict[str, Lines]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: it is no JSON: {error}") from None
    sections = found.items() if isinstance(found, dict) else ()
    return {
        section: [
            (name, value if isinstance(value, str) else json.dumps(value))
            for name, given in options.items()
            for value in (given if isinstance(given, list) else [given])
        ]
        for section, options in sections
        if isinstance(options, dict)
    }


def without_comment(value: str) -> str:
    """A value without the comment behind it, which uWSGI does not know as one."""
    return _BEHIND.sub("", value).strip()
