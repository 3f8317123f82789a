"""The worker channel: a SOCK_SEQPACKET pair between the master and one worker.

A message is one packet (unix(7)), so no framing is needed, and the end of the channel is the death
of the other side.  Reports go from a worker or a zygote to the master, orders go the other way.
The tag in a message names its type.
"""

import array
import contextlib
import struct
from typing import Annotated

import msgspec

from prefork import linux
from prefork.unpatched import socket

LIMIT = 64 * 1024
"""Bytes of one message; a longer reason is cut to fit."""

_REASON = LIMIT // 6 - 100

_MAX_DESCRIPTORS = 253
"""Beside one packet: SCM_MAX_FD, unix(7)."""

_CREDENTIALS = struct.Struct("=iII")
"""struct ucred, unix(7): process, user, group."""

_ANCILLARY = socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS) + socket.CMSG_SPACE(_CREDENTIALS.size)


# Reports, from a worker or a zygote to the master.


class BornReport(msgspec.Struct, tag="born", frozen=True):
    """A worker that a zygote has forked is the master's child now."""

    pid: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]  # pid_t


class ReadyReport(msgspec.Struct, tag="ready", frozen=True):
    """The application is loaded, and the worker waits for the order to serve."""

    asgi: bool = False
    """The application is one of ASGI, which a configuration with protocol "auto" leaves open."""
    loop: str = ""
    """The event loop of such a worker: asyncio, uvloop, or the class of another one."""


class TerminatedReport(msgspec.Struct, tag="terminated", frozen=True):
    """The worker was sent SIGTERM, or its application exits: it waits for the order to leave.

    If the whole process group was sent it, the server stops: the order says which listen queues it
    has to empty.
    """


class LeavingReport(msgspec.Struct, tag="leaving", frozen=True):
    """The worker stops accepting, by an order or of its own accord: none need be repeated."""


class InboxStuckReport(msgspec.Struct, tag="crowded", frozen=True):
    """An inbox is not read: a sibling has to take what is in it.

    `slot` is that of a sibling that does not answer; -1 if the worker itself has no descriptor left
    for what is in its inbox.
    """

    slot: int = -1


class ReopenedReport(msgspec.Struct, tag="reopened", frozen=True):
    """The process writes to the files of a ReopenOrder, whose number this is."""

    number: int


class FailedReport(msgspec.Struct, tag="failed", frozen=True):
    """The worker cannot boot; `reason` is one line, or the application's traceback."""

    reason: str = msgspec.field(name="why")  # the key that workers of older code send


# Orders, from the master to a zygote.


class ForkOrder(msgspec.Struct, tag="fork", frozen=True):
    """Fork a worker.

    Beside the message come its end of a new channel, and the descriptors of its stacks
    (prefork.stack_dump.WorkerStacks) if the master had some to spare.
    """

    slot: int
    logs: tuple[str, ...] = ()
    """The targets of the pipes (prefork.logs.log_pipe) that come last."""


# Orders, from the master to the process that writes the logs; ReopenOrder and StopOrder, too.


class LogPipeOrder(msgspec.Struct, tag="pipe", frozen=True):
    """Copy from a pipe, whose end is beside the message, to a log file."""

    number: int
    target: str


# Orders, from the master to a worker; ReopenOrder also to a zygote.


class ServeOrder(msgspec.Struct, tag="serve", frozen=True):
    """The master knows that the worker is ready: it may accept.

    Until then the master may kill it, and no connection is lost.
    """


class RetireOrder(msgspec.Struct, tag="retire", frozen=True):
    """Stop, and accept nothing more: other workers go on with the listeners.

    seconds: the time until the worker is killed, 0 for no limit, None from older code.
    """

    seconds: float | None = None


class StopOrder(msgspec.Struct, tag="stop", frozen=True):
    """Stop, and accept from these listeners until their queue is empty: no other worker will.

    The listeners were made non-blocking before.  `seconds`: as in RetireOrder.
    """

    listeners: tuple[int, ...]
    seconds: float | None = None


class ExpireOrder(msgspec.Struct, tag="expire", frozen=True):
    """A request has passed its timeout: answer 504 if nothing was sent yet, then retire."""


class ReopenOrder(msgspec.Struct, tag="reopen", frozen=True):
    """Use new log files: descriptors beside the message, in the order of `paths`."""

    paths: tuple[str, ...]
    number: int = 0
    """To be confirmed by a ReopenedReport."""


