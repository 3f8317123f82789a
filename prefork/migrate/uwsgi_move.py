"""What the translations of uWSGI's options work with."""

import os
import re

from prefork.config.values import nearest
from prefork.migrate.document import Document
from prefork.migrate.python_file import SourceError
from prefork.migrate.secrets import is_secret
from prefork.migrate.uwsgi_files import UwsgiFile, without_comment
from prefork.migrate.uwsgi_options import NAMES

FALSE = ("false", "off", "no", "0")
_NUMBER = re.compile(r"\s*(\d{1,18})")


class UwsgiMove:
    """One migration: the options of a file, by their main names."""

    def __init__(self, document: Document, file: UwsgiFile) -> None:
        self.document = document
        self.file = file
        self.values: dict[str, list[str]] = {}
        self.called: dict[str, str] = {}
        """What the file calls an option that has several names."""
        for name, value in file.options:
            self.note(name, value)

    def note(self, name: str, value: str) -> None:
        plain = without_comment(value)
        if plain != value:
            value = plain
            self.document.changed(
                f"{name} = {value}",
                "uWSGI takes the comment behind a value for a part of the value",
            )
        main = NAMES.get(name)
        if main is not None:
            self.values.setdefault(main, []).append(value)
            self.called.setdefault(main, name)
        elif name not in self.file.placeholders:
            near = nearest(name, NAMES, cutoff=0.85)
            hint = f"did you mean {near[0]}?" if near else "it is not known here"
            shown = name if is_secret(name, value) else f"{name} = {value}"
            self.document.lost(shown, hint)

    def text(self, name: str) -> str:
        """The last value; empty if there is none."""
        return self.values.get(name, [""])[-1]

    def number(self, name: str) -> int | None:
        """As atoi(3) reads it; None if it is not set. uWSGI takes what is no number for 0."""
        if name not in self.values:
            return None
        number = leading_number(self.text(name))
        if number is None and self.text(name) not in ("", *FALSE):
            raise SourceError(f"{name} = {self.text(name)}: expected a number")
        return number or 0

    def is_set(self, name: str) -> bool:
        return name in self.values and self.text(name).lower() not in FALSE

    def path(self, path: str) -> str:
        """Relative to the directory that uWSGI was started in."""
        return self.near(os.path.join(self.text("chdir") or ".", path))

    def near(self, path: str) -> str:
        """Relative to the working directory, if the file has its paths from its own place."""
        if self.file.own_place and os.path.isabs(path):
            near = os.path.relpath(path)
            if not near.startswith(".."):
                return near
        return os.path.normpath(path)


def leading_number(text: str) -> int | None:
    """As atoi(3) reads it; None if there is no number at the beginning."""
    match = _NUMBER.match(text)
    return int(match[1]) if match else None
