"""What the commands for a running server share: which server is meant, and how errors look."""

from collections.abc import Callable
from typing import Any

import click

from prefork.cli.file_completion import files
from prefork.control import TIMEOUT, ControlClient, ControlError, find_socket


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the parameters `target` and `control`, which say which server is meant."""
    control = click.option(
        "--control", metavar="PATH", help="Control socket of the server, in place of CONFIG."
    )
    target = click.argument("target", metavar="[CONFIG]", required=False, shell_complete=files)
    return target(control(command))


def connect(
    target: str | None, control: str | None, timeout: float | None = TIMEOUT
) -> ControlClient:
    """A connection to the server that is meant; progress is written to standard error.

    Raises ControlError, and click.UsageError if both are given.
    """
    if target is not None and control is not None:
        raise click.UsageError("give CONFIG or --control PATH, not both")
    return ControlClient(
        find_socket(target, control), timeout, lambda text: click.echo(text, err=True)
    )


class ServerCommand(click.Command):
    """A command that reports a ControlError in one line, with exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ControlError as error:
            raise click.ClickException(str(error)) from None