class InboxesOrder(msgspec.Struct, tag="inboxes", frozen=True):
    """Inboxes for the handover (prefork.worker.schedule.handover): descriptors beside the message.

    With `own`, the first is where connections for this worker come in, and `kind` says which it
    receives.  Then follow those of the workers in `slots`, in that order.
    """

    slots: tuple[int, ...]
    own: bool = False
    kind: int = 0


Report = (
    BornReport
    | ReadyReport
    | TerminatedReport
    | LeavingReport
    | InboxStuckReport
    | ReopenedReport
    | FailedReport
)
Order = (
    LogPipeOrder
    | ForkOrder
    | ServeOrder
    | RetireOrder
    | StopOrder
    | ExpireOrder
    | ReopenOrder
    | InboxesOrder
)

_encode = msgspec.json.Encoder().encode
_decode_report: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)
_decode_order: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)


class InvalidReportError(Exception):
    """A worker or a zygote has sent a packet that is no report; the text is one line."""


class Channel:
    """One end of the pair; it never blocks, unless `block` was called."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    @staticmethod
    def pair() -> tuple["Channel", "Channel"]:
        """The master's end and the worker's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        linux.refuse_descriptors(ours)
        linux.name_senders(ours)
        return Channel(ours), Channel(theirs)

    @staticmethod
    def from_fd(fd: int) -> "Channel":
        """The end of a pair that came as a descriptor, which belongs to this object from now on."""
        return Channel(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd))

    def block(self) -> None:
        """From now on, `receive_order` waits until there is one."""
        self._sock.setblocking(True)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, message: Report | Order, fds: tuple[int, ...] = ()) -> bool:
        """Sends a message and descriptors; returns False if the other side is dead or not reading.

        A full channel never blocks the master: the sender repeats what matters.
        """
        if isinstance(message, FailedReport):
            # Not all text is UTF-8 (PEP 383). JSON may take six bytes for one character. The end
            # is kept, since the end of a traceback names the error.
            reason = message.reason.encode(errors="backslashreplace")[-_REASON:]
            message = FailedReport(reason.decode(errors="ignore"))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([_encode(message)], ancillary, socket.MSG_NOSIGNAL)
        except (BlockingIOError, ConnectionError):
            return False
        return True

    def _receive(self) -> tuple[bytes, list[int], int] | None:
        """One packet, its descriptors, and the process that sent it; None if there is none now.

        An empty packet is the end.  The process is 0 if it is not known: the worker's end does not
        ask for it, nor did that of a master of older code.
        """
        fds, sender = array.array("i"), 0
        try:
            data, ancillary, _, _ = self._sock.recvmsg(LIMIT, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b"", [], 0
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                with contextlib.suppress(ValueError):
                    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                sender = _CREDENTIALS.unpack(payload)[0]
        return data, list(fds), sender

    def receive_report(self) -> Report | None:
        """The next report (master's side), None if there is none now.

        What a worker says of its process id is compared with what the kernel says.  Raises
        EOFError if the worker's end is closed, and InvalidReportError for any packet that
        is no report: the application of a worker can write to our descriptor.  Descriptors belong
        to no report.  If the kernel lets them through, they are closed.
        """
        try:
            packet = self._receive()
            if packet is None:
                return None
            data, fds, sender = packet
            for fd in fds:
                linux.close_received(fd)
            if data:
                report = _decode_report.decode(data)
                if isinstance(report, BornReport) and sender not in (0, report.pid):
                    raise ValueError(f"process {sender} claims to be process {report.pid}")
                return report
        except Exception as problem:
            # Which exceptions bytes of a stranger can raise in a decoder is not for us to list:
            # DecodeError, UnicodeDecodeError, and for deep nesting RecursionError.
            text = str(problem).partition("\n")[0][:200]
            raise InvalidReportError(f"{type(problem).__name__}: {text}") from None
        raise EOFError

    def receive_order(self) -> tuple[Order, list[int]] | None:
        """The next order and its descriptors (worker's side), None if there is none now.

        Raises EOFError if the master is dead.
        """
        packet = self._receive()
        if packet is None:
            return None
        if not packet[0]:
            raise EOFError
        return _decode_order.decode(packet[0]), packet[1]
