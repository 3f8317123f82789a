"""The terminal of `top`: alternate screen, single keys, and the old settings at the end."""

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from time import monotonic

from rich.console import Console
from rich.live import Live

from prefork.control import ControlClient, ControlError, ServerStatus
from prefork.top.model import Model, sample
from prefork.top.view import draw

INTERVAL = 1.0
"""Seconds between two samples."""

_KEYS = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "k": "up",
    "j": "down",
    "\r": "stack",
    "\n": "stack",
    "s": "sort",
    "+": "more",
    "-": "less",
    "x": "retire",
    "q": "quit",
    "\x1b": "back",
    "y": "yes",
    "n": "no",
}


class TopEnded(Exception):
    """The user has pressed q, or a signal has come."""


class Top:
    """Shows a server until the user ends it."""

    def __init__(self, client: ControlClient, status: Callable[[], ServerStatus]) -> None:
        """`status`: requests the status.  Raises ControlError if the server does not answer."""
        self._client = client
        self._status = status
        self._model = Model(sample(monotonic(), status()))
        self._confirmed: Callable[[], str] | None = None

    @property
    def model(self) -> Model:
        return self._model

    def refresh(self) -> None:
        """Takes a sample.  Raises ControlError."""
        self._model.add(sample(monotonic(), self._status()))

    def run(self, console: Console) -> None:
        """Runs until the user ends it.  Raises ControlError if the server has ended.

        The terminal is restored in both cases.
        """
        fd = sys.stdin.fileno()
        with _single_keys(fd), Live(console=console, screen=True, auto_refresh=False) as live:
            next_sample = monotonic() + INTERVAL
            while True:
                size = console.size
                live.update(draw(self._model, size.width, size.height), refresh=True)
                try:
                    for key in _read_keys(fd, max(next_sample - monotonic(), 0.0)):
                        self.press(key)
                except TopEnded:
                    return
                if monotonic() >= next_sample:
                    self.refresh()
                    next_sample = monotonic() + INTERVAL

    def press(self, key: str) -> None:
        """Carries out a key.  Raises TopEnded, and ControlError if the server has ended."""
        model = self._model
        model.message = ""
        if model.question:
            model.question, confirmed, self._confirmed = "", self._confirmed, None
            if key == "yes" and confirmed is not None:
                self._do(confirmed)
            return
        match key:
            case "quit":
                raise TopEnded
            case "up" | "down":
                model.move(-1 if key == "up" else 1)
            case "sort":
                model.reorder()
            case "stack" if model.stack is None:
                self._do(self._show_stack)
            case "stack" | "back":
                model.stack = None
            case "more":
                self._do(lambda: self._scale(1))
            case "less":
                self._do(lambda: self._scale(-1))
            case "retire":
                slot = model.selected
                model.question = f"replace the worker in slot {slot} by a new one?"
                self._confirmed = lambda: self._retire(slot)

    def _do(self, action: Callable[[], str]) -> None:
        """Carries out an action and shows its result, which may be an error of the server."""
        try:
            self._model.message = action()
        except ControlError as error:
            self._model.message = str(error)

    def _show_stack(self) -> str:
        self._model.stack = str(self._client.call("stack", slot=self._model.selected)["stack"])
        return ""

    def _scale(self, by: int) -> str:
        count = self._model.now.server.target + by
        if count < 1:
            return "there must be at least one worker"
        target = self._client.call("scale", count=count)["target"]
        self.refresh()
        return f"scaled to {target}, until the next reload"

    def _retire(self, slot: int) -> str:
        self._client.call("retire", slot=slot)
        return f"the worker in slot {slot} is retired once another is ready"


def _read_keys(fd: int, timeout: float) -> list[str]:
    """The names of the keys pressed within `timeout` seconds.  The end of the input ends `top`."""
    if not select.select([fd], [], [], timeout)[0]:
        return []
    data = os.read(fd, 1024).decode(errors="replace")
    if not data:
        raise TopEnded
    keys = []
    while data:
        found = next((key for key in _KEYS if data.startswith(key)), data[0])
        keys.append(_KEYS.get(found, ""))
        data = data[len(found) :]
    return keys


@contextlib.contextmanager
def _single_keys(fd: int) -> Iterator[None]:
    """Sets the terminal to single keys without echo, and restores it at the end.

    A signal that ends the process ends the block first.  Ctrl-Z does nothing: the shell would get a
    terminal with these settings.
    """

    def leave(*_: object) -> None:
        raise TopEnded

    before = termios.tcgetattr(fd)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [(number, signal.signal(number, leave)) for number in signals]
    handlers.append((signal.SIGTSTP, signal.signal(signal.SIGTSTP, signal.SIG_IGN)))
    try:
        tty.setcbreak(fd)
        yield
    except TopEnded:
        pass
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers:
            signal.signal(number, handler)
