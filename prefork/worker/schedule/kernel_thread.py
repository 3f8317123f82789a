"""A thread of the server's own, whatever the application has done to `threading`."""

from collections.abc import Callable

from prefork.unpatched import Lock, _thread


class KernelThread:
    """A thread that runs no application code.

    `threading` does not know it, so it is not traced (threading.settrace), not waited for at the
    end, and no greenlet.  Its stack has the default size, also if the application has set another
    one (threading.stack_size).
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self.ident: int | None = None
        """The number of the thread, once it was started."""
        self._run = run
        self._ended = Lock()

    def start(self) -> None:
        """Starts the thread.  Raises RuntimeError if the kernel has no room for it."""
        size = _thread.stack_size(0)
        self._ended.acquire()
        try:
            self.ident = _thread.start_new_thread(self._run_to_end, ())
        finally:
            if size:
                _thread.stack_size(size)

    def join(self) -> None:
        """Waits until it has ended."""
        with self._ended:
            pass

    def _run_to_end(self) -> None:
        try:
            self._run()
        finally:
            self._ended.release()
