"""One name for a request in every place: response, environ, access log, errors, slow log."""

import json
import re
import socket
from pathlib import Path
from time import time

from tests.support.raw_http import Raw, request
from tests.support.server import Start
from tests.support.waiting import PATIENCE, until

KEYS = "tests.apps.named:app"


def test_a_request_has_one_name_everywhere(start: Start, tmp_path: Path) -> None:
    access = tmp_path / "access.log"
    settings = {
        "http.request_id_header": "X-Request-ID",
        "log.access": str(access),
        "log.access_format": "json",
        "workers.slow_request": "0.05",
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    server = start(KEYS, "--workers", "1", *options).wait_ready(1)
    server.expected_errors.add("application failed")
    connection = server.http()

    def ask(path: str, **headers: str) -> tuple[int, str | None, str]:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=fields)
        answer = connection.getresponse()
        return answer.status, answer.getheader("X-Request-ID"), answer.read().decode()

    given = "from-the-proxy/1"
    assert ask("/", X_Request_ID=given) == (200, given, given)
    _, first, body = ask("/")
    assert first == body
    assert first is not None
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", first)
    _, second, _ = ask("/")
    assert second not in (None, first)
    # What could be read in another way somewhere is replaced.
    for bad in ("a b", 'x"y', "x" * 65, "$(id)", "a;b"):
        assert ask("/", X_Request_ID=bad)[1] not in (None, bad)
    assert ask("/fail", X_Request_ID="failing")[:2] == (500, "failing")
    assert server.wait("application failed")["request_id"] == "failing"
    assert ask("/slow", X_Request_ID="slow")[:2] == (200, "slow")
    server.wait("slow request", request_id="slow")  # others may have been slow, too
    until(lambda: '"slow"' in access.read_text(), "the last line of the access log")
    ids = [json.loads(line)["request_id"] for line in access.read_text().splitlines()]
    assert ids[:3] == [given, first, second]
    assert ids[-2:] == ["failing", "slow"]
    status = server.status()
    assert "RuntimeError: not today" in status["workers"][0]["error"]


def test_no_request_has_an_id_unless_configured(start: Start) -> None:
    server = start(KEYS, "--workers", "1").wait_ready(1)
    connection = server.http()
    connection.request("GET", "/", headers={"X-Request-ID": "abc"})
    answer = connection.getresponse()
    assert answer.getheader("X-Request-ID") is None
    assert answer.read() == b"None"


def test_the_time_in_a_proxys_queue_is_reported(start: Start) -> None:
    proxies = ("--set", 'http.trusted_proxies=["127.0.0.1"]')
    server = start(KEYS, "--workers", "1", *proxies).wait_ready(1)

    def ask(address: str) -> None:
        place = ("127.0.0.1", server.port)
        with socket.create_connection(place, PATIENCE, (address, 0)) as sock:
            client = Raw(sock)
            # In milliseconds, and cut: rounded up it would have waited less than 2 seconds.
            start = int((time() - 2) * 1000)
            assert client.ask(request("/", f"X-Request-Start: t={start}")).status == 200

    def counted(number: int) -> bool:
        return bool(server.status()["requests"] == number)

    # Not of somebody else's word.
    ask("127.0.0.2")
    until(lambda: counted(1), "the call is over")
    assert server.status()["queue_time"] == 0
    ask("127.0.0.1")
    until(lambda: server.status()["queue_time"] >= 2, "the time in the queue")
    assert "queue time 2." in server.command("status").stdout
