"""What one WebSocket sends, while its client takes it slowly."""

import socket

from prefork.websocket.websocket_session import WebSocketSession
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.service.asgi_call import TURN
from prefork.worker.service.websocket_sender import WebsocketSender
from tests.support.client_limits import client_limits


def test_what_waits_for_the_client_is_the_message_and_no_copy_of_it() -> None:
    """Many clients may have the same message, and take it slowly."""
    message = bytes(range(256)) * 1000
    ours, client = socket.socketpair()
    with ours, client:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection = AsgiConnection(ours, {}, ("", ""), client_limits(), 0.0)
        sender = WebsocketSender(connection)
        sender.message(WebSocketSession(0).binary(message), message)
        assert sender.halfway
        assert sum(len(each) for each in sender.rest) < len(message)
        assert [each.obj for each in sender.rest if each.obj is message]
        assert all(len(each) <= 10 for each in sender.rest if each.obj is not message)


def test_others_have_their_turn_while_a_client_takes_all_at_once() -> None:
    ours, client = socket.socketpair()
    with ours, client:
        sender = WebsocketSender(AsgiConnection(ours, {}, ("", ""), client_limits(), 0.0))
        sent = 0
        while not sender.others_turn:
            sender.message(b"x" * 100)
            sent += len(client.recv(1000))
    assert 0 < sent < 3 * TURN
