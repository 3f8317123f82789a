"""`prefork talk`: a raw connection between standard input and output and a server."""

import sys

import click

from prefork.address import Address, parse
from prefork.cli.client_options import (
    connect_timeout_option,
    standard_input,
    standard_output,
    tracer,
    verbose_option,
)
from prefork.client import ClientConnection, ClientError, Trace, dial, dial_unix, relay


@click.command("talk", short_help="Open a raw connection.")
@click.argument("address", metavar="ADDR")
@connect_timeout_option
@verbose_option
def command(address: str, connect_timeout: float, verbose: bool) -> None:
    """Send standard input to ADDR and write received bytes to standard output.

    ADDR is host:port, [v6]:port, unix:/path or unix:@abstract.  The end of standard input only ends
    the sending; the command ends when the other side closes the connection.
    """
    target, source, sink = _target(address), standard_input(), standard_output()
    try:
        connection = _dial(target, connect_timeout, tracer(verbose))
        try:
            relay(connection, source, sink)
        finally:
            connection.close()
    except BrokenPipeError:
        # The reader has closed the pipe, as with `| head`.
        sys.exit(1)
    except ClientError as error:
        click.echo(f"prefork talk: {address}: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"prefork talk: write standard output: {error.strerror}", err=True)
        sys.exit(1)


def _target(text: str) -> Address:
    try:
        target = parse(text)
    except ValueError as error:
        raise click.UsageError(f"{text}: {error}") from error
    if target.kind not in ("tcp", "unix", "abstract") or (target.kind == "tcp" and not target.port):
        raise click.UsageError(f"{text}: not an address to connect to; give host:port or unix:PATH")
    return target


def _dial(target: Address, timeout: float, trace: Trace | None) -> ClientConnection:
    if target.kind == "tcp":
        return dial(target.host, target.port, timeout=timeout, trace=trace)
    path = f"@{target.path}" if target.kind == "abstract" else target.path
    return dial_unix(path, timeout=timeout, trace=trace)
