"""The records of a worker whose calls run side by side in one thread."""

from collections.abc import Sequence

from prefork.scoreboard.slot_writer import ThreadRecord


class CallRecords:
    """Gives each call a record of its own; beyond their number calls are counted, and not shown."""

    def __init__(self, records: Sequence[ThreadRecord]) -> None:
        self._records = records
        # The first one is used first: a worker with few calls at a time touches few pages.
        self._free = list(range(len(records) - 1, -1, -1))

    def start(self, now: float, line: bytes, peer: str, request_id: str) -> int:
        """A call begins: see `ThreadRecord.start`.  Returns the number of its record, or -1."""
        free = self._free
        if not free:
            return -1
        number = free.pop()
        self._records[number].start(now, line, peer, request_id)
        return number

    def wait(self, number: int, now: float) -> None:
        """A call waits for its client: see `ThreadRecord.wait`."""
        if number >= 0:
            self._records[number].wait(now)

    def resume(self, number: int, now: float) -> None:
        """The application is at work on the next piece: see `ThreadRecord.resume`."""
        if number >= 0:
            self._records[number].resume(now)

    def end(self, number: int, began: float, now: float, status: int, size: int) -> None:
        """A call has ended: see `ThreadRecord.end`."""
        if number < 0:
            self._records[0].count(now - began, status, size)
            return
        self._records[number].end(now, status, size)
        self._free.append(number)
