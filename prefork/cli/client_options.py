"""Options that `get` and `talk` share."""

import sys
from collections.abc import Callable
from typing import Any

import click

from prefork.client import SystemCall, Trace, format_call

_LONGEST = 1_000_000.0


def seconds(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    """A duration that the system can wait for; `nan` is none."""
    if not 0 <= value <= _LONGEST:
        raise click.BadParameter(f"from 0 (no limit) to {_LONGEST:.0f} seconds")
    return value


def connect_timeout_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--connect-timeout",
        type=float,
        default=30.0,
        show_default=True,
        callback=seconds,
        help="Seconds for each address that is tried; 0 for what the kernel allows.",
    )(function)


def verbose_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Show each system call on the socket, what came back and how long it took.",
    )(function)


def tracer(verbose: bool) -> Trace | None:
    """Prints each call to standard error, where asked for."""

    def show(call: SystemCall) -> None:
        click.echo(format_call(call), err=True)

    return show if verbose else None


def standard_input() -> int:
    """Its descriptor; a usage error where there is none and a socket would get its number."""
    if sys.stdin is None:
        raise click.UsageError("standard input is closed; give /dev/null instead")
    return sys.stdin.fileno()


def standard_output() -> int:
    """Its descriptor, as with `standard_input`."""
    if sys.stdout is None:
        raise click.UsageError("standard output is closed; give /dev/null instead")
    return sys.stdout.fileno()
