"""The terminal of `top`: the alternate screen, keys one by one, and everything as it was after."""

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
from prefork.top.model import Model, look
from prefork.top.view import draw

EVERY = 1.0
"""Seconds between two looks."""

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
    """The user has seen enough, or a signal says so."""


class Top:
    """Shows a server until it is told to stop."""

    def __init__(self, client: ControlClient, status: Callable[[], ServerStatus]) -> None:
        """`status` asks the server.  Raises ControlError where it does not answer."""
        self._client = client
        self._status = status
        self._model = Model(look(monotonic(), status()))
        self._asked: Callable[[], str] | None = None

    @property
    def model(self) -> Model:
        return self._model

    def see(self) -> None:
        """Looks once more.  Raises ControlError."""
        self._model.see(look(monotonic(), self._status()))

    def run(self, console: Console) -> None:
        """Raises ControlError when the server is gone; the terminal is then as it was."""
        fd = sys.stdin.fileno()
        with _keys_one_by_one(fd), Live(console=console, screen=True, auto_refresh=False) as live:
            next_look = monotonic() + EVERY
            while True:
                size = console.size
                live.update(draw(self._model, size.width, size.height), refresh=True)
                try:
                    for key in _read_keys(fd, max(next_look - monotonic(), 0.0)):
                        self.press(key)
                except TopEnded:
                    return
                if monotonic() >= next_look:
                    self.see()
                    next_look = monotonic() + EVERY

    def press(self, key: str) -> None:
        """Does what a key is for.  Raises Quit, and ControlError when the server is gone."""
        model = self._model
        model.message = ""
        if model.question:
            model.question, asked, self._asked = "", self._asked, None
            if key == "yes" and asked is not None:
                self._do(asked)
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
                self._asked = lambda: self._retire(slot)

    def _do(self, what: Callable[[], str]) -> None:
        """Shows what came of it; an error of the server's is no reason to end."""
        try:
            self._model.message = what()
        except ControlError as error:
            self._model.message = str(error)

    def _show_stack(self) -> str:
        self._model.stack = str(self._client.call("stack", slot=self._model.selected)["stack"])
        return ""

    def _scale(self, by: int) -> str:
        count = self._model.now.server.target + by
        if count < 1:
            return "one worker is the least"
        target = self._client.call("scale", count=count)["target"]
        self.see()
        return f"scaled to {target}, until the next reload"

    def _retire(self, slot: int) -> str:
        self._client.call("retire", slot=slot)
        return f"the worker in slot {slot} leaves once another is ready"


def _read_keys(fd: int, patience: float) -> list[str]:
    """The names of what was pressed within so many seconds; an end of the input is a quit."""
    if not select.select([fd], [], [], patience)[0]:
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
def _keys_one_by_one(fd: int) -> Iterator[None]:
    """Without echo and without waiting for a line; as it was before at the end.

    A signal that would end the process ends the block first.  Ctrl-Z does nothing: a shell would
    be left with our screen.
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
