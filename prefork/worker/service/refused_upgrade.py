"""The answer to a request for a WebSocket that is not valid: 400 or 426."""

from time import time

from prefork.apps.wsgi import WsgiResponse
from prefork.http.head_rules import Reject
from prefork.http.request import Request
from prefork.scoreboard import ThreadRecord
from prefork.websocket.opening_handshake import refusing_response
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.service.application_caller import AccessLogWriter


def refuse_upgrade(
    connection: HttpConnection,
    request: Request,
    problem: Reject,
    record: ThreadRecord,
    access: AccessLogWriter | None,
    now: float,
) -> WsgiResponse:
    """Sends the answer, and counts it.  `now`: monotonic seconds."""
    answer = request.marked(refusing_response(problem))
    size = len(answer) - answer.index(b"\r\n\r\n") - 4
    connection.send(answer)
    record.count_refused(problem.status, size)
    if access is not None:
        access.add(request.environ, problem.status, size, time(), 0.0)
    response = WsgiResponse(request, connection)
    del response.request
    response.last = True
    response.ended = now
    return response
