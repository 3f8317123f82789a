"""The state of a migration from gunicorn, which the translations read and write."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefork.migrate.data_flow import FILE, Sources
from prefork.migrate.document import Document
from prefork.migrate.gunicorn_settings import SETTINGS
from prefork.migrate.python_file import Ran


@dataclass
class GunicornMove:
    """One migration."""

    document: Document
    values: Mapping[str, Any]
    """The settings that are set, converted as gunicorn does it."""
    ran: Ran
    environ: Mapping[str, str]
    origins: Mapping[str, tuple[str, ...]]
    """The environment variables in settings of the command line."""

    def get(self, name: str) -> Any:
        """The effective value in gunicorn: the one that was set, or the default."""
        value = self.values.get(name)
        return SETTINGS[name].default if value is None else value

    def addresses(self, name: str) -> list[str]:
        """A list of addresses. The defaults of gunicorn are a string with commas."""
        found = self.get(name)
        return found.split(",") if isinstance(found, str) else list(found)

    def sources(self, name: str) -> Sources:
        """What a value depends on."""
        if name in self.origins:
            return frozenset(self.origins[name])
        return self.ran.origin(name) if name in self.ran.names else frozenset()

    def path(self, name: str, path: str) -> str:
        """A path relative to the directory that gunicorn was started in.

        gunicorn itself takes it relative to its chdir.
        """
        if os.path.isabs(path):
            return self._near(name, path)
        return os.path.normpath(os.path.join(self.directory, path))

    @property
    def directory(self) -> str:
        """gunicorn's chdir, relative to the directory that it was started in."""
        return self._near("chdir", str(self.get("chdir") or "."))

    def _near(self, name: str, path: str) -> str:
        """Relative to the working directory, if the file derived the path from its own."""
        if FILE in self.sources(name) and os.path.isabs(path):
            near = os.path.relpath(path)
            if not near.startswith(".."):
                return near
        return path
