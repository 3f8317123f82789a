"""An application that ignores SIGCHLD when it is imported: the kernel reaps its children."""

import signal

from tests.apps.basic import app

signal.signal(signal.SIGCHLD, signal.SIG_IGN)

__all__ = ["app"]
