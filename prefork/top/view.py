"""The layout of `top`: from a model to what rich draws; 80 columns are enough."""

import io
from collections import Counter

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from prefork.control import ServerStatus, WorkerStatus
from prefork.control.time_units import duration, milliseconds
from prefork.logs import printable
from prefork.quantity import quantity
from prefork.top.model import Model, Row

_COLOURS = {
    "booting": "yellow",
    "idle": "green",
    "reading": "cyan",
    "busy": "bold red",
    "writing": "blue",
    "retiring": "magenta",
}
_BARS = "▁▂▃▄▅▆▇█"
_KEYS = (
    ("↑↓", "choose"),
    ("enter", "its stack"),
    ("s", "sort"),
    ("+ -", "scale"),
    ("x", "retire"),
    ("q", "quit"),
)


def draw(model: Model, width: int, height: int) -> RenderableType:
    """The whole screen."""
    head = _head(model, width)
    foot = _foot(model)
    room = max(height - len(head) - 2, 2)
    if model.stack is None:
        return Group(*head, _table(model, room), foot)
    rows = min(len(model.now.server.workers), max(room // 3, 1))
    return Group(*head, _table(model, rows), *_stack(model, room - rows), foot)


def picture(model: Model, width: int = 80) -> str:
    """The screen as SVG, high enough for all workers."""
    height = len(model.now.server.workers) + 8
    console = Console(record=True, width=width, height=height, file=io.StringIO())
    console.print(draw(model, width, height))
    return console.export_svg(title="prefork top")


def _head(model: Model, width: int) -> list[Text]:
    server = model.now.server
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(printable(server.name), "bold")
    line.append(f"  prefork {server.version}  pid {server.pid}  generation {server.generation}")
    line.append(f"  up {duration(server.uptime)}")
    if server.reloading:
        line.append("  reloading", "yellow")
    lines = [line, _traffic(model, width), *_queues(server)]
    return [*lines, Text()]


def _traffic(model: Model, width: int) -> Text:
    server = model.now.server
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{model.rate:.0f}", "bold")
    line.append(" requests/s  ")
    states = Counter(worker.state for worker in server.workers)
    line.append(f"{len(server.workers)} of {quantity(server.target, 'worker')}:")
    for state, count in sorted(states.items()):
        line.append(f" {count} {state}", _COLOURS.get(state, ""))
    if server.queue_time:
        line.append(f"  queue time {milliseconds(server.queue_time)}")
    room = width - line.cell_len - 2
    if room >= 10 and len(model.rates) > 1 and any(model.rates):
        top = max(model.rates)
        shown = model.rates[-min(room, 30) :]
        bars = "".join(_BARS[round(rate / top * (len(_BARS) - 1))] for rate in shown)
        line.append(f"  {bars}", "green")
    return line


def _queues(server: ServerStatus) -> list[Text]:
    lines = []
    for queue in server.queues:
        limit = "?" if queue.limit < 0 else str(queue.limit)
        full = queue.limit > 0 and queue.depth > queue.limit / 2
        line = Text("queue ", no_wrap=True, overflow="ellipsis")
        line.append(printable(queue.listener))
        line.append(f"  {queue.depth} of {limit}", "bold red" if full else "")
        lines.append(line)
    if lines:
        style = "bold red" if server.overflows else ""
        lines[-1].append(f"  {quantity(server.overflows, 'overflow')}", style)
    return lines


def _table(model: Model, room: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="reverse")
    for name in ("SLOT", "PID", "GEN", "STATE", "FOR", "REQ/S", "MEAN", "MEM", "CPU"):
        table.add_column(name, justify="left" if name == "STATE" else "right", no_wrap=True)
    table.add_column("NOW", ratio=1, no_wrap=True, overflow="ellipsis")
    rows = model.rows()
    chosen = next((i for i, row in enumerate(rows) if row.worker.slot == model.selected), 0)
    first = max(min(chosen - room // 2, len(rows) - room), 0)
    for row in rows[first : first + room]:
        style = "reverse" if row.worker.slot == model.selected else ""
        table.add_row(*_cells(row), style=style)
    return table


def _cells(row: Row) -> list[Text]:
    worker = row.worker
    texts = (
        *(str(worker.slot), str(worker.pid), str(worker.generation)),
        *(worker.state, _short(worker.since), f"{row.rate:.0f}"),
        *(milliseconds(row.mean), _mebibytes(row.memory), f"{row.cpu:.0%}", _now(worker)),
    )
    cells = [Text(text) for text in texts]
    cells[3].stylize(_COLOURS.get(worker.state, ""))
    return cells


def _now(worker: WorkerStatus) -> str:
    """Whether its loop is blocked, the number of WebSockets, and the request that has run for
    longest, or the last error."""
    texts = [f"blocked for {_short(worker.blocked)}"] if worker.blocked else []
    if worker.websockets:
        texts.append(quantity(worker.websockets, "WebSocket"))
    if call := _call(worker):
        texts.append(call)
    return "; ".join(texts)


def _call(worker: WorkerStatus) -> str:
    if worker.calls:
        call = max(worker.calls, key=lambda call: call.elapsed)
        more = f" +{len(worker.calls) - 1}" if len(worker.calls) > 1 else ""
        return f"{_short(call.elapsed)}{more} {printable(call.request)} {printable(call.peer)}"
    if worker.error:
        return f"({duration(worker.error_age)} ago) {printable(worker.error)}"
    return ""


def _short(seconds: float) -> str:
    """The largest unit: `0.4s`, `12s`, `3m`, `5h`, `2d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f}M" if size < 10 * 2**30 else f"{size / 2**30:.0f}G"


def _stack(model: Model, room: int) -> list[Text]:
    title = Text(f"slot {model.selected}, its threads, most recent call first", "bold")
    lines = (model.stack or "").splitlines()
    shown = lines[: room - 1]
    if len(lines) > len(shown):
        shown[-1:] = [f"  ... prefork status --stack {model.selected} prints all"]
    return [title, *(Text(printable(line), no_wrap=True, overflow="ellipsis") for line in shown)]


def _foot(model: Model) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    if model.question:
        line.append(f"{printable(model.question)} (y/n)", "bold yellow")
        return line
    for key, does in _KEYS:
        line.append(key, "bold")
        line.append(f" {does}{f' ({model.order})' if does == 'sort' else ''}  ")
    if model.message:
        line = Text(printable(model.message), "yellow", no_wrap=True, overflow="ellipsis")
    return line
