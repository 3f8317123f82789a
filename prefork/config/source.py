"""The values of the command line, kept so that a reload can read everything again."""

import os
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field


def working_directory(environ: Mapping[str, str] = os.environ) -> str:
    """The working directory by the name in PWD, if that is the same directory.

    getcwd(3) resolves symlinks: a server started in a "current" link to a release would then keep
    that release in all its reloads.  Of a directory that was removed it is the name that it had.
    """
    named = environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    except OSError:
        pass
    try:
        return os.getcwd()
    except OSError:  # it was removed, or a directory above may not be searched
        return _former_name() or named or "/"


def _former_name() -> str:
    """The name of the working directory in proc(5), which is known when it is gone, or ""."""
    try:
        return os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
    except OSError:
        return ""


class Override(Struct, frozen=True):
    """A value from the command line; `origin` is the name of the option, for the user."""

    section: str
    key: str
    value: Any
    origin: str


class Source(Struct, frozen=True):
    """Where a configuration comes from.

    target: a `.toml` file, a directory (a static site), "module:callable", "module:factory()" or
        "module", with `tcp` "module:function"; None if the overrides set everything.
    overrides: of two for the same key the later one counts.
    directory: relative paths of the command line are relative to it; by default the working
        directory at the time when the Source was made.
    """

    target: str | None = None
    overrides: tuple[Override, ...] = ()
    tcp: bool = False
    directory: str = field(default_factory=working_directory)

    @property
    def file(self) -> str | None:
        """The absolute path of the configuration file, if there is one."""
        if self.target is None or not self.target.endswith(".toml"):
            return None
        return os.path.normpath(os.path.join(self.directory, self.target))


def parse_set(text: str) -> Override:
    """The override of `SECTION.KEY=VALUE`, the argument of --set; `parse_value` reads the value.

    Raises ValueError if the text is not of that form. `load` checks the key and the value.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ValueError(f'expected SECTION.KEY=VALUE, as in workers.count=4, got "{text}"')
    return Override(section, key, parse_value(value.strip()), "--set")


def parse_value(text: str) -> Any:
    """The TOML value of the text ("4", "true", '["a"]'), or the text itself if it is not TOML."""
    import tomllib

    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text
