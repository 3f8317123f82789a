"""`prefork upgrade`: a new master in the same process, from the code that is installed now."""

import click

from prefork.cli.running_server import ServerCommand, connect, server_options, show


@click.command("upgrade", cls=ServerCommand)
@server_options
def command(target: str | None, control: str | None) -> None:
    """Change to the installed version of prefork and of the application, and wait for the result.

    Process id, sockets and connections stay. Exits with 1 and the reason if the upgrade failed; the
    server then goes on as before.
    """
    with connect(target, control, timeout=None) as client:
        answer = client.call("upgrade")
    for change in answer.get("changes", []):
        show(change)
    versions = f"prefork {answer.get('was')} -> {answer.get('version')}"
    show(f"upgraded: {versions}, generation {answer.get('generation')} serves")
