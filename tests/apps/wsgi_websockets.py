"""WebSockets under WSGI, as flask-sock and simple-websocket do them."""

import os
from collections.abc import Iterable
from typing import Any

from flask import Flask
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server

flask_app = Flask(__name__)
sock = Sock(flask_app)


@flask_app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@sock.route("/echo")  # type: ignore[untyped-decorator, unused-ignore]
def echo(ws: Server) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/once")  # type: ignore[untyped-decorator, unused-ignore]
def once(ws: Server) -> None:
    ws.send(ws.receive())


def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """simple-websocket without a framework; it returns without a response."""
    ws = Server.accept(environ, subprotocols=["chat"])
    try:
        while True:
            ws.send(ws.receive())
    except ConnectionClosed:
        return []


def fails(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    Server.accept(environ).receive()
    raise RuntimeError("the handler has failed")


def offered(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Whether a request was given a socket, which it does not use."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str("werkzeug.socket" in environ).encode()]


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/plain":
        return plain(environ, start_response)
    if environ["PATH_INFO"] == "/fails":
        return fails(environ, start_response)
    if environ["PATH_INFO"] == "/offered":
        return offered(environ, start_response)
    found: Iterable[bytes] = flask_app(environ, start_response)
    return found
