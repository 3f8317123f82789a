"""The end of a child that the application has forked: it never runs the server's own code.

A connection that the child holds open would not end for its client.  And a child that returns from
the application, because it does not call os._exit, must not answer a second time.
"""

import os
import sys
from typing import NoReturn


def exit_child(problem: BaseException | None) -> NoReturn:
    """Exits as a script of its own would: with 0, with the code of sys.exit, or with 1.

    `problem`: the exception that has ended the application's call, if one has.
    """
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
