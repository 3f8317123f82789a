"""One request during a capture: its system calls, and the packets of its connections."""

import contextlib
import os
import queue
import socket
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter

from prefork.client import ClientError, ClientRequest, HttpClient, SystemCall
from prefork.wire.capture import Capture, CaptureError
from prefork.wire.conversations import Conversations, Step
from prefork.wire.dissect import dissect
from prefork.wire.packet import Endpoint, Flags, Frame, Packet

CLOSE_TIMEOUT = 3.0
"""Seconds after our close() for the FIN of the server; the lingering of prefork takes 2."""

_BATCH = 1000
"""The most frames of a long response that wait for dissection."""

_WAITING = ("connect", "do_handshake", "recv", "poll")
_NOT_JUST_ACK = Flags.SYN | Flags.FIN | Flags.RST

Event = SystemCall | Step


@dataclass
class Observation:
    """The system calls and packets of a request."""

    calls: list[SystemCall] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    error: ClientError | None = None
    """The failure of the request, if it failed."""
    interrupted: bool = False

    def events(self) -> list[Event]:
        """Each call, followed by the packets that it sent or waited for, and their acknowledgments.

        A packet of the server belongs to the call that reads it, even if that call began later.  A
        packet that no call reads, such as the FIN after our shutdown(), belongs to the call before.
        The times of calls and packets are of the same clock.  A step of that clock would show in
        the order, except for a SYN: only connect() sends one.
        """
        starts = [_start(call) for call in self.calls]
        events: list[tuple[int, Event]] = list(enumerate(self.calls))
        number = 0
        for step in self.steps:
            if step.packet.length or step.packet.flags & _NOT_JUST_ACK:
                if step.from_client:
                    sender = bisect_right(starts, step.packet.at) - 1
                    if step.packet.flags & Flags.SYN:
                        sender = self._connect(sender)
                    number = max(number, sender)
                else:
                    number = self._reader(number, step.packet.at)
            events.append((number, step))
        return [event for _, event in sorted(events, key=itemgetter(0))]

    def _connect(self, number: int) -> int:
        """The last connect() up to that call, or that call itself if there is none."""
        before = (one for one in range(number, -1, -1) if self.calls[one].name == "connect")
        return next(before, number)

    def _reader(self, number: int, at: int) -> int:
        """The first call from `number` on that waited and ended after that time, or `number`."""
        for later in range(number, len(self.calls)):
            call = self.calls[later]
            if call.name in _WAITING and _end(call) >= at:
                return later
        return number


def _start(call: SystemCall) -> int:
    return int(call.at * 1e9)


def _end(call: SystemCall) -> int:
    # One microsecond is added: as a float, the start is inexact by some hundred nanoseconds.
    return int((call.at + call.seconds) * 1e9) + 1000


def observe(
    request: ClientRequest, capture: Capture, keep: Callable[[Frame], None] = lambda _: None
) -> Observation:
    """Makes a request and waits until its connections have ended, at most CLOSE_TIMEOUT seconds.

    keep: called with each frame of those connections.

    An interrupt (KeyboardInterrupt) closes the connection and ends the waiting.  Raises
    CaptureError if the interface disappears.
    """
    session = _Session(request.url.port, keep)
    # Frames are taken from the buffer of the kernel at once and dissected later: that work would
    # slow the client down, and show in its times.
    collector = threading.Thread(target=_collect, args=(capture, session.frames), daemon=True)
    collector.start()
    try:
        session.ask(request)
        session.wait()
    except KeyboardInterrupt:
        session.observation.interrupted = True
    finally:
        capture.stop()
        collector.join()
    session.dissect_all()
    return session.observation


def _collect(capture: Capture, frames: "queue.SimpleQueue[Frame | CaptureError]") -> None:
    try:
        for frame in capture.frames():
            frames.put(frame)
    except CaptureError as error:
        frames.put(error)


class _Session:
    def __init__(self, port: int, keep: Callable[[Frame], None]) -> None:
        self.frames: queue.SimpleQueue[Frame | CaptureError] = queue.SimpleQueue()
        self.observation = Observation()
        self._conversations = Conversations(port)
        self._keep = keep
        self._ours: set[Endpoint] = set()
        self._expected: set[Endpoint] = set()
        """Our ends of the connections that were made."""
        self._ended: set[Endpoint] = set()
        self._failed: list[tuple[int, int]] = []
        """When connect() failed, from and to: its socket no longer says where it was bound."""

    def ask(self, request: ClientRequest) -> None:
        try:
            with HttpClient(trace=self._note) as client:
                for _ in client.request(request):
                    if self.frames.qsize() > _BATCH:
                        self.dissect_all()
        except ClientError as error:
            self.observation.error = error

    def wait(self) -> None:
        deadline = time.monotonic() + CLOSE_TIMEOUT
        self.dissect_all()
        while self._expected - self._ended and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                self._take(self.frames.get(timeout=left))

    def dissect_all(self) -> None:
        """Dissects all frames that have been collected."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self.frames.get_nowait())

    def _note(self, call: SystemCall) -> None:
        self.observation.calls.append(call)
        if call.name != "connect":
            return
        local = _local_end(int(call.arguments.partition(",")[0]))
        if local.port:
            self._ours.add(local)
        if call.result == "0":
            self._expected.add(local)
        elif not local.port:
            self._failed.append((_start(call), _end(call)))

    def _take(self, frame: Frame | CaptureError) -> None:
        if isinstance(frame, CaptureError):
            raise frame
        packet = dissect(frame)
        if packet is None or not self._is_ours(packet):
            return
        step = self._conversations.add(packet)
        if step is None:
            return
        self._keep(frame)
        self.observation.steps.append(step)
        if step.connection.ended:
            self._ended.add(step.connection.client)

    def _is_ours(self, packet: Packet) -> bool:
        if packet.flags & (Flags.SYN | Flags.ACK) == Flags.SYN and any(
            start <= packet.at <= end for start, end in self._failed
        ):
            # Racy: a connection of another process to this port at the same time is taken for ours.
            self._ours.add(packet.source)
        return packet.source in self._ours or packet.target in self._ours


def _local_end(fd: int) -> Endpoint:
    """The local address of a socket, as in its packets; port 0 if it is not bound."""
    with socket.socket(fileno=os.dup(fd)) as twin:
        host, port = twin.getsockname()[:2]
    host = host.partition("%")[0]
    return Endpoint(host.removeprefix("::ffff:") if "." in host else host, port)
