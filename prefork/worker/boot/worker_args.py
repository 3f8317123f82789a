"""What the processes of a generation get from the master."""

from typing import TYPE_CHECKING

from msgspec import Struct

from prefork import logs
from prefork.channel import Channel
from prefork.config import Config
from prefork.listeners import Listener
from prefork.logs import LogPipeEnds
from prefork.scoreboard import Scoreboard
from prefork.stack_dump import WorkerStacks

if TYPE_CHECKING:
    from ssl import SSLContext  # OpenSSL costs each process megabytes that few servers need


class WorkerContext(Struct, frozen=True):
    """What every process of a generation gets."""

    generation: int
    name: str
    """Of the server."""
    master: int
    """Process id of the master."""
    config: Config
    listeners: tuple[Listener, ...]
    tls: "SSLContext | None"
    scoreboard: Scoreboard
    logs: logs.Logs
    log_pipes: LogPipeEnds
    """What the process writes its log to in place of the files; empty if it has those."""

    def descriptors(self) -> list[int]:
        """Those that are open in every process of the generation while it serves."""
        listeners = [listener.fileno() for listener in self.listeners]
        return [fd for fd in (*listeners, self.scoreboard.fd, *self.logs.descriptors()) if fd >= 0]


class WorkerArgs(WorkerContext, frozen=True):
    """What a worker gets."""

    slot: int
    channel: Channel
    stacks: WorkerStacks | None
    """None if the master had no descriptors to spare."""
    foreign: tuple[int, ...]
    """Descriptors that are the parent's alone."""
