"""The commands for a running server: reload, upgrade, stop, reopen, scale, status."""

from collections.abc import Callable
from typing import Any

import click
import msgspec

from prefork.control import TIMEOUT, Client, ControlError, PoolBounds, ServerStatus, find

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))

Command = Callable[..., None]


def _of_server(command: Command) -> Command:
    """Adds the ways to say which server is meant."""
    control = click.option("--control", metavar="PATH", help="Path of its control socket.")
    target = click.argument("target", metavar="[CONFIG]", required=False)
    return target(control(command))


def _client(target: str | None, control: str | None, timeout: float | None = TIMEOUT) -> Client:
    if target is not None and control is not None:
        raise click.UsageError("give CONFIG or --control PATH, not both")
    return Client(find(target, control), timeout, lambda text: click.echo(text, err=True))


class _Command(click.Command):
    """Shows what went wrong as one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ControlError as error:
            raise click.ClickException(str(error)) from None


@click.command(cls=_Command)
@_of_server
def reload(target: str | None, control: str | None) -> None:
    """Load the configuration and the application anew, and wait for the outcome.

    Exits with 1 and the reason where it failed; the server then goes on as it was.
    """
    with _client(target, control, timeout=None) as client:
        answer = client.call("reload")
    for change in answer.get("changes", []):
        click.echo(change)
    click.echo(f"reloaded: generation {answer.get('generation')} serves")


@click.command(cls=_Command)
@_of_server
def upgrade(target: str | None, control: str | None) -> None:
    """Go over to the code that is installed now, prefork's own included, and wait for the outcome.

    Process id, sockets and connections stay. Exits with 1 and the reason where it failed; the
    server then goes on as it was.
    """
    with _client(target, control, timeout=None) as client:
        answer = client.call("upgrade")
    for change in answer.get("changes", []):
        click.echo(change)
    versions = f"prefork {answer.get('was')} -> {answer.get('version')}"
    click.echo(f"upgraded: {versions}, generation {answer.get('generation')} serves")


@click.command(cls=_Command)
@_of_server
def stop(target: str | None, control: str | None) -> None:
    """Stop the server gracefully, and wait until it has ended."""
    with _client(target, control, timeout=None) as client:
        client.call("stop")
        client.wait_closed()
    click.echo("stopped")


@click.command(cls=_Command)
@_of_server
def reopen(target: str | None, control: str | None) -> None:
    """Open the log files anew, after they were rotated."""
    with _client(target, control) as client:
        client.call("reopen")
    click.echo("reopened")


@click.command(cls=_Command)
@click.argument("count", metavar="N", type=click.IntRange(min=1))
@_of_server
def scale(count: int, target: str | None, control: str | None) -> None:
    """Run N workers until the next reload; in a dynamic pool both bounds become N."""
    with _client(target, control) as client:
        client.call("scale", count=count)
    click.echo(f"scaled to {count}")


@click.command(cls=_Command)
@_of_server
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def status(target: str | None, control: str | None, as_json: bool) -> None:
    """Show the server and its workers."""
    with _client(target, control) as client:
        answer = client.call("status")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    else:
        click.echo("\n".join(_status_lines(_server_status(answer))))


def _server_status(answer: dict[str, Any]) -> ServerStatus:
    try:
        return msgspec.convert(answer, ServerStatus)
    except msgspec.ValidationError as error:
        raise ControlError(f"the server is of another version; try --json ({error})") from None


def _status_lines(server: ServerStatus) -> list[str]:
    header = [
        f"pid {server.pid}",
        f"prefork {server.version}",
        f"generation {server.generation}{', reloading' if server.reloading else ''}",
        f"up {_duration(server.uptime)}",
        f"target {server.target} workers{_bounds(server.bounds)}",
        f"listening on {', '.join(server.listeners)}",
    ]
    rows: list[tuple[str, ...]] = [("SLOT", "PID", "GENERATION", "STATE", "REQUESTS", "AGE")]
    for worker in sorted(server.workers, key=lambda worker: worker.slot):
        *numbers, age = msgspec.structs.astuple(worker)
        rows.append((*map(str, numbers), _duration(age)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    return [f"{server.name}: {', '.join(header)}", *table]


def _bounds(bounds: PoolBounds | None) -> str:
    return f" (of {bounds.min} to {bounds.max}, {bounds.spare} spare)" if bounds else ""


def _duration(seconds: float) -> str:
    """The two largest units: `4 s`, `2 h 5 min`."""
    rest, parts = int(seconds), []
    for unit, size in _UNITS:
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


commands: list[click.Command] = [reload, upgrade, stop, reopen, scale, status]
