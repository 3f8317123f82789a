"""A child that the application has forked: it never gets into the server's own work.

Held open in there, a connection would not end for its client.  And a child that comes back from
the application, as one does that forgets os._exit, must not answer a second time.
"""

import os
import sys
from typing import NoReturn


def leave(problem: BaseException | None) -> NoReturn:
    """Ends such a child as a script of its own would end: 0, the code of sys.exit, or 1."""
    status = 0 if problem is None else 1
    if isinstance(problem, SystemExit):
        code = problem.code
        if code is None or isinstance(code, int):
            status = (code or 0) & 0xFF
        else:
            print(code, file=sys.stderr)
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status)
