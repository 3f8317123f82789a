"""`prefork reopen`: new log files after a rotation."""

from pathlib import Path

import click

from prefork.cli.running_server import (
    ServerCommand,
    connect_to,
    for_each,
    server_options,
    socket_of,
)
from prefork.control import running_servers


@click.command("reopen", cls=ServerCommand)
@server_options
@click.option("--all", "everyone", is_flag=True, help="All running servers of this user.")
def command(target: str | None, control: str | None, everyone: bool) -> None:
    """Reopen the log files, after a rotation.

    With --all, servers that are dead are passed over, and one that fails does not keep the others
    from it. Servers with control.path are not found.
    """
    if everyone and (target is not None or control is not None):
        raise click.UsageError("give SERVER, --control PATH or --all")
    for_each(running_servers() if everyone else [socket_of(target, control)], _reopen)
    click.echo("reopened")


def _reopen(path: Path) -> None:
    with connect_to(path) as client:
        client.call("reopen")
