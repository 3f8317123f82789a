"""The answer to `status`: what the master knows of itself and of its workers."""

import os
from time import monotonic
from typing import Any

import msgspec

from prefork import __version__, linux
from prefork.compiled import BUILD
from prefork.config import sandbox
from prefork.control import CallStatus, QueueStatus, ServerStatus, WorkerStatus
from prefork.listeners import Listener
from prefork.master.observe.blocked_loops import blocked_for
from prefork.master.observe.lost_files import server_files
from prefork.master.pool.plan import Worker, WorkerState
from prefork.master.processes.children import Child, Children
from prefork.master.upgrade.exec import MasterParts
from prefork.scoreboard import CallRecord, Counters, WorkerStats

STATES = ("booting", "idle", "reading", "busy", "writing", "retiring")
"""The states of a worker, see `prefork.control.WorkerStatus`."""


def status(parts: MasterParts) -> dict[str, Any]:
    """A `prefork.control.ServerStatus` of this moment, as the fields of an answer."""
    now = monotonic()
    pool, serving, children = parts.pool, parts.reloads.serving, parts.children
    counters = {child.pid: children.counters(child) for child in children}
    listeners = [listener for listener in serving.listeners if not listener.closed]
    done = parts.ledger.total(counters.values())
    found = ServerStatus(
        name=serving.config.server.name,
        file=str(serving.loaded.file or ""),
        pid=os.getpid(),
        version=__version__,
        build=BUILD,
        generation=serving.number,
        uptime=round(now - parts.started_at, 3),
        listeners=[listener.name for listener in listeners],
        target=pool.target,
        bounds=pool.bounds,
        reloading=pool.rollout is not None,
        requests=done.requests,
        restarts=dict(parts.ledger.restarts),
        reloads=dict(parts.ledger.reloads),
        queues=[_queue(listener) for listener in listeners],
        queue_time=round(done.waited / done.queued, 6) if done.queued else 0.0,
        overflows=parts.ledger.overflows(linux.listen_overflows()),
        sandbox=sandbox.in_force(serving.config.process),
        lost=[
            f"{file.kind} {file.path}: {problem}"
            for file in server_files(parts)
            if (problem := file.problem)
        ],
        log_process=parts.log_writer.problem(now),
        workers=[
            _worker(child, children, counters[child.pid], now)
            for child in sorted(children, key=lambda child: child.slot)
        ],
    )
    return msgspec.structs.asdict(found)


def _queue(listener: Listener) -> QueueStatus:
    depth, limit = linux.listen_queue(listener.sock)
    return QueueStatus(listener=listener.name, depth=depth, limit=limit)


def _worker(child: Child, children: Children, counters: Counters, now: float) -> WorkerStatus:
    calls = children.calls(child)
    stats = children.stats(child)
    state, since = state_of(child.worker, calls, stats)
    requests = counters.requests
    return WorkerStatus(
        slot=child.slot,
        pid=child.pid,
        generation=child.generation.number,
        state=state,
        since=_ago(since, now),
        requests=requests,
        bytes=counters.bytes,
        held=stats.held,
        parked=stats.parked,
        writing=stats.writing,
        websockets=stats.websockets,
        blocked=round(blocked_for(children, child, now), 3),
        mean=round(counters.seconds / requests, 6) if requests else 0.0,
        error=stats.error,
        error_age=_ago(stats.failed, now) if stats.failed else 0.0,
        calls=[_call(call, now) for call in calls if call.started],
        age=_ago(child.forked_at, now),
    )


def state_of(worker: Worker, calls: list[CallRecord], stats: WorkerStats) -> tuple[str, float]:
    """The state of a worker, one of `STATES`, and since when (monotonic seconds)."""
    if worker.state is not WorkerState.READY:
        return worker.state.value, worker.since
    running = [call.started for call in calls if call.started]
    if running:
        return "busy", min(running)
    since = max(worker.since, stats.changed, *(call.ended for call in calls))
    if stats.writing:
        return "writing", since
    return ("reading" if stats.reading else "idle"), since


def _call(call: CallRecord, now: float) -> CallStatus:
    return CallStatus(
        thread=call.thread,
        request=call.line,
        peer=call.peer,
        request_id=call.id,
        elapsed=_ago(call.started, now),
        waiting=_ago(call.waiting, now) if call.waiting else 0.0,
    )


def _ago(time: float, now: float) -> float:
    return round(max(now - time, 0.0), 3)
