"""The state of a migration from a server for ASGI, which the translations read and write."""

from collections.abc import Mapping
from typing import Any

from prefork.migrate.asgi_command import AsgiLine
from prefork.migrate.document import Document


class AsgiMove:
    """One migration: the document, and the settings of the old server."""

    def __init__(self, document: Document, line: AsgiLine) -> None:
        self.document = document
        self.server = line.server
        self.values: Mapping[str, Any] = line.values
        self.line = line
        self.keys: dict[str, set[str]] = {}
        """The keys that a setting has become."""

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def set(self, name: str, key: str, value: Any, comment: str = "") -> None:
        """Sets a key that comes from the setting `name`."""
        self.document.set(key, value, comment)
        self.keys.setdefault(name, set()).add(key)

    def default(self, key: str, value: Any) -> None:
        """Sets a key to what the old server has by default."""
        self.document.set(key, value, f"{self.server}'s default.", fixed=True)

    @property
    def bound(self) -> list[str]:
        """The addresses of the new file, as far as they are known."""
        entry = self.document.settings.get("server.bind")
        return list(entry.value) if entry is not None else ["127.0.0.1:8000"]

    @property
    def has_unix(self) -> bool:
        """A proxy may connect by a Unix socket."""
        return any(text.startswith(("unix:", "fd:")) for text in self.bound)
