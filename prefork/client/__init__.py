"""The client: socket(), connect(), write, read, close, and nothing between it and them.

`url`, `request`, `response` and `trace` are pure; `connection` makes the system calls and tells
each to the trace; `exchange` runs one request and its answer over it, and `relay` a raw stream.
"""

from prefork.client.connection import ClientError, Connection, Disconnected, dial, dial_unix
from prefork.client.content import Body
from prefork.client.exchange import Client, Response
from prefork.client.relay import relay
from prefork.client.request_writer import Request, parse_header
from prefork.client.trace import Call, Trace, format_call, format_duration
from prefork.client.url import URL, parse_url

__all__ = [
    "URL",
    "Body",
    "Call",
    "Client",
    "ClientError",
    "Connection",
    "Disconnected",
    "Request",
    "Response",
    "Trace",
    "dial",
    "dial_unix",
    "format_call",
    "format_duration",
    "parse_header",
    "parse_url",
    "relay",
]
