"""What the master knows of itself and its workers, for whoever asks over the control socket."""

import os
from time import monotonic
from typing import Any

import msgspec

from prefork import __version__
from prefork.control import PoolBounds, ServerStatus, WorkerStatus
from prefork.master.children import Children
from prefork.master.plan import State, Worker
from prefork.master.takeover import Parts


def status(parts: Parts) -> dict[str, Any]:
    """A `prefork.control.ServerStatus` as it stands, as the fields of an answer."""
    now = monotonic()
    pool, serving = parts.pool, parts.reloads.serving
    bounds = pool.bounds
    found = ServerStatus(
        name=serving.config.server.name,
        pid=os.getpid(),
        version=__version__,
        generation=serving.number,
        uptime=round(now - parts.born, 3),
        listeners=[listener.name for listener in serving.listeners],
        target=pool.target,
        bounds=PoolBounds(min=bounds.min, max=bounds.max, spare=bounds.spare) if bounds else None,
        reloading=pool.rollout is not None,
        workers=[_worker(worker, parts.children, now) for worker in pool.members()],
    )
    return msgspec.structs.asdict(found)


def _worker(worker: Worker, children: Children, now: float) -> WorkerStatus:
    child = children.find(worker.pid)
    calls = children.calls(child) if child else []
    busy = worker.state is State.READY and any(call.started for call in calls)
    return WorkerStatus(
        slot=worker.slot,
        pid=worker.pid,
        generation=worker.generation,
        state="busy" if busy else worker.state.value,
        requests=sum(call.requests for call in calls),
        age=round(now - child.born, 3) if child else 0.0,
    )
