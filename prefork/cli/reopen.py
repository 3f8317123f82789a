"""`prefork reopen`: new log files after a rotation."""

import click

from prefork.cli.running_server import ServerCommand, connect, server_options


@click.command("reopen", cls=ServerCommand)
@server_options
def command(target: str | None, control: str | None) -> None:
    """Reopen the log files, after a rotation."""
    with connect(target, control) as client:
        client.call("reopen")
    click.echo("reopened")
