"""Steps as lines: connection, time since the last packet, an arrow, the meaning."""

from collections.abc import Iterator

from prefork.client.trace import SystemCall, format_call, format_duration
from prefork.wire.conversations import CapturedConnection, Step
from prefork.wire.packet import Flags

_WIDTH = 44
"""Columns from one endpoint to the other."""
_MARGIN = 14


def heading(connection: CapturedConnection) -> list[str]:
    """Two lines with the endpoints of a connection above their columns."""
    client, server = str(connection.client), str(connection.server)
    between = " " * max(2, _WIDTH + 2 - len(client) - len(server))
    roles = f"{'client':<{len(client)}}{between}{'server':>{len(server)}}"
    return [
        f"{f'connection {connection.number}':<{_MARGIN}}{client}{between}{server}".rstrip(),
        f"{'':<{_MARGIN}}{roles}",
    ]


def lines(step: Step) -> Iterator[str]:
    """The line of a packet, and a second one for the options of a SYN, and SACK."""
    what = [step.meaning, *(f"{line}" for line in step.packet.lines)]
    since = format_duration(step.since / 1e9)
    yield f"{step.connection.number:>3} {since:>9} |{_arrow(step)}|  {'  '.join(what)}"
    options: list[str] = []
    if step.packet.flags & Flags.SYN:
        options += step.packet.options
    options += [f"SACK {start}-{end}" for start, end in step.sack]
    if options:
        yield f"{'':<{_MARGIN}}|{'':{_WIDTH}}|  {', '.join(options)}"


def call_line(call: SystemCall) -> str:
    """The line of a system call of the client, above its packets."""
    return format_call(call)


def _arrow(step: Step) -> str:
    label = f"{step.packet.flags or 'none'} seq={step.seq}"
    if step.ack is not None:
        label += f" ack={step.ack}"
    label += f" len={step.packet.length}"
    room = _WIDTH - 4
    if step.from_client:
        return f"-- {f'{label} '.ljust(room, '-')}>"
    return f"<{f' {label}'.rjust(room, '-')} --"
