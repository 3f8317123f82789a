"""What the command line said, kept so that a reload can ask all of it again."""

import os
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field


def working_directory(environ: Mapping[str, str] = os.environ) -> str:
    """The working directory by the name that the shell has for it, where that is the same one.

    getcwd(3) follows symlinks: a server started in a release symlink would stay with that release
    for all its reloads.
    """
    named = environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    except OSError:
        pass
    return os.getcwd()


class Override(Struct, frozen=True):
    """A value from the command line; `origin` is the option's name, as shown to the user."""

    section: str
    key: str
    value: Any
    origin: str


class Source(Struct, frozen=True):
    """Where a configuration comes from.

    target: a `.toml` file, a directory (a static site), "module:callable" or "module:factory()",
    with `tcp` "module:function"; None where the overrides say it all. Of two overrides for a key
    the later one counts. Relative paths of the command line are relative to `directory`, which is
    the working directory of the moment when the Source was made.
    """

    target: str | None = None
    overrides: tuple[Override, ...] = ()
    tcp: bool = False
    directory: str = field(default_factory=working_directory)

    @property
    def file(self) -> str | None:
        """The configuration file's absolute path, if there is one."""
        if self.target is None or not self.target.endswith(".toml"):
            return None
        return os.path.normpath(os.path.join(self.directory, self.target))


def parse_set(text: str) -> Override:
    """`SECTION.KEY=VALUE`, as --set takes it; the value as `parse_value` reads it.

    Raises ValueError, with what was expected, if it is not of that form. Whether there is such a
    key, and whether it takes the value, is for `load` to say.
    """
    name, equals, value = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ValueError(f'expected SECTION.KEY=VALUE, as in workers.count=4, got "{text}"')
    return Override(section, key, parse_value(value.strip()), "--set")


def parse_value(text: str) -> Any:
    """The value as TOML where it parses as one ("4", "true", '["a"]'), else the text itself."""
    import tomllib

    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text
