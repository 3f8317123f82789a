"""`prefork top`: a running server, live."""

import importlib.util
import sys
import time
from pathlib import Path

import click

from prefork.cli.running_server import ServerCommand, connect, server_options
from prefork.control import decode_status


@click.command("top", cls=ServerCommand, short_help="Watch the server and its workers, live.")
@server_options
@click.option(
    "--svg",
    "picture",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one picture to an SVG file, and exit.",
)
def command(target: str | None, control: str | None, picture: Path | None) -> None:
    """Watch the server and its workers, live.

    The arrow keys choose a worker; enter shows its Python stack, x replaces it; s sorts, + and -
    scale, q quits.
    """
    if importlib.util.find_spec("rich") is None:
        raise click.ClickException("rich is missing; install it with: pip install 'prefork[top]'")
    if picture is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; prefork status prints the same once")
    # Imported here: only this command needs the library.
    from rich.console import Console

    from prefork.top.terminal import INTERVAL, Top
    from prefork.top.view import picture as drawn

    with connect(target, control) as client:
        top = Top(client, lambda: decode_status(client.call("status")))
        if picture is None:
            top.run(Console())
            return
        time.sleep(INTERVAL)  # a rate needs two samples
        top.refresh()
    picture.write_text(drawn(top.model), encoding="utf-8")
