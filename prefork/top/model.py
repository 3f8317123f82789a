"""The data of `top`: two samples of a server, and the differences between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from prefork.control import ServerStatus, WorkerStatus


class ProcessUsage(NamedTuple):
    """Memory and CPU of a worker process, from the kernel."""

    memory: int
    """Resident bytes (RSS)."""
    cpu: float
    """Seconds of CPU time since its start."""


class TopSample(NamedTuple):
    """The server at one moment."""

    time: float
    """Monotonic seconds."""
    server: ServerStatus
    processes: Mapping[int, ProcessUsage]


def sample(time: float, server: ServerStatus) -> TopSample:
    """Adds the memory and CPU of the workers, if their processes can be seen.

    The process ids of a container cannot be used outside of it.
    """
    return TopSample(time, server, {each.pid: _process(each.pid) for each in server.workers})


def _process(pid: int) -> ProcessUsage:
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return ProcessUsage(process.memory_info().rss, times.user + times.system)
    except psutil.Error:
        return ProcessUsage(0, 0.0)


class Row(NamedTuple):
    """A worker, with the changes since the last sample."""

    worker: WorkerStatus
    rate: float
    """Requests a second."""
    mean: float
    """Mean seconds of a request in the application since the last sample."""
    memory: int
    cpu: float
    """CPUs in use: 1.0 is one whole CPU."""


_ORDERS: dict[str, Callable[[Row], tuple[float, ...]]] = {
    "slot": lambda row: (row.worker.slot,),
    "time": lambda row: (-max([call.elapsed for call in row.worker.calls], default=0.0),),
    "requests": lambda row: (-row.rate, -row.worker.requests),
    "memory": lambda row: (-row.memory,),
    "cpu": lambda row: (-row.cpu,),
}

ORDERS = tuple(_ORDERS)


@dataclass
class Model:
    """Everything that is shown."""

    now: TopSample
    before: TopSample | None = None
    order: str = "slot"
    selected: int = 0
    """A slot."""
    stack: str | None = None
    """The stack of the selected worker, if it is shown."""
    message: str = ""
    """The result of the last key."""
    question: str = ""
    """A question to be answered with y or n."""
    rates: list[float] = field(default_factory=list)
    """Requests a second of the last samples."""

    def add(self, sample: TopSample) -> None:
        """Adds the next sample."""
        self.before, self.now = self.now, sample
        self.rates = [*self.rates[-59:], self.rate]
        slots = [row.worker.slot for row in self.rows()]
        if self.selected not in slots and slots:
            self.selected = min(slots, key=lambda slot: abs(slot - self.selected))
            self.stack = None

    @property
    def _seconds(self) -> float:
        return self.now.time - self.before.time if self.before is not None else 0.0

    @property
    def rate(self) -> float:
        """Requests a second of the whole server."""
        if self.before is None or not self._seconds:
            return 0.0
        new = self.now.server.requests - self.before.server.requests
        return max(new, 0) / self._seconds

    def rows(self) -> list[Row]:
        """The workers in the chosen order."""
        before = {each.pid: each for each in self.before.server.workers} if self.before else {}
        rows = [self._row(worker, before.get(worker.pid)) for worker in self.now.server.workers]
        return sorted(rows, key=lambda row: (*_ORDERS[self.order](row), row.worker.slot))

    def _row(self, worker: WorkerStatus, before: WorkerStatus | None) -> Row:
        process = self.now.processes.get(worker.pid, ProcessUsage(0, 0.0))
        if before is None or self.before is None or not self._seconds:
            return Row(worker, 0.0, worker.mean, process.memory, 0.0)
        new = max(worker.requests - before.requests, 0)
        spent = worker.mean * worker.requests - before.mean * before.requests
        cpu = process.cpu - self.before.processes.get(worker.pid, process).cpu
        return Row(
            worker,
            new / self._seconds,
            max(spent / new, 0.0) if new else worker.mean,
            process.memory,
            max(cpu, 0.0) / self._seconds,
        )

    def move(self, by: int) -> None:
        """Selects another of the workers that are shown."""
        slots = [row.worker.slot for row in self.rows()]
        if slots:
            here = slots.index(self.selected) if self.selected in slots else 0
            self.selected = slots[min(max(here + by, 0), len(slots) - 1)]
            self.stack = None

    def reorder(self) -> None:
        """Chooses the next order."""
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]
