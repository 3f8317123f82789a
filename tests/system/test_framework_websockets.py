"""WebSockets of frameworks, with a real client."""

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.server import Start
from tests.support.waiting import PATIENCE, until
from tests.support.websocket_client import raw_websocket, websocket

APPS = "tests.apps.framework_websockets"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *(("starlette", "/echo"), ("fastapi", "/echo"), ("quart", "/echo")),
        *(("litestar", "/echo"), ("litestar", "/listener")),
    ],
)
def test_echo_and_both_kinds_of_end(start: Start, name: str, path: str) -> None:
    server = start(f"{APPS}:{name}", "--set", "server.protocol=asgi", "--workers", "1")
    server.wait_ready(1)
    for _ in range(2):
        with websocket(server, path) as client:
            for message in ("Hello", "é€𐍈", "x" * 200_000):
                client.send(message)
                assert client.recv(PATIENCE) == message
        with raw_websocket(server, path):
            pass  # it is gone without a close frame
    with pytest.raises(InvalidStatus) as refused, websocket(server, "/nowhere"):
        pass
    assert refused.value.response.status_code in (403, 404)
    until(lambda: server.status()["workers"][0]["held"] == 0)
    assert not server.find("application failed")
    assert not [line for line in server.other if "Traceback" in line]


def test_django_has_no_websockets_of_its_own(start: Start) -> None:
    server = start("tests.apps.django_websockets:django", "--set", "server.protocol=asgi")
    server.wait("worker ready")
    server.expected_errors.add("application failed")
    with pytest.raises(InvalidStatus) as refused, websocket(server, "/"):
        pass
    assert refused.value.response.status_code == 500
    assert "websocket" in server.wait("application failed")["traceback"]


def test_django_and_an_application_beside_it(start: Start) -> None:
    server = start("tests.apps.django_websockets:both", "--set", "server.protocol=asgi")
    server.wait("worker ready")
    with websocket(server, "/") as client:
        client.send("Hello")
        assert client.recv(PATIENCE) == "Hello"
    assert server.get("/")[0] == 200
