"""`prefork --version`: the versions of everything, for bug reports."""

import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata

from prefork import __version__
from prefork.compiled import BUILD

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)['\"]")


def lines() -> list[str]:
    """The versions of prefork, Python and the kernel, the build, and each library, one a line."""
    system = os.uname()
    return [
        f"prefork {__version__}",
        f"Python {platform.python_version()} ({platform.python_implementation()})",
        f"{system.sysname} {system.release} {system.machine}, {' '.join(platform.libc_ver())}",
        f"Build: {BUILD}",
        *_libraries(),
    ]


def _libraries() -> Iterator[str]:
    """The libraries that prefork requires; none if it is not installed, as in a checkout."""
    try:
        required = metadata.requires("prefork") or []
    except metadata.PackageNotFoundError:
        return
    for requirement in required:
        name, extra = _NAME.match(requirement), _EXTRA.search(requirement)
        if name is None or (extra is not None and extra[1] == "test"):
            continue
        of_extra = f" (extra {extra[1]})" if extra is not None else ""
        try:
            yield f"{name[0]} {metadata.version(name[0])}{of_extra}"
        except metadata.PackageNotFoundError:
            yield f"{name[0]} not installed{of_extra}"
