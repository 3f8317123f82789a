"""`prefork wire`: the packets of a port, with explanations."""

import sys
from typing import NoReturn

import click

from prefork.client import URL, parse_url

_DEFAULT_PORT = 8000
"""Where `prefork serve` listens."""


@click.command(
    "wire",
    short_help="Show the packets of a port, with explanations.",
    # click caches the help option of a command at its first use, which may be without the group.
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("port", type=click.IntRange(1, 65535), required=False)
@click.option("-i", "--interface", help="The interface, or any.  [default: lo; any with --get]")
@click.option("-w", "--write", metavar="FILE", help="Write the packets to a pcap file, too.")
@click.option("-r", "--read", metavar="FILE", help="Show the packets of a pcap or pcapng file.")
@click.option(
    "-g", "--get", "url", metavar="URL", help="Request this URL, and show the system calls, too."
)
def command(
    port: int | None,
    interface: str | None,
    write: str | None,
    read: str | None,
    url: str | None,
) -> None:
    """Show the packets from and to PORT (8000), a line each, until Ctrl-C.

    A time is the time since the last packet of the connection.  Sequence numbers count from 0.  Of
    the TCP options those of a SYN, and SACK, are shown.

    With --get, PORT is the port of the URL, and only packets of that request are shown, each below
    the system call that sent it or waited for it.  With --read and without PORT, all ports are
    shown.

    Capturing packets needs CAP_NET_RAW; reading a file does not.

    Exits with 0; with 1 if something failed; with 2 for bad usage.
    """
    if read is not None and (interface or write or url):
        raise click.UsageError("--read cannot be used with --interface, --write or --get")
    target = None if url is None else _target(url)
    if target is not None and port not in (None, target.port):
        raise click.UsageError(
            f"PORT is {port}, and the port of the URL is {target.port}; leave PORT out with --get"
        )
    try:
        # Imported here: the other commands do not need scapy.
        from prefork.wire import show
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "scapy":
            raise
        _fail("scapy is missing; install it with: pip install 'prefork[wire]'")
    try:
        if read is not None:
            outcome = show.file(read, port, click.echo)
        elif target is not None:
            outcome = show.request(target, interface or "any", write, click.echo)
        else:
            port, interface = port or _DEFAULT_PORT, interface or "lo"
            outcome = show.traffic(port, interface, write, click.echo, _report)
    except BrokenPipeError:
        # The reader has closed the pipe, as with `| head`.
        sys.exit(1)
    except show.WireError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or write}: {error.strerror}")
    if outcome.error:
        _report(outcome.summary)
        _fail(outcome.error)
    _report(outcome.summary)


def _target(text: str) -> URL:
    try:
        url = parse_url(text)
    except ValueError as error:
        raise click.UsageError(f"{text}: {error}") from error
    if url.unix:
        raise click.UsageError(f"{text}: a Unix socket has no packets; use prefork get -v")
    return url


def _report(line: str) -> None:
    click.echo(f"prefork wire: {line}", err=True)


def _fail(line: str) -> NoReturn:
    _report(line)
    sys.exit(1)
