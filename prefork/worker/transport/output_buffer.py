"""Bytes that a client has not taken yet: in memory, past a size on disk, or in a given file.

They are sent in order, whenever the client takes more. Only if they outgrow all limits, the thread
that has more to send has to wait for the client.
"""

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from io import FileIO
from time import monotonic

from prefork import linux
from prefork.temporary_file import unnamed_file
from prefork.unpatched import select
from prefork.worker.transport.client_limits import ClientLimits, Pace, due

AHEAD = 128 * 1024
"""Bytes of a response that the kernel may still have for the client when its next request is
served.  For one that does not read it keeps up to net.ipv4.tcp_wmem, which are megabytes."""

_FILES_AT_ONCE = 8  # pieces of files sent at one time, until other connections get their turn

_DONTWAIT = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

SHRUNK = "a file has shrunk while it was sent"


class UnreadableFileError(OSError):
    """Bytes that were promised to the client cannot be read; one line."""


SendFile = Callable[[int, int, int], int]
"""(descriptor, offset, bytes): sends part of a file, and returns how many bytes; 0 at its end.
Raises OSError as sendfile(2) does, and UnreadableFileError if the file cannot be read."""


def falls_behind(sock: socket.SocketType) -> bool:
    """Whether the kernel has more than AHEAD for the client; if so, the socket is not writable
    until it has less than half of that.

    A client that asks for more than it reads would otherwise have its worker make, and keep, as
    many responses as it cares to ask for.
    """
    try:
        if linux.not_sent(sock.fileno()) <= AHEAD:
            return False
        # tcp(7), Linux 3.12; for this client the kernel will keep no more from now on, either.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, AHEAD)
    except OSError:  # a Unix socket, for which the kernel keeps little
        return False
    return True


class FilePart:
    """Bytes of a file that are still to be sent; owns its descriptor."""

    __slots__ = ("count", "fd", "offset", "spilled")

    def __init__(self, fd: int, offset: int, count: int, *, spilled: bool = False) -> None:
        self.fd = fd
        self.offset = offset
        self.count = count
        self.spilled = spilled
        """It is ours, and can grow."""

    def close(self) -> None:
        os.close(self.fd)


