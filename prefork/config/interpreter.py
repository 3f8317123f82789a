"""What is known against an interpreter, for `prefork check`."""

import sys


def warnings(version: tuple[int, int, int] = sys.version_info[:3]) -> list[str]:
    """Sentences that each name a problem of this version of CPython and what to do."""
    if (3, 14, 0) <= version < (3, 14, 5):
        name = ".".join(map(str, version))
        return [
            f"Python {name} has the incremental garbage collector that 3.14.5 took back: workers "
            "may need much more memory; use 3.14.5 or later"
        ]
    return []
