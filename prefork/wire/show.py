"""The output of the command: for a file, the traffic of a port, or a request of its own."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prefork.client import URL, ClientRequest
from prefork.quantity import quantity
from prefork.wire.capture import Capture
from prefork.wire.conversations import Conversations, Step
from prefork.wire.dissect import dissect
from prefork.wire.observe import observe
from prefork.wire.packet import Frame, WireError
from prefork.wire.pcap_files import Writer, read
from prefork.wire.render import call_line, heading, lines

__all__ = ["WireError", "WireOutcome", "file", "request", "traffic"]

Out = Callable[[str], object]
"""Called with each line."""


@dataclass(frozen=True)
class WireOutcome:
    """The last lines of the command."""

    summary: str
    error: str = ""
    """A failure after packets were shown."""


class _Screen:
    """Writes steps as lines, and a heading before the first step of a connection."""

    def __init__(self, out: Out) -> None:
        self.packets = 0
        self.connections = 0
        self._out = out

    def show(self, step: Step) -> None:
        self.packets += 1
        if step.connection.number > self.connections:
            self.connections = step.connection.number
            for line in heading(step.connection):
                self._out(line)
        for line in lines(step):
            self._out(line)

    def summary(self, lost: int = 0) -> str:
        text = f"{quantity(self.packets, 'packet')}, {quantity(self.connections, 'connection')}"
        return text + (f"; {lost} more were lost, since they came too fast" if lost else "")


def file(path: str, port: int | None, out: Out) -> WireOutcome:
    """Shows a capture file, or only one port of it.  Raises OSError, WireError."""
    screen, conversations = _Screen(out), Conversations(port)
    error = ""
    try:
        for frame in read(path):
            packet = dissect(frame)
            if packet is None or port not in (None, packet.source.port, packet.target.port):
                continue
            step = conversations.add(packet)
            if step is not None:
                screen.show(step)
    except WireError as problem:
        error = f"{path}: {problem}"
    return WireOutcome(screen.summary(), error)


def traffic(port: int, interface: str, path: str | None, out: Out, report: Out) -> WireOutcome:
    """Shows the packets of a port until KeyboardInterrupt.

    report: called with a line when the capture has begun.

    Raises OSError, WireError.
    """
    screen, conversations = _Screen(out), Conversations(port)
    with Capture(interface, port) as capture, _keeping(path) as keep:
        with contextlib.suppress(KeyboardInterrupt):
            report(f"capturing port {port} on {interface}; stop with Ctrl-C")
            for frame in capture.frames():
                packet = dissect(frame)
                step = None if packet is None else conversations.add(packet)
                if step is not None:
                    keep(frame)
                    screen.show(step)
        return WireOutcome(screen.summary(capture.lost()))


def request(url: URL, interface: str, path: str | None, out: Out) -> WireOutcome:
    """Makes a request, and shows its system calls and packets.  Raises OSError, WireError."""
    screen = _Screen(out)
    with Capture(interface, url.port) as capture, _keeping(path) as keep:
        seen = observe(ClientRequest(url), capture, keep)
        for event in seen.events():
            if isinstance(event, Step):
                screen.show(event)
            else:
                out(call_line(event))
        error = f"{url}: {seen.error}" if seen.error else ""
        return WireOutcome(
            screen.summary(capture.lost()), error or ("interrupted" * seen.interrupted)
        )


@contextlib.contextmanager
def _keeping(path: str | None) -> Iterator[Callable[[Frame], None]]:
    if path is None:
        yield lambda _: None
    else:
        with Writer(path) as writer:
            yield writer.write
