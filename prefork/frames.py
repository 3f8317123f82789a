"""Which frames of a stack are the application's, and which are ours or the interpreter's."""

import os

# Frames of the compiled build name their files as `setup.py` does.
_OURS = (os.path.dirname(__file__) + os.sep, "prefork/")
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def is_ours(filename: str) -> bool:
    """Whether a file is one of prefork's."""
    return filename.startswith(_OURS)


def imports(filename: str) -> bool:
    """Whether a file is a part of the import system, which stands between two modules."""
    return filename.startswith("<frozen importlib") or f"{os.sep}importlib{os.sep}" in filename


def is_the_applications(filename: str) -> bool:
    """Whether a file is the application's, or of a library that it uses."""
    if is_ours(filename) or filename.startswith("<frozen "):
        return False
    rest = filename.removeprefix(_STANDARD_LIBRARY)
    return rest == filename or any(part in f"{os.sep}{rest}" for part in _INSTALLED)
