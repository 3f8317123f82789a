"""The metrics: scoreboard and ledger, in the exposition format of Prometheus.

A custom collector reads them at each scrape: nothing is counted twice, nothing is written to files,
and a counter goes on over the deaths of workers, reloads and upgrades.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, get_args

from prefork import __version__, linux
from prefork.master.observe.metrics_server import Page
from prefork.master.observe.status_report import STATES, state_of
from prefork.master.pool.plan import RestartReason
from prefork.master.upgrade.exec import MasterParts
from prefork.scoreboard import DURATION_BOUNDS, Counters

if TYPE_CHECKING:
    from prometheus_client import Metric

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
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    figures = []
    for child in parts.children:
        found = _figures(child.slot, child.pid)
        if found is not None:
            figures.append(found)
        yield
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(parts, figures))
    encode, kind = choose_encoder(accept)
    return kind, encode(registry)


def _figures(slot: int, pid: int) -> ProcessFigures | None:
    import psutil  # a megabyte that every worker would share, for metrics that few servers serve

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return ProcessFigures(slot, pid, process.memory_full_info().pss, times.user + times.system)
    except (psutil.Error, OSError):  # it is gone, or another user's
        return None


class _Collector:
    """The collector that a registry reads."""

    def __init__(self, parts: MasterParts, figures: list[ProcessFigures]) -> None:
        self._parts = parts
        self._figures = figures

    def collect(self) -> Iterator["Metric"]:
        yield from _server(self._parts)
        yield from _requests(self._parts)
        yield from _queues(self._parts)
        yield from _workers(self._parts)
        yield from _processes(self._figures)


def _server(parts: MasterParts) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    info = GaugeMetricFamily("prefork_info", "Version of prefork, as a label.", labels=["version"])
    info.add_metric([__version__], 1)
    yield info
    yield GaugeMetricFamily(
        "prefork_uptime_seconds", "Since the server was started.", monotonic() - parts.started_at
    )
    yield GaugeMetricFamily(
        "prefork_generation", "Of the configuration in force.", parts.reloads.serving.number
    )
    for name, counts in (("reloads", parts.ledger.reloads), ("upgrades", parts.ledger.upgrades)):
        metric = CounterMetricFamily(
            f"prefork_{name}", f"{name.capitalize()} that came to an end.", labels=["result"]
        )
        for result in ("success", "failed", *(["superseded"] if name == "reloads" else [])):
            metric.add_metric([result], counts[result])
        yield metric
    restarts = CounterMetricFamily(
        "prefork_worker_restarts", "Workers that had to be replaced.", labels=["reason"]
    )
    for reason in get_args(RestartReason):
        restarts.add_metric([reason], parts.ledger.restarts[reason])
    yield restarts


def _requests(parts: MasterParts) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        SummaryMetricFamily,
    )

    done = parts.ledger.total(map(parts.children.counters, parts.children))
    requests = CounterMetricFamily(
        "prefork_requests", "Requests that were answered, by class of status.", labels=["status"]
    )
    for name, count in zip(_CLASSES, done.by_class(), strict=True):
        if count or name[0] in "2345":
            requests.add_metric([name], count)
    yield requests
    yield HistogramMetricFamily(
        "prefork_request_duration_seconds",
        "Time of requests in the application.",
        buckets=_buckets(done),
        sum_value=done.seconds,
    )
    yield CounterMetricFamily("prefork_response_bytes", "Bytes of response bodies.", done.bytes)
    yield SummaryMetricFamily(
        "prefork_queue_time_seconds",
        "From X-Request-Start to the application, where a proxy sends it.",
        count_value=done.queued,
        sum_value=done.waited,
    )
    yield CounterMetricFamily(
        "prefork_request_timeouts", "Requests over request_timeout.", parts.ledger.timeouts
    )
    running = sum(
        call.started > 0 for child in parts.children for call in parts.children.calls(child)
    )
    yield GaugeMetricFamily("prefork_requests_in_flight", "Now in the application.", running)


def _buckets(done: Counters) -> list[tuple[str, float]]:
    names = [*map(repr, DURATION_BOUNDS), "+Inf"]
    return list(zip(names, map(float, accumulate(done.by_duration())), strict=True))


def _queues(parts: MasterParts) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    depth = GaugeMetricFamily(
        "prefork_listen_queue_depth", "Connections that wait for accept().", labels=["listener"]
    )
    limit = GaugeMetricFamily(
        "prefork_listen_queue_limit", "The most that the queue takes.", labels=["listener"]
    )
    for listener in parts.reloads.serving.listeners:
        if not listener.closed:
            queue = linux.listen_queue(listener.sock)
            depth.add_metric([listener.name], queue.depth)
            if queue.limit >= 0:
                limit.add_metric([listener.name], queue.limit)
    yield depth
    yield limit
    yield CounterMetricFamily(
        "prefork_listen_overflows",
        "Handshakes dropped for full listen queues, in the whole network namespace.",
        parts.ledger.overflows(linux.listen_overflows()),
    )


def _workers(parts: MasterParts) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import GaugeMetricFamily

    states = dict.fromkeys(STATES, 0)
    held = parked = websockets = 0
    for child in parts.children:
        stats = parts.children.stats(child)
        states[state_of(child.worker, parts.children.calls(child), stats)[0]] += 1
        held += stats.held
        parked += stats.parked
        websockets += stats.websockets
    workers = GaugeMetricFamily("prefork_workers", "Workers by state.", labels=["state"])
    for state, count in states.items():
        workers.add_metric([state], count)
    yield workers
    yield GaugeMetricFamily("prefork_workers_target", "Wanted now.", parts.pool.target)
    yield GaugeMetricFamily("prefork_connections", "Connections held by workers.", held)
    yield GaugeMetricFamily(
        "prefork_connections_parked", "Those that wait for their client.", parked
    )
    yield GaugeMetricFamily("prefork_websockets", "Open WebSockets.", websockets)


def _processes(figures: Iterable[ProcessFigures]) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    labels = ["slot", "pid"]
    pss = GaugeMetricFamily(
        "prefork_worker_pss_bytes", "Proportional set size of a worker.", labels=labels
    )
    cpu = CounterMetricFamily("prefork_worker_cpu_seconds", "CPU time of a worker.", labels=labels)
    for each in figures:
        pss.add_metric([str(each.slot), str(each.pid)], each.pss)
        cpu.add_metric([str(each.slot), str(each.pid)], each.cpu)
    yield pss
    yield cpu
