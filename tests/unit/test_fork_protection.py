"""What a process that the application forks keeps of the worker's: nothing."""

import os
import signal
import subprocess
import sys

PROGRAM = """
import os, signal, sys
from prefork.worker.boot.fork_protection import protect_from_forks

signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
# Registered before, so that it runs in the child while the handler is still there.
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
for _ in range(int(sys.argv[1])):
    protect_from_forks([])
if not os.fork():
    os._exit(4)
mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
print(os.wait()[1], sorted(mask))
"""


def test_a_signal_that_comes_at_once_ends_a_forked_process() -> None:
    """A worker of a zygote has what the zygote has registered, too."""
    for times in ("1", "2"):
        run = [sys.executable, "-c", PROGRAM, times]
        shown = subprocess.run(run, capture_output=True, check=True, text=True).stdout
        assert shown == f"{int(signal.SIGTERM)} []\n"


def test_without_protection_the_handler_of_the_parent_runs() -> None:
    """The same program without it: what the test above looks at can happen."""
    run = [sys.executable, "-c", PROGRAM, "0"]
    shown = subprocess.run(run, capture_output=True, check=True, text=True).stdout
    assert os.waitstatus_to_exitcode(int(shown.split()[0])) == 3
