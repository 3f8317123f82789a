"""`prefork wire`: the packets of a port, as a conversation that explains itself."""

import sys
from typing import NoReturn

import click

from prefork.client import URL, parse_url

_DEFAULT_PORT = 8000
"""Where `prefork serve` listens."""


@click.command("wire", short_help="Show the packets of a port as a conversation.")
@click.argument("port", type=click.IntRange(1, 65535), required=False)
@click.option("-i", "--interface", help="Where to look, or any.  [default: lo; any with --get]")
@click.option("-w", "--write", metavar="FILE", help="Keep the packets in a pcap file too.")
@click.option("-r", "--read", metavar="FILE", help="Show the packets of a pcap or pcapng file.")
@click.option(
    "-g", "--get", "url", metavar="URL", help="Request it, and show the system calls too."
)
def command(
    port: int | None,
    interface: str | None,
    write: str | None,
    read: str | None,
    url: str | None,
) -> None:
    """Show the packets from and to PORT (8000), a line each, until Ctrl-C.

    Times are since the last packet of the connection.  Sequence numbers count from 0.  Options are
    shown where they matter: those of a SYN, and SACK.

    With --get, PORT is the URL's, and only that request's own packets are shown, each below the
    system call that sent it or waited for it.  With --read, all ports are shown where PORT is not
    given.

    Looking at a network takes the right to (CAP_NET_RAW), reading a file does not.

    Exits 0, 1 where something failed, 2 for bad usage.
    """
    if read is not None and (interface or write or url):
        raise click.UsageError("--read shows a file: no --interface, --write or --get with it")
    if url is not None and port is not None:
        raise click.UsageError("--get takes the port of its URL: no PORT with it")
    target = None if url is None else _target(url)
    try:
        # Only here: the other commands, and the list of them, do without scapy.
        from prefork.wire import show
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "scapy":
            raise
        _fail("scapy is missing; install it with: pip install 'prefork[wire]'")
    try:
        if read is not None:
            told = show.file(read, port, click.echo)
        elif target is not None:
            told = show.request(target, interface or "any", write, click.echo)
        else:
            port, interface = port or _DEFAULT_PORT, interface or "lo"
            told = show.traffic(port, interface, write, click.echo, _tell)
    except BrokenPipeError:
        # The reader has what it wanted, as with `| head`.
        sys.exit(1)
    except show.WireError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or write}: {error.strerror}")
    if told.error:
        _tell(told.summary)
        _fail(told.error)
    _tell(told.summary)


def _target(text: str) -> URL:
    try:
        url = parse_url(text)
    except ValueError as error:
        raise click.UsageError(f"{text}: {error}") from error
    if url.unix:
        raise click.UsageError(f"{text}: a Unix socket has no packets; see prefork get -v")
    return url


def _tell(line: str) -> None:
    click.echo(f"prefork wire: {line}", err=True)


def _fail(line: str) -> NoReturn:
    _tell(line)
    sys.exit(1)
