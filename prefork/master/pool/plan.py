"""The words between the pool and the master: what a worker is, what to do, what was concluded."""

import enum
from typing import Literal

from msgspec import Struct

from prefork.pool_bounds import PoolBounds


class WorkerState(enum.Enum):
    """BOOTING until it said ready, READY while it serves, RETIRING from the order to leave on."""

    BOOTING = "booting"
    READY = "ready"
    RETIRING = "retiring"


class GenerationSettings(Struct, frozen=True):
    """What a generation wants: `count` workers (at least 1) and timeouts in seconds, 0: no limit.

    With `bounds`, a dynamic pool, `count` does not count.  `at_once`: how many workers boot at the
    same time without being waited for, 0: all of them; see `prefork.master.pool.reconcile.PACE`.
    """

    count: int
    boot_timeout: float
    graceful_timeout: float
    bounds: PoolBounds | None = None
    at_once: int = 0


class SpawnAction(Struct, frozen=True):
    """Fork a worker; answer with `spawned` or `spawn_failed`, now or later. It is asked once."""

    slot: int
    generation: int


class RetireAction(Struct, frozen=True):
    """Tell it to leave: it takes nothing new and finishes what it has; its siblings serve on."""

    pid: int
    slot: int


class StopAction(Struct, frozen=True):
    """Tell it to serve until the listen queue is empty, then leave: the server stops."""

    pid: int
    slot: int


class QuitAction(Struct, frozen=True):
    """Tell it to drop everything and leave at once."""

    pid: int
    slot: int


class KillAction(Struct, frozen=True):
    """SIGKILL. `why` is one line for the log.

    A worker with `order` None was never told to leave: it was booting, and may just have said
    ready. Read its channel first; if that brings `ready`, it has an order now: skip the kill and
    plan again.
    """

    pid: int
    slot: int
    why: str


class FirstBootFailed(Struct, frozen=True):
    """No worker was ever ready and one failed; the rest is killed, and `Stopped` follows."""

    why: str


class Settled(Struct, frozen=True):
    """All workers of the generation are ready, and the last older one was told to leave."""

    generation: int


class Stalled(Struct, frozen=True):
    """It serves, but its other workers fail again and again; `why` is the last one's reason.

    They are tried again, so that one of the outcomes below still follows; who waits should not.
    """

    generation: int
    why: str


class Abandoned(Struct, frozen=True):
    """The generation was given up. Before its commit, nothing else has changed."""

    generation: int
    why: str


class Superseded(Struct, frozen=True):
    """A later generation took this one's place before it had settled."""

    generation: int


class Stopped(Struct, frozen=True):
    """The pool was told to stop, and no worker is left."""


RestartReason = Literal[
    "boot_failed",
    "crashed",
    "request_timeout",
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

    `since`: when it entered its state. `deadline`: when it is killed unless it is ready (BOOTING)
    or gone (RETIRING). `leaving`: it has confirmed that it goes. `order`: what it is being told,
    None for one that is only waited for or killed. `round`: see `Backoff`.
    `worn`: since when it is to be replaced, None while it is good.
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
    why: str = ""
    worn: float | None = None


class Plan(Struct):
    """What to do now, in order; what was concluded; and when to ask again, if nothing happens.

    `wake_at` is later than `now`, or None where only an event can change anything.
    """

    actions: list[Action]
    outcomes: list[Outcome]
    wake_at: float | None
