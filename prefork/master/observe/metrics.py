"""The metrics: scoreboard and ledger, as Prometheus reads them.

They are read at each scrape: nothing is counted twice, nothing is written to files, and a counter
goes on over the deaths of workers, reloads and upgrades.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from time import monotonic
from typing import NamedTuple, get_args

from prefork import __version__, linux, proc_files
from prefork.master.observe import exposition
from prefork.master.observe.blocked_loops import blocked_for
from prefork.master.observe.exposition import MetricFamily, counter, gauge
from prefork.master.observe.metrics_server import Page
from prefork.master.observe.status_report import STATES, state_of
from prefork.master.pool.plan import RestartReason
from prefork.master.upgrade.exec import MasterParts
from prefork.scoreboard import DURATION_BOUNDS, Counters

_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


class ProcessFigures(NamedTuple):
    """What the kernel knows of a worker's process."""

    slot: int
    pid: int
    pss: int
    """Bytes of memory; shared memory is divided by the number of processes that share it."""
    cpu: float
    """Seconds of CPU time."""


def page(parts: MasterParts, accept: str) -> Page:
    """The page for a client with this Accept header, in slices: the kernel walks the page tables of
    a worker to sum up its memory."""
    figures = []
    for child in parts.children:
        found = _figures(child.slot, child.pid)
        if found is not None:
            figures.append(found)
        yield
    families = (
        *_server(parts),
        *_requests(parts),
        *_queues(parts),
        *_workers(parts),
        *_processes(figures),
    )
    return exposition.page(families, accept)


def _figures(slot: int, pid: int) -> ProcessFigures | None:
    try:
        return ProcessFigures(
            slot, pid, proc_files.proportional_memory(pid), proc_files.stat(pid).cpu
        )
    except OSError:  # it is gone, or another user's
        return None


def _server(parts: MasterParts) -> Iterator[MetricFamily]:
    yield gauge("prefork_info", "Version of prefork, as a label.").add(1, version=__version__)
    yield gauge("prefork_uptime_seconds", "Since the server was started.").add(
        monotonic() - parts.started_at
    )
    yield gauge("prefork_generation", "Of the configuration in force.").add(
        parts.reloads.serving.number
    )
    for name, counts in (("reloads", parts.ledger.reloads), ("upgrades", parts.ledger.upgrades)):
        ended = counter(f"prefork_{name}", f"{name.capitalize()} that came to an end.")
        for result in ("success", "failed", *(["superseded"] if name == "reloads" else [])):
            ended.add(counts[result], result=result)
        yield ended
    restarts = counter("prefork_worker_restarts", "Workers that had to be replaced.")
    for reason in get_args(RestartReason):
        restarts.add(parts.ledger.restarts[reason], reason=reason)
    yield restarts


def _requests(parts: MasterParts) -> Iterator[MetricFamily]:
    done = parts.ledger.total(map(parts.children.counters, parts.children))
    requests = counter("prefork_requests", "Requests that were answered, by class of status.")
    for name, count in zip(_CLASSES, done.by_class(), strict=True):
        if count or name[0] in "2345":
            requests.add(count, status=name)
    yield requests
    yield exposition.histogram(
        "prefork_request_duration_seconds",
        "Time of requests in the application.",
        _buckets(done),
        done.seconds,
    )
    yield counter("prefork_response_bytes", "Bytes of response bodies.").add(done.bytes)
    yield exposition.summary(
        "prefork_queue_time_seconds",
        "From X-Request-Start to the application, where a proxy sends it.",
        done.queued,
        done.waited,
    )
    yield counter(
        "prefork_connections_displaced", "Connections that full workers ended for others."
    ).add(done.displaced)
    yield counter("prefork_request_timeouts", "Requests over request_timeout.").add(
        parts.ledger.timeouts + done.timed_out
    )
    running = sum(
        call.started > 0 for child in parts.children for call in parts.children.calls(child)
    )
    yield gauge("prefork_requests_in_flight", "Now in the application.").add(running)


def _buckets(done: Counters) -> list[tuple[str, float]]:
    names = [*map(repr, DURATION_BOUNDS), "+Inf"]
    return list(zip(names, map(float, accumulate(done.by_duration())), strict=True))


def _queues(parts: MasterParts) -> Iterator[MetricFamily]:
    depth = gauge("prefork_listen_queue_depth", "Connections that wait for accept().")
    limit = gauge("prefork_listen_queue_limit", "The most that the queue takes.")
    for listener in parts.reloads.serving.listeners:
        if not listener.closed:
            queue = linux.listen_queue(listener.sock)
            depth.add(queue.depth, listener=listener.name)
            if queue.limit >= 0:
                limit.add(queue.limit, listener=listener.name)
    yield depth
    yield limit
    yield counter(
        "prefork_listen_overflows",
        "Handshakes dropped for full listen queues, in the whole network namespace.",
    ).add(parts.ledger.overflows(linux.listen_overflows()))


def _workers(parts: MasterParts) -> Iterator[MetricFamily]:
    states = dict.fromkeys(STATES, 0)
    held = parked = websockets = blocked = 0
    now = monotonic()
    for child in parts.children:
        blocked += blocked_for(parts.children, child, now) > 0
        stats = parts.children.stats(child)
        states[state_of(child.worker, parts.children.calls(child), stats)[0]] += 1
        held += stats.held
        parked += stats.parked
        websockets += stats.websockets
    workers = gauge("prefork_workers", "Workers by state.")
    for state, count in states.items():
        workers.add(count, state=state)
    yield workers
    yield gauge("prefork_workers_target", "Wanted now.").add(parts.pool.target)
    yield gauge("prefork_connections", "Connections held by workers.").add(held)
    yield gauge("prefork_connections_parked", "Those that wait for their client.").add(parked)
    yield gauge("prefork_websockets", "Open WebSockets.").add(websockets)
    yield gauge("prefork_loops_blocked", "Event loops that are blocked now.").add(blocked)
    yield counter("prefork_loop_blocks", "How often an event loop was blocked.").add(
        parts.ledger.loop_blocks
    )


def _processes(figures: Iterable[ProcessFigures]) -> Iterator[MetricFamily]:
    pss = gauge("prefork_worker_pss_bytes", "Proportional set size of a worker.")
    cpu = counter("prefork_worker_cpu_seconds", "CPU time of a worker.")
    for each in figures:
        labels = {"slot": str(each.slot), "pid": str(each.pid)}
        pss.add(each.pss, **labels)
        cpu.add(each.cpu, **labels)
    yield pss
    yield cpu
