"""The control socket, as both of its sides know it: messages, place of the socket, client.

A running server is controlled through a Unix stream socket of mode 0600.  Unlike a signal, a
command on it has an outcome.  The server's side is `prefork.master.control_server`.
"""

from prefork.control.control_client import TIMEOUT, ControlClient
from prefork.control.control_messages import (
    ANSWER_LIMIT,
    COMMANDS,
    REQUEST_LIMIT,
    VERSION,
    CallStatus,
    Command,
    ControlError,
    QueueStatus,
    ReloadCommand,
    ReopenCommand,
    RetireCommand,
    ScaleCommand,
    ServerStatus,
    StackCommand,
    StatusCommand,
    StopCommand,
    UpgradeCommand,
    WorkerStatus,
    decode_request,
    decode_status,
    encode,
)
from prefork.control.find_server import find_socket, running_servers
from prefork.control.socket_path import (
    SocketDirectories,
    default_path,
    link_default_path,
    unlink_default_path,
)
from prefork.pool_bounds import PoolBounds

__all__ = [
    "ANSWER_LIMIT",
    "COMMANDS",
    "REQUEST_LIMIT",
    "TIMEOUT",
    "VERSION",
    "CallStatus",
    "Command",
    "ControlClient",
    "ControlError",
    "PoolBounds",
    "QueueStatus",
    "ReloadCommand",
    "ReopenCommand",
    "RetireCommand",
    "ScaleCommand",
    "ServerStatus",
    "SocketDirectories",
    "StackCommand",
    "StatusCommand",
    "StopCommand",
    "UpgradeCommand",
    "WorkerStatus",
    "decode_request",
    "decode_status",
    "default_path",
    "encode",
    "find_socket",
    "link_default_path",
    "running_servers",
    "unlink_default_path",
]
