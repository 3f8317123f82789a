"""A shell on a pseudo-terminal, and the server that is started in it."""

import contextlib
import fcntl
import http.client
import json
import os
import select
import shlex
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.commands import ROOT, prefork_command
from tests.support.waiting import PATIENCE, until


def _begin_session() -> None:
    """In the child: takes the terminal, and SIGHUP as a login shell has it.  Below nohup(1), that
    is ignored, and a shell keeps what it has found ignored."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Terminal:
    """bash with job control, as in a window; what it shows is in `shown`."""

    def __init__(self) -> None:
        self._fd, slave = os.openpty()
        self._closed, self._close = os.pipe()
        self.shown = b""
        self.shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PS1": "> "},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_begin_session,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # Not in read(2): that would keep the terminal open.
        while (ready := select.select([self._fd, self._closed], [], [])[0]) == [self._fd]:
            try:
                self.shown += os.read(ready[0], 4096)
            except OSError:  # EIO: no process has the terminal open
                return

    def type(self, line: str) -> None:
        os.write(self._fd, f"{line}\n".encode())

    def close(self) -> None:
        """Closes the window: the kernel hangs the terminal up."""
        if self._fd >= 0:
            os.close(self._close)
            self._reader.join()
            os.close(self._fd)
            os.close(self._closed)
            self._fd = -1


class TerminalServer:
    """A server that a shell has started; its log is a file of JSON lines."""

    def __init__(self, tmp: Path) -> None:
        self.log = tmp / "log"
        self.control = tmp / "control.sock"

    def command(self, *args: str, app: str = "tests.apps.terminal:app") -> str:
        """The command line."""
        return shlex.join(
            prefork_command(
                *("serve", app, "--bind", "127.0.0.1:0", "--workers", "1"),
                *("--set", f"log.error={self.log}", "--set", "log.format=json"),
                *("--set", f"control.path={self.control}", *args),
            )
        )

    def find(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return [
            event for event in events if event["event"] == name and fields.items() <= event.items()
        ]

    def wait(self, name: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        return until(lambda: self.find(name, **fields)[count - 1 :], f"{name} {fields}")[0]

    @property
    def pid(self) -> int:
        found: int = self.wait("listening")["pid"]
        return found

    def get(self, path: str = "/") -> tuple[int, str]:
        host, _, port = self.wait("listening")["address"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, AssertionError):
            if self.find("listening") and not self.find("stopped"):
                os.kill(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    window = Terminal()
    try:
        yield window
    finally:
        window.close()
        window.shell.kill()
        window.shell.wait()
        print(window.shown.decode(errors="replace"))
