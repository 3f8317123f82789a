"""`prefork scale`: another number of workers, until the next reload."""

import click

from prefork.cli.running_server import ServerCommand, connect, server_options


@click.command("scale", cls=ServerCommand)
@click.argument("count", metavar="N", type=click.IntRange(min=1))
@server_options
def command(count: int, target: str | None, control: str | None) -> None:
    """Run N workers until the next reload; in a dynamic pool both bounds become N.

    An upgrade keeps the number: only `prefork reload` reads that of the configuration again.
    """
    with connect(target, control) as client:
        client.call("scale", count=count)
    click.echo(f"scaled to {count}")
