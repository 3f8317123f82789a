"""`prefork stop`: a graceful stop, until the process has ended."""

from collections.abc import Iterator
from pathlib import Path

import click

from prefork.cli.running_server import ServerCommand, connect_to, server_options, socket_of
from prefork.control import ControlError, ServerStatus, decode_status
from prefork.control.time_units import call_line
from prefork.quantity import quantity

_ANSWER = 2.0
"""Seconds in which the server has to say what it waits for."""


@click.command("stop", cls=ServerCommand)
@server_options
def command(target: str | None, control: str | None) -> None:
    """Stop the server gracefully, and wait until it has ended."""
    path = socket_of(target, control)
    with connect_to(path, timeout=None) as client:
        client.stop(_Waiting(path).report)
    click.echo("stopped")


class _Waiting:
    """Reports each reason why a stop waits, once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reported: set[object] = set()

    def report(self) -> None:
        try:
            with connect_to(self._path, _ANSWER) as client:
                server = decode_status(client.call("status"))
        except ControlError:
            return  # it has just ended, or is another version
        for reason, line in _reasons(server):
            if reason not in self._reported:
                self._reported.add(reason)
                click.echo(line, err=True)


def _reasons(server: ServerStatus) -> Iterator[tuple[object, str]]:
    """Why a server has not ended yet: what tells a reason from others, and its line."""
    if not any(worker.state == "retiring" for worker in server.workers):
        yield "serving", "waiting: the workers still serve (workers.drain_delay, or handshakes)"
        return
    for worker in server.workers:
        name = f"waiting for worker {worker.slot} (pid {worker.pid})"
        for call in worker.calls:
            yield (worker.pid, call.request, call.peer), f"{name}: {call_line(call)}"
        if worker.writing:
            yield (
                (worker.pid, "writing", worker.writing),
                f"{name}: {quantity(worker.writing, 'client')} with a response to take",
            )
        if worker.websockets:
            yield (
                (worker.pid, "websockets", worker.websockets),
                f"{name}: {quantity(worker.websockets, 'WebSocket')}, which it closes one after the"
                " other",
            )
        if idle := max(worker.parked - worker.writing - worker.websockets, 0):
            yield (
                (worker.pid, idle),
                f"{name}: {quantity(idle, 'client')} connected, which may send a request",
            )
        if not worker.calls and not worker.parked:
            yield worker.pid, f"{name}: no request is left; its exit hooks or threads go on"
