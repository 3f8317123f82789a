"""The messages on the control socket: requests, progress and answers, one line of JSON each.

A client sends a request and waits for its answer before it sends the next:

    {"v": 1, "command": "scale", "args": {"count": 4}}
    {"v": 1, "progress": "..."}                   any number of them, while a reload goes on
    {"v": 1, "ok": true, ...}                     the answer, with the result of the command
    {"v": 1, "ok": false, "error": "..."}         or the reason why it failed

A receiver skips the fields of a message that it does not know, so fields may be added.  A change of
a field's meaning takes another version.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from prefork.pool_bounds import PoolBounds

VERSION = 1

REQUEST_LIMIT = 64 * 1024
"""Bytes of a request."""

ANSWER_LIMIT = 1024 * 1024
"""Bytes of an answer, together with the progress before it that the client has not read yet."""


class ControlError(Exception):
    """A server cannot be controlled, or a command failed; the text is the reason, in one line.

    serving: the number of the generation that serves on after a reload or an upgrade that failed;
        None for any other error.
    """

    def __init__(self, reason: str, serving: int | None = None) -> None:
        super().__init__(reason)
        self.serving = serving


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command; its fields are the arguments."""


class ReloadCommand(Command, frozen=True):
    """Answered at the end of the reload: `changes`, a list of texts, and `generation`, a number.

    If it has failed and changed nothing, `serving` is the generation that serves on."""


class UpgradeCommand(Command, frozen=True):
    """Answered when the upgrade has succeeded or failed, by the new code if it runs.

    The answer is that of a reload, with `was` and `version`, the versions before and now."""


class StopCommand(Command, frozen=True):
    """Answered when the stop begins; the connection is closed when the server ends."""


class ReopenCommand(Command, frozen=True):
    """Reopens the log files."""


class ScaleCommand(Command, frozen=True):
    """Sets the number of workers until the next reload; of a dynamic pool both bounds."""

    count: Annotated[int, msgspec.Meta(ge=1)]


class RetireCommand(Command, frozen=True):
    """Replaces the worker of a slot: it is retired once another is ready."""

    slot: int


class StackCommand(Command, frozen=True):
    """Answered with `pid`, and `stack`, the Python stacks of all threads of a slot's worker."""

    slot: int


class StatusCommand(Command, frozen=True):
    """Answered with the fields of `ServerStatus`."""


COMMANDS: Mapping[str, type[Command]] = {
    "reload": ReloadCommand,
    "upgrade": UpgradeCommand,
    "stop": StopCommand,
    "reopen": ReopenCommand,
    "scale": ScaleCommand,
    "status": StatusCommand,
    "stack": StackCommand,
    "retire": RetireCommand,
}


class CallStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the application that is running.

    thread: its number in the worker, from 0.
    request, peer, request_id: cut to the length that the scoreboard holds; any character may be in
        them.
    elapsed: seconds since the call began.
    waiting: seconds for which it has waited for its client, 0.0 if it does not wait.
    """

    thread: int
    request: str
    peer: str
    request_id: str = ""
    elapsed: float
    waiting: float = 0.0


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker; times are in seconds.

    state: booting, idle, reading (a part of a request has arrived), busy (in the application),
        writing (a client has not taken its whole response) or retiring.  If several hold, retiring
        comes first, then busy, writing, reading.
    since: time in this state.
    bytes: sent by it.
    held, parked: its connections, and those of them that wait for their client.
    writing: those of the latter whose client has not taken its whole response.
    websockets: its open WebSockets.
    blocked: for how long its event loop has been blocked; 0.0 if it is not, or has none.
    mean: the mean time of a call of the application.
    error, error_age: the last failure of the application, and the time since then.
    age: time since its fork.
    """

    slot: int
    pid: int
    generation: int
    state: str
    since: float = 0.0
    requests: int
    bytes: int = 0
    held: int = 0
    parked: int = 0
    writing: int = 0
    websockets: int = 0
    blocked: float = 0.0
    mean: float = 0.0
    error: str = ""
    error_age: float = 0.0
    calls: list[CallStatus] = []
    age: float


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A listen queue: the number of connections that wait in it, and its limit (-1: not known)."""

    listener: str
    depth: int
    limit: int


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A server.

    file: the absolute path of its configuration file, "" if it has none.
    build: "compiled" or "pure Python".
    uptime: in seconds.
    listeners: those that are open; a server that stops closes them.
    target: the number of workers that it is to have.
    bounds: the range of `target`, which follows demand; None for a fixed pool.
    requests: those of all workers since the start.
    restarts: the number of workers that were replaced, by reason.
    reloads: the number of reloads that have ended, by result.
    overflows: handshakes that the kernel dropped since the start because a TCP listen queue was
        full, in the whole network namespace.
    lost: files of listeners, the control socket and the pidfile that were removed or replaced, as
        "listener /run/shop.sock: it was removed".
    log_process: why the process that writes the lines of workers to the log files is missing, or
        was missing a few seconds ago; "" if all is well, or if there is none.
    sandbox: what confines the workers, each in a few words.
    queue_time: the mean in seconds, by the X-Request-Start of requests; 0 without that header.
    """

    name: str
    file: str = ""
    pid: int
    version: str
    build: str = ""
    generation: int
    uptime: float
    listeners: list[str]
    target: int
    bounds: PoolBounds | None = None
    reloading: bool
    requests: int = 0
    restarts: dict[str, int] = {}
    reloads: dict[str, int] = {}
    queues: list[QueueStatus] = []
    overflows: int = 0
    queue_time: float = 0.0
    sandbox: list[str] = []
    lost: list[str] = []
    log_process: str = ""
    workers: list[WorkerStatus]


class _Envelope(msgspec.Struct):
    v: int
    command: str = ""
    args: dict[str, Any] = {}


def encode(message: Mapping[str, Any]) -> bytes:
    """A message of this version as a line, with its end of line."""
    return msgspec.json.encode({"v": VERSION, **message}) + b"\n"


def decode_request(line: bytes) -> Command:
    """The command of a request.

    Raises ControlError if the line is not a request, or is of another version, and for an unknown
    command and wrong arguments.
    """
    try:
        envelope = msgspec.json.decode(line, type=_Envelope)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"not a request of the control protocol: {error}") from None
    if envelope.v != VERSION:
        raise ControlError(
            f"unknown version {envelope.v} of the control protocol; this server speaks {VERSION}"
        )
    if (kind := COMMANDS.get(envelope.command)) is None:
        known = ", ".join(COMMANDS)
        raise ControlError(f"unknown command {envelope.command!r}; the commands are {known}")
    try:
        return msgspec.convert(envelope.args, kind)
    except ValueError as error:
        raise ControlError(f"{envelope.command}: {error}") from None


def decode_status(answer: Mapping[str, Any]) -> ServerStatus:
    """The answer to `StatusCommand`.

    Raises ControlError if a field is missing or of another type, as from another version.
    """
    try:
        return msgspec.convert(answer, ServerStatus)
    except msgspec.ValidationError as error:
        raise ControlError(
            f"the server runs another version of prefork; try status --json ({error})"
        ) from None
