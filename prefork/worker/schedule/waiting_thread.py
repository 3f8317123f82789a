"""A thread that a worker creates when it boots, and that begins its work when the worker serves."""

import os

from prefork.unpatched import Lock
from prefork.worker.schedule.accept import start_without_signals
from prefork.worker.schedule.kernel_thread import KernelThread
from prefork.worker.worker_failure import report_worker_failure


class WaitingThread:
    """To be derived from: `_watch` is what it does.  An exception there ends the worker."""

    def __init__(self) -> None:
        self._stopped = False
        """It is to end: looked at after each wait."""
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: KernelThread | None = None
        self._started = Lock()
        self._started.acquire()

    def create(self) -> None:
        """Creates the thread, which waits for `start` (main thread).

        Raises RuntimeError if the kernel has no room for another thread."""
        thread = KernelThread(self._run)
        start_without_signals(thread)
        self._thread = thread

    def start(self) -> None:
        """Begins to work (main thread)."""
        self._started.release()

    def wake(self) -> None:
        """Makes `_wakeup` readable (any thread, or a signal handler)."""
        os.eventfd_write(self._wakeup, 1)

    def stop(self) -> None:
        """Ends it for good, also if it was never started."""
        self._stopped = True
        if self._thread is not None:
            if self._started.locked():  # as it is again once the thread works
                self._started.release()
            self.wake()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        self._started.acquire()
        try:
            self._watch()
        except BaseException as problem:
            report_worker_failure(problem)
            os._exit(1)

    def _watch(self) -> None:
        raise NotImplementedError
