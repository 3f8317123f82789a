"""The server's descriptors in a worker or a zygote, which an application may close by mistake."""

from collections.abc import Iterable

from prefork.apps.application_loader import LoadError
from prefork.unpatched import os

Identity = tuple[int, int, int]


class DescriptorsClosedError(LoadError):
    """The application has closed descriptors of the server; one line."""


class OwnDescriptors:
    """Descriptors of the server, as they are before the application is imported."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._identities = {fd: _identity(fd) for fd in numbers}

    def require(self) -> None:
        """Raises DescriptorsClosedError if one was closed, or its number is another file's now."""
        gone = [fd for fd, identity in self._identities.items() if _identity(fd) != identity]
        if gone:
            raise DescriptorsClosedError(
                "descriptors of the server were closed when the application was imported"
                f" ({len(gone)} of {len(self._identities)}), by os.closerange(), by a library that"
                " makes a daemon, or since a number was closed twice; remove that call"
            )

    def is_open(self, fd: int) -> bool:
        """Whether a descriptor is what it was."""
        return _identity(fd) == self._identities.get(fd)


def _identity(fd: int) -> Identity | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mode
