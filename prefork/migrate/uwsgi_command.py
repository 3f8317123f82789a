"""The command line of uWSGI, as getopt_long(3) reads it there, and its variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prefork.migrate.start_line import (
    assignments,
    expanded,
    programs_before,
    shown_words,
    split_line,
    variables_in,
)
from prefork.migrate.uwsgi_files import INCLUDES, Lines, UwsgiFile, read
from prefork.migrate.uwsgi_options import FLAGS, NAMES, OPTIONAL

_PROGRAMS = ("uwsgi", "uwsgi-core", "uwsgi_python3", "pyuwsgi")
_PREFIX = "UWSGI_"
_FILES = (".ini", ".xml", ".yaml", ".yml", ".json", ".js")


@dataclass
class UwsgiLine:
    """What uWSGI would start with."""

    shown: str
    """The file, if there is nothing else, or the command line."""
    file: UwsgiFile
    before: list[str] = field(default_factory=list)
    """Words before uwsgi in the command line that prefork needs, too."""


def gather(words: Sequence[str], environ: Mapping[str, str]) -> UwsgiLine:
    """Reads a command line, or a file alone, and the variables UWSGI_*.

    The order is uWSGI's: variables, options, files; of several values the last counts.  Raises
    SourceError.
    """
    before: list[str] = []
    lone = len(words) == 1 and not words[0].startswith("-") and " " not in words[0]
    shown = words[0] if lone else f"`uwsgi {shown_words(words)}`"
    if not lone:
        before, words = split_line(words, _PROGRAMS)
        shown = f"`uwsgi {shown_words(words)}`"
    assigned = assignments(before)
    environ = {**environ, **assigned}
    options, plain = _parsed(words)
    origins: dict[str, tuple[str, ...]] = {}
    for index, (name, text) in enumerate(options):
        if variables := variables_in(text):
            origins[name] = (*origins.get(name, ()), *variables)
            options[index] = name, expanded(name, text, environ, "uwsgi")
    files: list[str] = []
    for word in plain:
        if application := _application(word):
            options += application
        else:
            files.append(word)
    said = _variables(environ)
    origins = {name: (variable,) for variable, name, _ in said} | origins
    options[:0] = [(name, text) for _, name, text in said]
    own = [item for item in assigned.items() if not _is_option(item[0])]
    options += [("env", f"{name}={text}") for name, text in own]
    return UwsgiLine(shown, read(options, files, environ, origins), programs_before(before))


def _parsed(words: Sequence[str]) -> tuple[Lines, list[str]]:
    """The options, and the words that are none.

    An option that is not known here takes the word behind it, unless that is an option.
    """
    options: Lines = []
    plain: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return options, plain + rest
        if not word.startswith("-") or word == "-":
            plain.append(word)
            continue
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
        else:  # flags may stand together, as in -MTp4
            letters = word.removeprefix("-")
            while letters[0] in FLAGS and letters[1:]:
                options.append((letters[0], "true"))
                letters = letters[1:]
            name, value = letters[0], letters[1:]
            equals = value
        if not equals:
            alone = name in FLAGS or name in OPTIONAL or not rest or rest[0].startswith("-")
            value = "true" if alone else rest.pop(0)
        options.append((name, value))
    return options, plain


def _application(word: str) -> Lines:
    """A file or a module with the application, as a word without an option; none for a file of
    options."""
    name, _, target = word.partition(":")
    options = [("callable", target)] if target else []
    if name.endswith((".py", ".wsgi")):
        return [("wsgi-file", name), *options]
    if options and "." in name and not name.endswith(_FILES):
        return [("module", name), *options]
    return []


def _variables(environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """The options in variables: each variable, its option and value."""
    return [
        (variable, _option_of(variable), text)
        for variable, text in environ.items()
        if _is_option(variable)
    ]


def _option_of(variable: str) -> str:
    return variable.removeprefix(_PREFIX).lower().replace("_", "-")


def _is_option(variable: str) -> bool:
    """Whether uWSGI takes a variable for an option: UWSGI_HTTP is --http."""
    name = _option_of(variable)
    return variable.startswith(_PREFIX) and (name in NAMES or name in INCLUDES)
