"""`prefork top`: a running server, live."""

import importlib.util
import sys
import time
from pathlib import Path

import click

from prefork.cli.control import ControlCommand, client_of, of_server, server_status


@click.command("top", cls=ControlCommand, short_help="Watch the server and its workers, live.")
@of_server
@click.option(
    "--svg",
    "picture",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one picture of it to a file, and end.",
)
def command(target: str | None, control: str | None, picture: Path | None) -> None:
    """Watch the server and its workers, live.

    Arrows choose a worker; enter shows its Python stack, x replaces it; s sorts, + and - scale, q
    quits.
    """
    if importlib.util.find_spec("rich") is None:
        raise click.ClickException("top needs rich: pip install 'prefork[top]'")
    if picture is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; `prefork status` tells the same once")
    # Imported here: only this command needs the library.
    from rich.console import Console

    from prefork.top.terminal import EVERY, Top
    from prefork.top.view import picture as drawn

    with client_of(target, control) as client:
        top = Top(client, lambda: server_status(client.call("status")))
        if picture is None:
            top.run(Console())
            return
        time.sleep(EVERY)  # two looks make a rate
        top.see()
    picture.write_text(drawn(top.model), encoding="utf-8")
