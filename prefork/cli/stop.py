"""`prefork stop`: a graceful stop, until the process has ended."""

import click

from prefork.cli.running_server import ServerCommand, connect, server_options


@click.command("stop", cls=ServerCommand)
@server_options
def command(target: str | None, control: str | None) -> None:
    """Stop the server gracefully, and wait until it has ended."""
    with connect(target, control, timeout=None) as client:
        client.stop()
    click.echo("stopped")
