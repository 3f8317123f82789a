"""`prefork status`: the server and its workers, as text or as JSON."""

import json
from pathlib import Path
from typing import Any

import click

from prefork.cli.running_server import (
    ServerCommand,
    connect,
    connect_to,
    for_each,
    server_options,
    show,
    socket_of,
)
from prefork.control import (
    PoolBounds,
    QueueStatus,
    ServerStatus,
    WorkerStatus,
    decode_status,
    running_servers,
)
from prefork.control.time_units import call_line, duration, milliseconds
from prefork.logs import printable
from prefork.quantity import quantity


@click.command("status", cls=ServerCommand)
@server_options
@click.option("--json", "as_json", is_flag=True, help="Print the whole status as JSON.")
@click.option(
    "--stack", "slot", metavar="SLOT", type=int, help="Print the Python stacks of one worker."
)
def command(target: str | None, control: str | None, as_json: bool, slot: int | None) -> None:
    """Show the server and its workers: what each does, for which client, and since when.

    Without SERVER all running servers of this user are shown; with --json as a list if there are
    several.
    """
    if slot is not None:
        with connect(target, control) as client:
            answer = client.call("stack", slot=slot)
        return show(json.dumps(answer) if as_json else str(answer.get("stack")))
    paths = running_servers() if target is None and control is None else []
    if len(paths) < 2:
        paths = [socket_of(target, control)]
    answers: list[dict[str, Any]] = []

    def show_status(path: Path) -> None:
        with connect_to(path) as client:
            answer = client.call("status")
        if not as_json:
            text = "\n".join(_status_lines(decode_status(answer)))
            show(f"\n{text}" if answers else text)
        answers.append(answer)

    try:
        for_each(paths, show_status)
    finally:
        if as_json and answers:
            shown = answers if len(paths) > 1 else answers[0]
            show(json.dumps(shown, indent=2))  # in ASCII: JSON itself escapes no C1 controls


def _status_lines(server: ServerStatus) -> list[str]:
    header = [
        f"pid {server.pid}",
        f"prefork {server.version}{' (compiled)' if server.build == 'compiled' else ''}",
        f"generation {server.generation}{', reloading' if server.reloading else ''}",
        f"up {duration(server.uptime)}",
        f"target {quantity(server.target, 'worker')}{_bounds(server.bounds)}",
        f"listening on {', '.join(server.listeners) or 'nothing: it is stopping'}",
    ]
    workers = sorted(server.workers, key=lambda worker: worker.slot)
    rows = [_TITLES, *map(_row, workers)]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    table = ["  ".join([*map(str.rjust, row, widths), row[-1]]).rstrip() for row in rows]
    return [
        f"{server.name}: {', '.join(header)}",
        *(f"lost: {lost}" for lost in server.lost),
        *([f"log process: {server.log_process}"] if server.log_process else []),
        *map(_queue, server.queues),
        _counters(server),
        *([f"sandbox: {', '.join(server.sandbox)}"] if len(server.sandbox) > 1 else []),
        *table,
        *(line for worker in workers for line in _details(worker)),
    ]


_TITLES = ("SLOT", "PID", "GEN", "STATE", "SINCE", "REQUESTS", "HELD", "MEAN", "AGE", "NOW")


def _row(worker: WorkerStatus) -> tuple[str, ...]:
    return (
        *(str(worker.slot), str(worker.pid), str(worker.generation), worker.state),
        *(duration(worker.since), str(worker.requests), str(worker.held)),
        *(milliseconds(worker.mean), duration(worker.age)),
        call_line(worker.calls[0]) if worker.calls else "",
    )


def _details(worker: WorkerStatus) -> list[str]:
    """The lines about a worker that do not fit into its row."""
    lines = [f"slot {worker.slot}: {call_line(call)}" for call in worker.calls[1:]]
    if worker.websockets:
        lines.append(f"slot {worker.slot}: {quantity(worker.websockets, 'WebSocket')}")
    if worker.blocked:
        lines.append(
            f"slot {worker.slot}: its event loop has been blocked for {duration(worker.blocked)}"
        )
    if worker.error:
        age = duration(worker.error_age)
        lines.append(f"slot {worker.slot}, last error {age} ago: {printable(worker.error)}")
    return lines


def _queue(queue: QueueStatus) -> str:
    limit = "?" if queue.limit < 0 else queue.limit
    return f"queue of {queue.listener}: {queue.depth} of {limit}"


def _counters(server: ServerStatus) -> str:
    groups = [quantity(server.requests, "request")]
    for name, counts in (("reloads", server.reloads), ("restarts", server.restarts)):
        if counts:
            each = ", ".join(f"{count} {key}" for key, count in sorted(counts.items()))
            groups.append(f"{name}: {each}")
    if server.queue_time:
        groups.append(f"queue time {milliseconds(server.queue_time)}")
    if server.overflows:
        groups.append(f"{quantity(server.overflows, 'overflow')} of listen queues")
    return "; ".join(groups)


def _bounds(bounds: PoolBounds | None) -> str:
    return f" (of {bounds.min} to {bounds.max}, {bounds.spare} spare)" if bounds else ""
