"""The client's side of the control socket."""

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from prefork import unix_socket
from prefork.control.control_messages import ANSWER_LIMIT, ControlError, encode

TIMEOUT = 10.0
"""Seconds in which a server answers a command that it can carry out at once."""

_PATIENCE = 1.0
"""Seconds of a stop after which it is reported what it waits for."""

_EXIT_TIMEOUT = 2.0
"""Seconds from the end of a server's connections until its process has ended."""


class ControlClient:
    """A connection to a running server; a context manager that closes it.

    timeout: seconds for connecting and for each line of an answer; None: no limit, for a command
        that takes as long as it has to.
    progress: called with each text of progress.

    Raises ControlError if no server listens there.
    """

    def __init__(
        self,
        path: Path,
        timeout: float | None = TIMEOUT,
        progress: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._path = path
        self._progress = progress
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout)
        try:
            self._sock.connect(os.fspath(path))
        except OSError as error:
            self._sock.close()
            raise ControlError(_unreachable(path, error)) from None
        self._lines = self._sock.makefile("rb")

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._sock.close()

    def call(self, command: str, **args: Any) -> dict[str, Any]:
        """Sends one command and returns the fields of its answer, without `v` and `ok`.

        Raises ControlError with the error in the answer, or if no answer came.
        """
        with self._control_errors():
            # A refusal that the server sent before it closed can still be read.
            with contextlib.suppress(BrokenPipeError):
                self._sock.sendall(encode({"command": command, "args": args}))
            answer = self._receive()
            while "progress" in answer:
                self._progress(str(answer["progress"]))
                answer = self._receive()
        if not answer.pop("ok", False):
            serving = answer.get("serving")
            raise ControlError(
                str(answer.get("error", "the server refused the command and gave no reason")),
                serving if isinstance(serving, int) else None,
            )
        del answer["v"]
        return answer

    def stop(self, waiting: Callable[[], object] = lambda: None) -> None:
        """Stops the server gracefully; returns when its process has ended.

        `waiting` is called each second until then.
        The connection ends a moment before the process does.  If a program goes on after its
        `prefork.serve()`, this returns two seconds after the connection has ended.  If the process
        can't be seen from here (in another pid namespace, or if pidfd_open(2) is denied), this
        returns when the connection has ended.

        Raises ControlError with the error in the answer, or at the timeout.
        """
        process = self._process()
        try:
            self.call("stop")
            with self._control_errors():
                while True:
                    while not select.select([self._sock], [], [], _PATIENCE)[0]:
                        waiting()
                    if not self._sock.recv(4096):
                        break
            if process is not None:
                # It becomes readable when all threads of the process have ended, pidfd_open(2).
                select.select([process], [], [], _EXIT_TIMEOUT)
        finally:
            if process is not None:
                os.close(process)

    def _process(self) -> int | None:
        """A pidfd of the process that listens on the socket, or None."""
        try:
            # ESRCH or EINVAL (pid 0) for a process of another pid namespace.
            return os.pidfd_open(unix_socket.credentials(self._sock).pid)
        except OSError:
            return None

    def _receive(self) -> dict[str, Any]:
        line = self._lines.readline(ANSWER_LIMIT + 1)
        if not line:
            raise ConnectionResetError
        message = msgspec.json.decode(line)
        if not isinstance(message, dict) or "v" not in message:
            raise ValueError
        return message

    @contextlib.contextmanager
    def _control_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            reason = "does not answer; is the master stopped or overloaded?"
        except OSError:
            reason = "closed the connection before it answered; see its log"
        except (ValueError, RecursionError):
            reason = "did not answer in the control protocol; is this a control socket?"
        else:
            return
        raise ControlError(f"the server at {self._path} {reason}")


def _unreachable(path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return f"no server is running at {path}: there is no such socket"
        case ConnectionRefusedError() if not path.is_socket():
            return f"no server is running at {path}: this is no socket"
        case ConnectionRefusedError():
            return f"no server is running at {path}: no process listens on this socket"
        case PermissionError():
            return f"no permission to control the server at {path}: it belongs to another user"
        case BlockingIOError():  # its listen queue is full, unix(7)
            return f"the server at {path} has too many clients; try again later"
    return f"cannot connect to {path}: {error.strerror or error}"
