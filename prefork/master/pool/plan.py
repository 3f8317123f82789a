"""What the pool and the master exchange: a worker's record, actions, outcomes and verdicts."""

import enum
from typing import Literal

from msgspec import Struct

from prefork.pool_bounds import PoolBounds


class WorkerState(enum.Enum):
    """BOOTING until it reports ready, READY while it serves, RETIRING once it has to leave."""

    BOOTING = "booting"
    READY = "ready"
    RETIRING = "retiring"


class GenerationSettings(Struct, frozen=True):
    """What a generation wants: `count` workers (at least 1) and timeouts in seconds, 0: no limit.

    With `bounds`, a dynamic pool, `count` is not used.  `at_once`: the number of workers that may
    boot at the same time, 0 for all of them; see `prefork.master.pool.reconcile.PACE`.
    `drain_timeout`: see `prefork.master.rollout.slow_clients`.
    """

    count: int
    boot_timeout: float
    graceful_timeout: float
    bounds: PoolBounds | None = None
    at_once: int = 0
    drain_timeout: float = 0.0


class SpawnAction(Struct, frozen=True):
    """Fork a worker.  The answer is one call of `spawned` or `spawn_failed`, now or later."""

    slot: int
    generation: int


class RetireAction(Struct, frozen=True):
    """Order a worker to retire: it accepts nothing new and finishes what it has."""

    pid: int
    slot: int


class StopAction(Struct, frozen=True):
    """Order a worker to serve until the listen queue is empty, then to leave: the server stops."""

    pid: int
    slot: int


class QuitAction(Struct, frozen=True):
    """Order a worker to drop everything and to leave at once."""

    pid: int
    slot: int


class KillAction(Struct, frozen=True):
    """Send SIGKILL.  `reason` is one line for the log.

    A worker whose `order` is None was never ordered to leave: it was booting, and may have reported
    ready just now.  So read its channel first; if that calls `ready`, the worker has an order: skip
    the kill and plan again.
    """

    pid: int
    slot: int
    reason: str


class FirstBootFailed(Struct, frozen=True):
    """No worker was ever ready and one failed; the others are killed, and `Stopped` follows."""

    reason: str


class Settled(Struct, frozen=True):
    """All workers of the generation are ready, and the last older one was ordered to leave."""

    generation: int


class Stalled(Struct, frozen=True):
    """The generation serves, but its other workers fail again and again; `reason`: the last one's.

    They are tried again, so one of the other outcomes still follows; a client should not wait.
    """

    generation: int
    reason: str


class Abandoned(Struct, frozen=True):
    """The generation was given up.  If it was not committed, nothing else has changed."""

    generation: int
    reason: str


class Superseded(Struct, frozen=True):
    """A later generation replaced this one before it had settled."""

    generation: int


class Stopped(Struct, frozen=True):
    """The pool was stopped, and no worker is left."""


RestartReason = Literal[
    "boot_failed",
    "crashed",
    "request_timeout",
    "frozen",
    "max_requests",
    "max_age",
    "max_memory",
    "reload",
    "by_hand",
]
"""Why a worker was replaced, or its boot has to be tried again."""


class DeathVerdict(Struct, frozen=True):
    """What the death of a worker means: for the log, and for the count of restarts.

    `expected`: the worker had the order to leave.  `reported`: the reason is in another event (of a
    kill, or of a generation's end), so that the death is no news.  `restart`: None if the worker is
    not replaced, or if its restart was counted when it was decided.
    """

    expected: bool
    reported: bool
    restart: RestartReason | None


Order = type[RetireAction] | type[StopAction] | type[QuitAction]
Action = SpawnAction | RetireAction | StopAction | QuitAction | KillAction
Outcome = FirstBootFailed | Settled | Stalled | Abandoned | Superseded | Stopped


class Worker(Struct):
    """A living process, from its fork until it was reaped.

    round: that of the backoff in which it was spawned, see `Backoff`.
    since: when it entered its state.
    deadline: when it is killed unless it is ready (BOOTING) or gone (RETIRING); None for never.
    leaving: it has confirmed that it leaves.
    killed: a plan has had it killed.
    order: the order to leave that it has, None for one that is only waited for or killed.
    repeat_at: when an order that was not confirmed is given again.
    kill_reason: what the log says if it is killed at its deadline.
    due_for_recycling: since when it is to be replaced, None if it is not.
    postponed: its clients keep it for longer than `graceful_timeout`.
    """

    slot: int
    pid: int
    generation: int
    settings: GenerationSettings
    round: int
    since: float
    deadline: float | None
    state: WorkerState = WorkerState.BOOTING
    leaving: bool = False
    killed: bool = False
    order: Order | None = None
    repeat_at: float = 0.0
    kill_reason: str = ""
    due_for_recycling: float | None = None
    postponed: bool = False


class Plan(Struct):
    """What to do now, in order; the outcomes; and when to ask again, if nothing happens before.

    `wake_at` is later than `now`, or None if only an event can change anything.
    """

    actions: list[Action]
    outcomes: list[Outcome]
    wake_at: float | None
