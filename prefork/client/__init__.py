"""The client: it calls socket(), connect(), send(), recv() and close() itself, without a library.

`url`, `request_writer`, `response_parser` and `trace` are pure.  `connection` makes the system
calls and reports each to the trace.  `exchange` runs a request and its response over it, and
`relay` a raw stream.
"""

from prefork.client.connection import ClientConnection, ClientError, Disconnected, dial, dial_unix
from prefork.client.content import RequestContent
from prefork.client.exchange import ClientResponse, HttpClient
from prefork.client.relay import relay
from prefork.client.request_writer import ClientRequest, parse_header
from prefork.client.trace import SystemCall, Trace, format_call, format_duration
from prefork.client.url import URL, parse_url

__all__ = [
    "URL",
    "ClientConnection",
    "ClientError",
    "ClientRequest",
    "ClientResponse",
    "Disconnected",
    "HttpClient",
    "RequestContent",
    "SystemCall",
    "Trace",
    "dial",
    "dial_unix",
    "format_call",
    "format_duration",
    "parse_header",
    "parse_url",
    "relay",
]
