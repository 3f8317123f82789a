"""The scoreboard's memory: made by the master, inherited by workers, confined to a slot in each."""

import errno
import fcntl
import mmap
import os

from prefork import linux
from prefork.scoreboard import slot_layout as layout
from prefork.scoreboard.slot_layout import RECORD_SIZE, SLOT_SIZE, record_offset, slot_offset
from prefork.scoreboard.slot_reader import SlotReader
from prefork.scoreboard.slot_writer import (
    AcceptFlags,
    SlotMemory,
    ThreadRecord,
    WorkerStatsWriter,
)

_SIZE_STAYS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class ScoreboardError(Exception):
    """No shared memory can be had, or what was handed over has another layout; one line."""


def _memory_file() -> int:
    try:
        return os.memfd_create("prefork-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES):
            raise
        raise ScoreboardError(
            f"the kernel refuses shared memory (memfd_create(2), Linux 3.17): {error.strerror}; let"
            " the seccomp profile of the container allow this call"
        ) from None


class Scoreboard(SlotReader):
    """All slots; created once by the master and inherited by every worker."""

    def __init__(self, fd: int | None = None) -> None:
        """Creates a scoreboard, or takes over the one behind a descriptor.

        Raises ScoreboardError if that has another version or the kernel refuses memory, OSError.
        """
        if fd is None:
            self.fd = _memory_file()
            os.ftruncate(self.fd, layout.SIZE)
            os.pwrite(self.fd, layout.LAYOUT, layout.LAYOUT_AT)
            # A zygote, which runs code of the application, holds the descriptor: the master would
            # die of SIGBUS beyond the end of a file that was truncated.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SIZE_STAYS)
        elif os.pread(fd, len(layout.LAYOUT), layout.LAYOUT_AT) != layout.LAYOUT:
            raise ScoreboardError(
                "the scoreboard that was handed over is of another version: restart the server"
                " instead"
            )
        else:
            self.fd = fd
        os.set_inheritable(self.fd, False)
        # No other user may open what /proc shows of a worker's descriptors.
        os.fchmod(self.fd, 0o600)
        self._readable = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        self._own: tuple[int, memoryview] | None = None
        super().__init__(mmap.mmap(self.fd, layout.SIZE))

    def confine(self, slot: int | None) -> None:
        """In a worker, for good: its own slot stays writable, everything else becomes read-only.

        The inherited mapping is unmapped, and each descriptor that could be mapped again is closed.
        `slot` is None in a zygote, which has no slot but forks workers that will have one.
        """
        everything = mmap.mmap(self._readable, len(self.memory), prot=mmap.PROT_READ)
        self._words.release()
        self._reals.release()
        self.memory.close()
        self._map(everything)
        if slot is not None:
            self._own = slot, linux.map_shared(self.fd, slot_offset(slot), SLOT_SIZE)
            os.close(self.fd)
            os.close(self._readable)
            self.fd = self._readable = -1

    def _writable(self, slot: int) -> SlotMemory:
        """The writable memory of a slot: of any in the master, of its own in a worker."""
        if self._own is None:
            return SlotMemory(self.memory, self._words, self._reals, slot_offset(slot))
        own, memory = self._own
        if own != slot:
            raise ValueError(f"slot {slot} is another worker's")
        return SlotMemory(memory, memory.cast("Q"), memory.cast("d"), 0)

    # The master's side; workers read the two flags.

    @property
    def draining(self) -> bool:
        """The server is about to stop: a load balancer should send its clients elsewhere."""
        return self.memory[layout.DRAINING_AT] != 0

    @draining.setter
    def draining(self, value: bool) -> None:
        self.memory[layout.DRAINING_AT] = value

    @property
    def only_worker(self) -> bool:
        """There is one worker, and no other is being forked."""
        return self.memory[layout.ONLY_WORKER_AT] != 0

    @only_worker.setter
    def only_worker(self, value: bool) -> None:
        self.memory[layout.ONLY_WORKER_AT] = value

    def clear(self, slot: int, threads: int) -> None:
        """Empties a slot before a worker is forked into it."""
        start = slot_offset(slot)
        size = layout.STATS_SIZE + RECORD_SIZE * threads
        self.memory[start : start + size] = bytes(size)

    # The worker's side.

    def record(self, slot: int, thread: int) -> ThreadRecord:
        """The record that one thread of a worker writes."""
        own = self._writable(slot)
        return ThreadRecord(own, own.offset + record_offset(slot, thread) - slot_offset(slot))

    def stats_writer(self, slot: int) -> WorkerStatsWriter:
        """Writes the state of a worker as a whole."""
        return WorkerStatsWriter(self._writable(slot))

    def accept_flags(self, slot: int) -> AcceptFlags:
        """Writes at which listeners a worker waits."""
        return AcceptFlags(self._writable(slot))

    def start_receiving(self, slot: int, kind: int, threads: int) -> None:
        """The worker of a slot receives connections of a kind above 0 from now on."""
        own = self._writable(slot)
        word = own.offset // 8
        own.words[word + layout.THREADS] = threads
        own.words[word + layout.HANDOVER_KIND] = kind

    def inbox_read(self, slot: int, now: float) -> None:
        """The worker of a slot has read its inbox at `now`, in monotonic seconds."""
        own = self._writable(slot)
        own.reals[own.offset // 8 + layout.INBOX_READ] = now

    def clear_accept_flags(self, slot: int) -> None:
        """The worker of a slot does not run, so that it waits at no listener (master)."""
        own = self._writable(slot)
        first = own.offset // 8 + layout.ACCEPT_FLAGS
        for word in range(first, first + layout.LISTENERS):
            own.words[word] = 0

    def stop_receiving(self, slot: int) -> None:
        """The worker of a slot receives no connections: it is leaving, it is short of descriptors,
        or it is dead (the master says so then)."""
        own = self._writable(slot)
        own.words[own.offset // 8 + layout.HANDOVER_KIND] = 0
