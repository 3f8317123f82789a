"""The scoreboard: shared memory with one slot for each worker. Workers write, the master reads.

The scoreboard is a memfd (memfd_create(2), Linux 3.17) that is mapped before the fork, so a worker
publishes its state without a system call.  `slot_layout` says where each number and text stands,
`slot_writer` is the worker's side, `slot_reader` is the side of the master and of sibling workers,
and `board` owns the memory.
"""

from prefork.scoreboard.board import Scoreboard, ScoreboardError
from prefork.scoreboard.call_records import CallRecords
from prefork.scoreboard.slot_layout import (
    BLOCKED,
    CELLS,
    DURATION_BOUNDS,
    ERROR,
    LINE,
    LISTENERS,
    PEER,
    REQUEST_ID,
    VERSION,
)
from prefork.scoreboard.slot_reader import CallRecord, Counters, SlotReader, WorkerStats
from prefork.scoreboard.slot_writer import AcceptFlags, ThreadRecord, WorkerStatsWriter

__all__ = [
    "BLOCKED",
    "CELLS",
    "DURATION_BOUNDS",
    "ERROR",
    "LINE",
    "LISTENERS",
    "PEER",
    "REQUEST_ID",
    "VERSION",
    "AcceptFlags",
    "CallRecord",
    "CallRecords",
    "Counters",
    "Scoreboard",
    "ScoreboardError",
    "SlotReader",
    "ThreadRecord",
    "WorkerStats",
    "WorkerStatsWriter",
]
