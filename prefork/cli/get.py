"""`prefork get`: a HTTP client that can show its system calls."""

import contextlib
import os
import sys
from collections.abc import Iterator

import click

from prefork.cli.client_options import (
    connect_timeout_option,
    seconds,
    standard_input,
    standard_output,
    tracer,
    verbose_option,
)
from prefork.client import (
    URL,
    ClientError,
    ClientRequest,
    ClientResponse,
    HttpClient,
    RequestContent,
)
from prefork.client.output import Progress, write
from prefork.client.request_writer import check_method, parse_header
from prefork.client.url import parse_url

FAILED = 1
REFUSED = 22
"""The exit status for a status of 400 or more with --fail, as with curl."""


@click.command("get", short_help="Request URLs through a plain socket.")
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("-X", "--method", help="The method; default: GET, or POST with --data.")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    help="'Name: value'; 'Name:' removes a default header.",
)
@click.option("-d", "--data", help="The body: a text, @FILE, or @- for standard input.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    help="File for the body; once for each URL, in order.",
)
@click.option(
    "-i", "--include", is_flag=True, help="Write the head of the response before its body."
)
@click.option(
    "-f", "--fail", is_flag=True, help="Exit with 22, without a body, on a status of 400 and above."
)
@click.option("-L", "--location", is_flag=True, help="Follow redirects.")
@click.option(
    "--max-redirs",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Number of redirects that -L follows.",
)
@click.option(
    "--timeout",
    type=float,
    default=0.0,
    show_default=True,
    callback=seconds,
    help="Seconds for each URL as a whole; 0: no limit.",
)
@connect_timeout_option
@click.option("-k", "--insecure", is_flag=True, help="Accept any certificate.")
@click.option(
    "--unix", default="", metavar="PATH", help="Connect to this Unix socket (or @abstract)."
)
@verbose_option
def command(
    urls: tuple[str, ...],
    method: str | None,
    headers: tuple[str, ...],
    data: str | None,
    outputs: tuple[str, ...],
    include: bool,
    fail: bool,
    location: bool,
    max_redirs: int,
    timeout: float,
    connect_timeout: float,
    insecure: bool,
    unix: str,
    verbose: bool,
) -> None:
    """Request URLs and write the bodies of the responses to standard output.

    URLs may be http://, https:// or http+unix://%2Fpath%2Fof%2Fsocket/.  URLs of one server share
    one connection.  Bodies may have any size in both directions.

    With -L, another scheme, host or port gets none of your headers that may hold a secret, which
    are all but those known to be harmless.  Standard error names them.

    Exits with 0; with 1 if a URL failed (standard error names the step); with 2 for bad usage.
    """
    if len(outputs) > len(urls):
        raise click.UsageError("there are more --output options than URLs")
    standard_output()
    redirects = max_redirs if location else None
    code = 0
    client = HttpClient(
        connect_timeout=connect_timeout,
        timeout=timeout,
        verify=not insecure,
        trace=tracer(verbose),
    )
    with _body(data) as body, client:
        if body is not None and not body.replayable and len(urls) > 1:
            raise click.UsageError("a body from a pipe can be sent to one URL only")
        requests = [_request(url, unix, method, headers, body) for url in urls]
        for text, request, path in zip(urls, requests, _paths(outputs, urls), strict=True):
            try:
                response = client.request(request, redirects)
                if response.request.withheld:
                    names = ", ".join(response.request.withheld)
                    _report(text, f"redirect: to another origin, without your headers: {names}")
                if fail and response.status >= 400:
                    response.discard()
                    _report(text, f"{response.status} {ascii(response.reason)[1:-1]}")
                    code = code or REFUSED
                else:
                    _save(response, path, include)
            except BrokenPipeError:
                # The reader has closed the pipe, as with `| head`.
                sys.exit(FAILED)
            except ClientError as error:
                _report(text, str(error))
                code = code or FAILED
            except OSError as error:
                _report(text, f"write {path or 'standard output'}: {error.strerror}")
                code = code or FAILED
    sys.exit(code)


def _request(
    url: str, unix: str, method: str | None, headers: tuple[str, ...], body: RequestContent | None
) -> ClientRequest:
    try:
        return ClientRequest(
            _url(url, unix),
            check_method(method or ("GET" if body is None else "POST")),
            tuple(map(parse_header, headers)),
            body,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _url(text: str, unix: str) -> URL:
    try:
        return parse_url(text, unix)
    except ValueError as error:
        raise click.UsageError(f"{text}: {error}") from error


def _paths(outputs: tuple[str, ...], urls: tuple[str, ...]) -> list[str]:
    """A file for each URL, empty for standard output."""
    named = ["" if path == "-" else path for path in outputs]
    return named + [""] * (len(urls) - len(outputs))


@contextlib.contextmanager
def _body(data: str | None) -> Iterator[RequestContent | None]:
    if data is None:
        yield None
    elif not data.startswith("@"):
        yield RequestContent(os.fsencode(data))
    elif data == "@-":
        yield RequestContent(fd=standard_input())
    else:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(data[1:], "rb", buffering=0))
            except OSError as error:
                raise click.UsageError(f"--data {data}: {error.strerror}") from error
            yield RequestContent(fd=file.fileno())


def _save(response: ClientResponse, path: str, include: bool) -> None:
    with _sink(path) as sink:
        bar = Progress(sys.stderr, response.length) if path and sys.stderr.isatty() else None
        write(response, sink, include=include, bar=bar)


@contextlib.contextmanager
def _sink(path: str) -> Iterator[int]:
    if path:
        with open(path, "wb", buffering=0) as file:
            yield file.fileno()
    else:
        yield standard_output()


def _report(url: str, reason: str) -> None:
    click.echo(f"prefork get: {url}: {reason}", err=True)
