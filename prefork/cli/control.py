"""The commands for a running server: reload, upgrade, stop, reopen, scale, status."""

from collections.abc import Callable
from typing import Any

import click
import msgspec

from prefork.cli._files import files
from prefork.cli._format import call_line, duration, milliseconds
from prefork.control import (
    TIMEOUT,
    ControlClient,
    ControlError,
    PoolBounds,
    QueueStatus,
    ServerStatus,
    WorkerStatus,
    find,
)
from prefork.logs import printable

Command = Callable[..., None]


def of_server(command: Command) -> Command:
    """Adds the ways to say which server is meant."""
    control = click.option("--control", metavar="PATH", help="Path of its control socket.")
    target = click.argument("target", metavar="[CONFIG]", required=False, shell_complete=files)
    return target(control(command))


def client_of(
    target: str | None, control: str | None, timeout: float | None = TIMEOUT
) -> ControlClient:
    if target is not None and control is not None:
        raise click.UsageError("give CONFIG or --control PATH, not both")
    return ControlClient(find(target, control), timeout, lambda text: click.echo(text, err=True))


class ControlCommand(click.Command):
    """Shows what went wrong as one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ControlError as error:
            raise click.ClickException(str(error)) from None


@click.command(cls=ControlCommand)
@of_server
def reload(target: str | None, control: str | None) -> None:
    """Load the configuration and the application anew, and wait for the outcome.

    Exits with 1 and the reason where it failed; the server then goes on as it was.
    """
    with client_of(target, control, timeout=None) as client:
        answer = client.call("reload")
    for change in answer.get("changes", []):
        click.echo(change)
    click.echo(f"reloaded: generation {answer.get('generation')} serves")


@click.command(cls=ControlCommand)
@of_server
def upgrade(target: str | None, control: str | None) -> None:
    """Go over to the code that is installed now, prefork's own included, and wait for the outcome.

    Process id, sockets and connections stay. Exits with 1 and the reason where it failed; the
    server then goes on as it was.
    """
    with client_of(target, control, timeout=None) as client:
        answer = client.call("upgrade")
    for change in answer.get("changes", []):
        click.echo(change)
    versions = f"prefork {answer.get('was')} -> {answer.get('version')}"
    click.echo(f"upgraded: {versions}, generation {answer.get('generation')} serves")


@click.command(cls=ControlCommand)
@of_server
def stop(target: str | None, control: str | None) -> None:
    """Stop the server gracefully, and wait until it has ended."""
    with client_of(target, control, timeout=None) as client:
        client.stop()
    click.echo("stopped")


@click.command(cls=ControlCommand)
@of_server
def reopen(target: str | None, control: str | None) -> None:
    """Open the log files anew, after they were rotated."""
    with client_of(target, control) as client:
        client.call("reopen")
    click.echo("reopened")


@click.command(cls=ControlCommand)
@click.argument("count", metavar="N", type=click.IntRange(min=1))
@of_server
def scale(count: int, target: str | None, control: str | None) -> None:
    """Run N workers until the next reload; in a dynamic pool both bounds become N."""
    with client_of(target, control) as client:
        client.call("scale", count=count)
    click.echo(f"scaled to {count}")


@click.command(cls=ControlCommand)
@of_server
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@click.option(
    "--stack", "slot", metavar="SLOT", type=int, help="Print the Python stacks of one worker."
)
def status(target: str | None, control: str | None, as_json: bool, slot: int | None) -> None:
    """Show the server and its workers: what each does, for whom, and since when."""
    with client_of(target, control) as client:
        if slot is not None:
            told = client.call("stack", slot=slot)
            return click.echo(msgspec.json.encode(told) if as_json else str(told.get("stack")))
        answer = client.call("status")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    else:
        click.echo("\n".join(_status_lines(server_status(answer))))


def server_status(answer: dict[str, Any]) -> ServerStatus:
    try:
        return msgspec.convert(answer, ServerStatus)
    except msgspec.ValidationError as error:
        raise ControlError(f"the server is of another version; try --json ({error})") from None


def _status_lines(server: ServerStatus) -> list[str]:
    header = [
        f"pid {server.pid}",
        f"prefork {server.version}",
        f"generation {server.generation}{', reloading' if server.reloading else ''}",
        f"up {duration(server.uptime)}",
        f"target {server.target} workers{_bounds(server.bounds)}",
        f"listening on {', '.join(server.listeners)}",
    ]
    workers = sorted(server.workers, key=lambda worker: worker.slot)
    rows = [_TITLES, *map(_row, workers)]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    table = ["  ".join([*map(str.rjust, row, widths), row[-1]]).rstrip() for row in rows]
    return [
        f"{server.name}: {', '.join(header)}",
        *map(_queue, server.queues),
        _counted(server),
        *table,
        *(line for worker in workers for line in _more(worker)),
    ]


_TITLES = ("SLOT", "PID", "GEN", "STATE", "SINCE", "REQUESTS", "HELD", "MEAN", "AGE", "NOW")


def _row(worker: WorkerStatus) -> tuple[str, ...]:
    return (
        *(str(worker.slot), str(worker.pid), str(worker.generation), worker.state),
        *(duration(worker.since), str(worker.requests), str(worker.held)),
        *(milliseconds(worker.mean), duration(worker.age)),
        call_line(worker.calls[0]) if worker.calls else "",
    )


def _more(worker: WorkerStatus) -> list[str]:
    """What does not fit into a row."""
    lines = [f"slot {worker.slot}: {call_line(call)}" for call in worker.calls[1:]]
    if worker.error:
        age = duration(worker.error_age)
        lines.append(f"slot {worker.slot}, last error {age} ago: {printable(worker.error)}")
    return lines


def _queue(queue: QueueStatus) -> str:
    limit = "?" if queue.limit < 0 else queue.limit
    return f"queue of {queue.listener}: {queue.depth} of {limit}"


def _counted(server: ServerStatus) -> str:
    groups = [f"{server.requests} request{'' if server.requests == 1 else 's'}"]
    for name, counts in (("reloads", server.reloads), ("restarts", server.restarts)):
        if counts:
            each = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            groups.append(f"{name}: {each}")
    if server.queue_time:
        groups.append(f"queue time {milliseconds(server.queue_time)}")
    if server.overflows:
        groups.append(f"{server.overflows} overflows of listen queues")
    return "; ".join(groups)


def _bounds(bounds: PoolBounds | None) -> str:
    return f" (of {bounds.min} to {bounds.max}, {bounds.spare} spare)" if bounds else ""


commands: list[click.Command] = [reload, upgrade, stop, reopen, scale, status]
