"""What the translations of gunicorn's settings work with."""

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
    """What was set, as gunicorn holds it."""
    ran: Ran
    environ: Mapping[str, str]
    origins: Mapping[str, tuple[str, ...]]
    """Variables that settings of the command line name."""

    def get(self, name: str) -> Any:
        """What holds in gunicorn: the value that was set, or the default."""
        value = self.values.get(name)
        return SETTINGS[name].default if value is None else value

    def addresses(self, name: str) -> list[str]:
        """A list of addresses; gunicorn's defaults of these are one string."""
        found = self.get(name)
        return found.split(",") if isinstance(found, str) else list(found)

    def sources(self, name: str) -> Sources:
        """What a value depends on."""
        if name in self.origins:
            return frozenset(self.origins[name])
        return self.ran.origin(name) if name in self.ran.names else frozenset()

    def path(self, name: str, path: str) -> str:
        """A path as the new file has it: relative to the directory that gunicorn was started in,
        where gunicorn takes it relative to its chdir."""
        if os.path.isabs(path):
            return self._near(name, path)
        return os.path.normpath(os.path.join(self.directory, path))

    @property
    def directory(self) -> str:
        """gunicorn's chdir, relative to the directory that it was started in."""
        return self._near("chdir", str(self.get("chdir") or "."))

    def _near(self, name: str, path: str) -> str:
        """Relative to the working directory, if the file has it from its own place."""
        if FILE in self.sources(name) and os.path.isabs(path):
            near = os.path.relpath(path)
            if not near.startswith(".."):
                return near
        return path