class OutputBuffer:
    """The bytes that one client still has to take; made when it begins to lag behind."""

    __slots__ = (
        "_lagging_since",
        "_memory",
        "_moved_at",
        "_parts",
        "_pushed",
        "_queued",
        "_rules",
        "_send_file",
        "_sock",
        "_spill",
        "_spilled",
        "_taken",
    )

    def __init__(self, sock: socket.SocketType, send_file: SendFile, rules: ClientLimits) -> None:
        self._sock = sock
        self._send_file = send_file
        self._rules = rules
        self._parts: deque[bytearray | FilePart] = deque()
        self._memory = 0
        self._spill: FileIO | None = None
        self._spilled = 0
        self._lagging_since = self._moved_at = monotonic()
        self._queued = linux.not_acknowledged(sock.fileno())
        self._pushed = self._taken = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def memory(self) -> int:
        """Bytes of it that are in memory."""
        return self._memory

    def pace(self, now: float) -> Pace:
        """How much the client takes; asked by another thread, too, which changes nothing."""
        in_kernel = linux.not_acknowledged(self._sock.fileno())
        return Pace.of(self._queued + self._pushed - in_kernel, self._lagging_since, now)

    def given_up(self) -> bool:
        """Whether the client has taken nothing since the last look, or too little; to be asked when
        the deadline has passed.

        EPOLLOUT is no measure of it: a socket becomes writable again when a third of its send
        buffer is free (tcp(7), tcp_wmem), and that may be a megabyte.
        """
        before = self._taken
        self._look()
        return self._taken <= before or 0 < self.due() <= monotonic()

    def _look(self) -> None:
        """Notes how much the client has taken since it lags behind."""
        in_kernel = linux.not_acknowledged(self._sock.fileno())
        taken = self._queued + self._pushed - in_kernel
        if taken > self._taken:
            self._moved_at = monotonic()
        self._taken = taken

    def due(self) -> float:
        """Monotonic seconds at which a client is given up that takes nothing more, or too little of
        it; 0 for never."""
        rules = self._rules
        return due(
            self._moved_at,
            silence=rules.write_timeout,
            rate=rules.min_write_rate,
            since=self._lagging_since,
            done=self._taken,
        )

    # Adding bytes.

    def add(self, data: memoryview) -> memoryview:
        """Keeps bytes behind all that is kept; returns those for which there is no room."""
        rules = self._rules
        size = len(data)
        room = not rules.response_memory or self._memory + size <= rules.response_memory
        if room and rules.budget.take(size):
            self._memory += size
            self._keep(data)
            return data[size:]
        if not rules.response_spill or self._spilled + size <= rules.response_spill:
            return self._spill_over(data)
        return data

    def keep(self, data: memoryview, most: int) -> int:
        """Keeps bytes behind all that is kept, in memory, and no more than `most` in all.

        Returns how many; 0 also if the budget of the worker has no room for them.
        """
        if self._rules.response_memory:
            most = min(most, self._rules.response_memory)
        size = min(len(data), most - self._memory)
        if size <= 0 or not self._rules.budget.take(size):
            return 0
        self._memory += size
        self._keep(data[:size])
        return size

    def add_file(self, fd: int, offset: int, count: int) -> None:
        """Keeps bytes of a file; the application may close its own before the client has them."""
        self._append_file(FilePart(os.dup(fd), offset, count))

    def _keep(self, data: memoryview) -> None:
        # A copy: the tail of a large body would keep all of it in memory. And many small pieces
        # are one: an object for each would take more memory than its bytes.
        last = self._parts[-1] if self._parts else None
        if isinstance(last, bytearray):
            last += data
        else:
            self._parts.append(bytearray(data))

    def _append_file(self, part: FilePart) -> None:
        self._parts.append(part)
        self._sock.setblocking(False)  # sendfile(2) knows no MSG_DONTWAIT

    def _spill_over(self, data: memoryview) -> memoryview:
        """Writes bytes to disk; returns those for which there was no room."""
        disk = self._rules.disk
        if not disk.take(len(data)):
            return data
        offset = self._spilled
        # If the disk is full, or no descriptor is left, the budget counts as used up.
        with contextlib.suppress(OSError):
            if self._spill is None:
                self._spill = FileIO(unnamed_file(), "r+b")
            part = self._parts[-1] if self._parts else None
            if not (isinstance(part, FilePart) and part.spilled):
                part = FilePart(os.dup(self._spill.fileno()), offset, 0, spilled=True)
                self._append_file(part)
            while data:
                written = os.pwrite(part.fd, data, self._spilled)
                self._spilled += written
                part.count += written
                data = data[written:]
        disk.give_back(len(data))
        return data

    def wait_for_reader(self, data: memoryview) -> memoryview:
        """Waits until the client takes something; returns what is left of `data`.

        Raises OSError if the client is gone or too slow: the connection is of no more use.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        until = self.due()
        left = max(until - monotonic(), 0.0) * 1000 if until else None
        if not poll.poll(left) and self.given_up():
            raise TimeoutError
        self.flush()
        if self._parts:
            return data
        try:
            sent = self._sock.send(data, _DONTWAIT)
        except BlockingIOError:
            return data
        self._pushed += sent
        return data[sent:]

    # Sending them.

    def flush(self) -> None:
        """Sends as many bytes as the client takes now, within one turn.

        Raises OSError if the client is gone, and UnreadableFileError if a file has shrunk since its
        length was sent, or cannot be read.
        """
        parts = self._parts
        files = 0
        if not parts:  # the kernel has the bytes, and no call of ours would report an error
            problem = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                raise OSError(problem, os.strerror(problem))
        try:
            while parts and files < _FILES_AT_ONCE:
                part = parts[0]
                if isinstance(part, FilePart):
                    files += 1
                    if self._flush_file(part):
                        parts.popleft()
                        part.close()
                elif self._flush_memory(part):
                    parts.popleft()
        except BlockingIOError:
            pass
        if parts:
            self._look()
        else:
            self._close_spill()

    def _flush_file(self, part: FilePart) -> bool:
        sent = self._send_file(part.fd, part.offset, part.count)
        if not sent and part.count:
            raise UnreadableFileError(SHRUNK)
        self._pushed += sent
        part.offset += sent
        part.count -= sent
        return not part.count

    def _flush_memory(self, part: bytearray) -> bool:
        sent = self._sock.send(part, _DONTWAIT)
        self._pushed += sent
        self._memory -= sent
        self._rules.budget.give_back(sent)
        del part[:sent]
        return not part

    def close(self) -> None:
        """Releases all of it."""
        for part in self._parts:
            if isinstance(part, FilePart):
                part.close()
        self._parts.clear()
        self._rules.budget.give_back(self._memory)
        self._memory = 0
        self._close_spill()

    def _close_spill(self) -> None:
        if self._spill is not None:
            self._spill.close()
            self._spill = None
            self._rules.disk.give_back(self._spilled)
            self._spilled = 0
