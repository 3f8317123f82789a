"""What the commands for a running server share: which server is meant, and how errors look."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from prefork.cli.file_completion import files
from prefork.control import TIMEOUT, ControlClient, ControlError, find_socket
from prefork.logs import printable_lines


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the parameters `target` and `control`, which say which server is meant.

    SERVER is its name, one of its addresses, or what `prefork serve` was given.
    """
    control = click.option(
        "--control", metavar="PATH", help="Control socket of the server, in place of SERVER."
    )
    target = click.argument("target", metavar="[SERVER]", required=False, shell_complete=files)
    return target(control(command))


def connect(
    target: str | None, control: str | None, timeout: float | None = TIMEOUT
) -> ControlClient:
    """A connection to the server that is meant; progress is written to standard error.

    Raises ControlError, and click.UsageError if both are given.
    """
    return connect_to(socket_of(target, control), timeout)


def socket_of(target: str | None, control: str | None) -> Path:
    """The control socket of the server that is meant.  Raises as `connect` does."""
    if target is not None and control is not None:
        raise click.UsageError("give SERVER or --control PATH, not both")
    return find_socket(target, control)


def connect_to(path: Path, timeout: float | None = TIMEOUT) -> ControlClient:
    """A connection to the server at a control socket, as `connect` makes it."""
    return ControlClient(path, timeout, lambda text: show(text, err=True))


def for_each(paths: Iterable[Path], action: Callable[[Path], object]) -> None:
    """Calls `action` with each path; an error of one does not keep the others from it.

    Raises click.ClickException at the end if one of them had an error.
    """
    errors = []
    for path in paths:
        try:
            action(path)
        except ControlError as error:
            errors.append(str(error))
    if errors:
        raise click.ClickException(printable_lines("\n".join(errors)))


def show(text: str, *, err: bool = False) -> None:
    """Prints text that came from a server.

    Stacks, error summaries and reasons of failures come from workers, so from code that the user
    of the command need not trust with the terminal: control characters are escaped.
    """
    click.echo(printable_lines(text), err=err)


class ServerCommand(click.Command):
    """A command that reports a ControlError in one line, with exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ControlError as error:
            reason = printable_lines(str(error))
            if error.serving is not None:
                reason = f"{self.name} failed, and generation {error.serving} serves on:\n{reason}"
            raise click.ClickException(reason) from None
