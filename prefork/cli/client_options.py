"""Options and standard streams of `get` and `talk`."""

import sys
from collections.abc import Callable
from typing import Any

import click

from prefork.client import SystemCall, Trace, format_call

_LONGEST = 1_000_000.0


def seconds(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    """Checks a duration; the largest is one that poll(2) can wait for, and `nan` is refused."""
    if not 0 <= value <= _LONGEST:
        raise click.BadParameter(f"expected 0 (no limit) to {_LONGEST:.0f} seconds")
    return value


def connect_timeout_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--connect-timeout",
        type=float,
        default=30.0,
        show_default=True,
        callback=seconds,
        help="Seconds for each address that is tried; 0: the limit of the kernel.",
    )(function)


def verbose_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Show each system call on the socket, with its result and duration.",
    )(function)


def tracer(verbose: bool) -> Trace | None:
    """A trace that prints each call to standard error, if asked for."""

    def show(call: SystemCall) -> None:
        click.echo(format_call(call), err=True)

    return show if verbose else None


def standard_input() -> int:
    """Its descriptor; a usage error if it is closed, since a socket would then get its number."""
    if sys.stdin is None:
        raise click.UsageError("standard input is closed; give /dev/null instead")
    return sys.stdin.fileno()


def standard_output() -> int:
    """Its descriptor, as with `standard_input`."""
    if sys.stdout is None:
        raise click.UsageError("standard output is closed; give /dev/null instead")
    return sys.stdout.fileno()
