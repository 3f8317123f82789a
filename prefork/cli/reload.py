"""`prefork reload`: a new generation of workers, with the present configuration and code."""

import click

from prefork.cli.running_server import ServerCommand, connect, server_options, show


@click.command("reload", cls=ServerCommand)
@server_options
def command(target: str | None, control: str | None) -> None:
    """Load the configuration and the application again, and wait for the result.

    Exits with 1 and the reason if the reload failed; the server then goes on as before.
    """
    with connect(target, control, timeout=None) as client:
        answer = client.call("reload")
    for change in answer.get("changes", []):
        show(change)
    show(f"reloaded: generation {answer.get('generation')} serves")
