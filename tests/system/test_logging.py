"""The logs of a real server: its life, its requests, its application, and files that are moved."""

import json
import os
import re
import signal
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import Connection, Gate, running_load
from tests.support.server import Server, Start
from tests.support.sockets import accepts
from tests.support.waiting import until

BASIC = "tests.apps.basic:app"

COMMON = re.compile(
    r"(?P<peer>\S+) - (?P<user>\S+) "
    r"\[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<size>\d+|-)'
)
COMBINED = re.compile(
    COMMON.pattern + r' "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"'
)
TEXT = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4}) \[(?P<level>\w+)\] "
    r'(?P<event>[^=]+?)(?P<fields>(?: \w+=(?:"(?:[^"\\]|\\.)*"|\S+))*)'
)
FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|\S+)')


# The life of a server.

Life = list[tuple[str, dict[str, Any]]]


def life(server: Server, events: list[dict[str, Any]], first: int, second: int, third: int) -> None:
    """What the log of a server of one worker says, in this order, of a start, a reload by HUP, the
    death of its worker and a stop by TERM."""
    where = server_address(events)

    def worker(event: str, slot: int, pid: int, generation: int, **more: Any) -> dict[str, Any]:
        return {"event": event, "slot": slot, "pid": pid, "generation": generation, **more}

    def master(event: str, **more: Any) -> dict[str, Any]:
        return {"event": event, "pid": server.pid, **more}

    # Slots: each takes the first that is free; the reload's worker comes beside the first one.
    expected = [
        master("listening", address=where),
        worker("worker ready", 0, first, 1),
        master("generation settled", generation=1, changes=0),
        master("signal received", signal="SIGHUP"),
        master("reload started", generation=2),
        worker("worker ready", 1, second, 2),
        worker("worker leaving", 0, first, 1),
        master("generation settled", generation=2, changes=0),
        worker("worker exited", 0, first, 1, how="exit status 0"),
        worker("worker died", 1, second, 2, level="error", how="killed by SIGKILL"),
        worker("worker ready", 0, third, 2),
        master("signal received", signal="SIGTERM"),
        master("listener closed", address=where),
        worker("worker leaving", 0, third, 2),
        worker("worker exited", 0, third, 2, how="exit status 0"),
        master("stopped"),
    ]
    # Said where CAP_NET_ADMIN is missing.
    said = [event for event in events if event["event"] != "listener drained without a filter"]
    for found, wanted in zip(said, expected, strict=True):
        wanted = {"level": "info", "role": "master", "slot": None, "generation": None} | wanted
        assert {name: found.get(name) for name in wanted} == wanted
        assert found.keys() == wanted.keys() | {"time"}
    times = [datetime.fromisoformat(event["time"]) for event in said]
    assert times == sorted(times)


def server_address(events: list[dict[str, Any]]) -> str:
    address: str = events[0]["address"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    return address


def test_a_life_in_json(start: Start) -> None:
    server = start(BASIC, "--workers", "1").wait_ready(1)
    server.expected_errors.add("worker died")
    first = server.find("worker ready")[0]["pid"]
    server.wait_settled(1)
    server.signal(signal.SIGHUP)
    second = server.wait("worker ready", generation=2)["pid"]
    server.wait("worker exited", pid=first)
    os.kill(second, signal.SIGKILL)
    third = server.wait("worker ready", 2, generation=2)["pid"]
    server.stop()
    assert not server.other
    life(server, server.events, first, second, third)


def in_text(line: str) -> dict[str, Any]:
    """A line of the text format as the same object that JSON would be."""
    found = TEXT.fullmatch(line)
    assert found, line
    fields: dict[str, Any] = {"slot": None, "generation": None}
    for key, value in FIELD.findall(found["fields"]):
        text = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        fields[key] = int(text) if text.isdecimal() else text
    date = found["time"].replace(" +", "+").replace(" -", "-")
    return {"time": date, "level": found["level"], "event": found["event"], **fields}


def test_a_life_in_text_in_a_file(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    server = start(*(BASIC, "--workers", "1", "--set", f"log.error={log}"), default_format=True)

    def wait(event: str, count: int, **fields: Any) -> int:
        """The pid in the `count`th such line."""

        def found() -> list[dict[str, Any]]:
            lines = log.read_text().splitlines() if log.exists() else []
            events = [in_text(line) for line in lines]
            same = [e for e in events if e["event"] == event and e.items() >= fields.items()]
            return same[count - 1 :]

        pid: int = until(found, f"{event} {fields}")[0]["pid"]
        return pid

    first = wait("worker ready", 1)
    wait("generation settled", 1)
    server.signal(signal.SIGHUP)
    second = wait("worker ready", 1, generation=2)
    wait("worker exited", 1, pid=first)
    os.kill(second, signal.SIGKILL)
    third = wait("worker ready", 2, generation=2)
    server.stop()
    assert not server.events
    assert not server.other
    life(server, [in_text(line) for line in log.read_text().splitlines()], first, second, third)


HALF_READY = """
import os
try:
    os.mkdir({mark!r})
except FileExistsError:
    open({fifo!r}).read()
from tests.apps.version_app import app
"""
"""Whoever imports it first goes on; the others wait."""


def test_a_first_generation_that_is_cut_short_is_no_reload_that_failed(
    start: Start, tmp_path: Path
) -> None:
    mark, fifo = str(tmp_path / "mark"), tmp_path / "gate"
    (tmp_path / "half.py").write_text(HALF_READY.format(mark=mark, fifo=str(fifo)))
    gate = Gate(fifo)
    server = start("half:app", "--workers", "2", cwd=tmp_path, env={"PWD": ""}).wait_ready(1)
    gate.arrived()
    os.rmdir(mark)
    server.signal(signal.SIGHUP)
    server.wait("worker ready", generation=2)
    server.expected_errors.add("reload failed")  # of the second, which the stop cuts short
    server.stop()
    assert not server.find("reload failed", generation=1)


# The access log.


def one_line(start: Start, log: Path, form: str) -> str:
    """The line of one request, whose headers try to break out of it."""
    options = ("--set", f"log.access={log}", "--set", f"log.access_format={form}")
    server = start(BASIC, "--workers", "1", *options).wait_ready(1)
    headers = {"Referer": "http://t/?a=1", "User-Agent": 'quoted "agent" \\ \xe9'}
    assert server.get("/big?n=1234", **headers)[0] == 200
    server.stop()
    (line,) = log.read_text().splitlines()
    return line


def test_an_access_log_line_in_common(start: Start, tmp_path: Path) -> None:
    found = COMMON.fullmatch(one_line(start, tmp_path / "log", "common"))
    assert found
    assert found["peer"] == "127.0.0.1"
    assert found["user"] == "-"
    assert found["request"] == "GET /big?n=1234 HTTP/1.1"
    assert (found["status"], found["size"]) == ("200", "1234")


def test_an_access_log_line_in_combined(start: Start, tmp_path: Path) -> None:
    found = COMBINED.fullmatch(one_line(start, tmp_path / "log", "combined"))
    assert found
    assert found["request"] == "GET /big?n=1234 HTTP/1.1"
    assert found["referer"] == "http://t/?a=1"
    assert found["agent"] == r"quoted \"agent\" \\ \xe9"


def test_an_access_log_line_in_json(start: Start, tmp_path: Path) -> None:
    found = json.loads(one_line(start, tmp_path / "log", "json"))
    assert datetime.fromisoformat(found.pop("time")).tzinfo
    assert found.pop("elapsed") >= 0
    assert found == {
        "remote_addr": "127.0.0.1",
        "remote_user": None,
        "method": "GET",
        "uri": "/big?n=1234",
        "protocol": "HTTP/1.1",
        "status": 200,
        "size": 1234,
        "referer": "http://t/?a=1",
        "user_agent": 'quoted "agent" \\ \xe9',
    }


@pytest.mark.parametrize(
    ("app", "path"),
    [(BASIC, "/error"), ("tests.apps.async_basic:app", "/fail")],
    ids=["wsgi", "asgi"],
)
def test_answers_of_the_server_for_the_application_have_their_size(
    start: Start, tmp_path: Path, app: str, path: str
) -> None:
    log, held = tmp_path / "log", tmp_path / "held"
    server = start(
        *(app, "--workers", "1", "--set", f"log.access={log}"),
        *("--set", "workers.request_timeout=1"),
    ).wait_ready(1)
    server.expected_errors = {"application failed", "request timed out"}
    asked = [(path, 500), (f"/hold?path={held}", 504)]
    sizes = []
    for uri, status in asked:
        answered, body = server.get(uri)
        assert (answered, body[:3]) == (status, str(status).encode())
        sizes.append((str(status), str(len(body))))
    held.unlink()
    server.stop()
    found = [COMMON.match(line) for line in log.read_text().splitlines()]
    assert [(each["status"], each["size"]) for each in found if each] == sizes


@pytest.mark.parametrize("threads", [1, 4])
def test_twenty_rotations_under_load_lose_and_tear_no_line(
    start: Start, tmp_path: Path, threads: int
) -> None:
    """Every request has exactly one whole line in the union of the files; the last ones, written
    as the server stops, too."""
    log = tmp_path / "access.log"
    server = start(
        *(BASIC, "--workers", "2", "--threads", str(threads)),
        *("--set", f"log.access={log}"),
    ).wait_ready(2)
    numbers = iter(range(1_000_000))
    taking = threading.Lock()
    asked: list[str] = []

    with running_load() as clients:

        def client(_: object) -> None:
            with Connection(server.port) as connection:
                for last in range(20):
                    with taking:
                        path = f"/pid?number={next(numbers)}"
                    assert connection.ask(path, close=last == 19).status == 200
                    asked.append(f"GET {path} HTTP/1.1")
                    clients.count()
                    if clients.over.is_set():
                        return

        clients.run(client, 8)
        files = [log]
        for turn in range(1, 21):
            clients.wait_answers(25)
            files.append(log.rename(tmp_path / f"access.log.{turn}"))
            server.signal(signal.SIGUSR1)
            server.wait("log files reopened", turn)
        clients.wait_answers(25)
    server.stop()
    found = []
    for file in files:
        content = file.read_text()
        assert content.endswith("\n")
        for line in content.splitlines():
            whole = COMBINED.fullmatch(line)
            assert whole, f"{file}: {line!r}"
            found.append(whole["request"])
    assert len(asked) >= 525
    assert sorted(found) == sorted(asked)
    # Rotation worked: what came after it is in other files than what came before.
    assert sum(file.stat().st_size > 0 for file in files) > 10


def test_the_error_log_is_reopened_in_master_and_workers(start: Start, tmp_path: Path) -> None:
    log, moved = tmp_path / "error.log", tmp_path / "moved.log"
    server = start(BASIC, "--workers", "1", "--set", f"log.error={log}")
    until(lambda: log.exists() and "worker ready" in log.read_text(), "it is ready")
    port = json.loads(log.read_text().splitlines()[0])["address"].rpartition(":")[2]
    log.rename(moved)
    server.signal(signal.SIGUSR1)
    until(lambda: log.exists() and "log files reopened" in log.read_text(), "it is reopened")

    # The worker may not have heard of it when it takes the first.
    def answered_into_the_new_file() -> bool:
        with Connection(int(port)) as connection:
            assert connection.ask("/error").status == 500
        return "raised by /error" in log.read_text()

    until(answered_into_the_new_file, "the worker writes to the new file")
    server.stop()
    for file in (moved, log):
        for line in file.read_text().splitlines():
            json.loads(line)
    assert "stopped" in log.read_text()
    assert not server.events
    assert not server.other


# The application's own.

SHOP = """
import logging, sys

def app(environ, start_response):
    print("printed to stdout")
    print("printed to stderr", file=sys.stderr)
    print("said to wsgi.errors", file=environ["wsgi.errors"])
    logging.getLogger("shop").warning("warned of %s", environ["PATH_INFO"])
    if environ["PATH_INFO"] == "/error":
        raise ValueError("raised on purpose")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""

DICT_CONFIG = {
    "version": 1,
    "formatters": {"plain": {"format": "%(name)s %(levelname)s %(message)s"}},
    "root": {"level": "INFO", "handlers": ["file"]},
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with an application that speaks in every way."""
    place = tmp_path / "shop"
    place.mkdir()
    (place / "shop.py").write_text(SHOP)
    return place


def test_what_the_application_says_reaches_the_servers_streams(
    start: Start, tmp_path: Path, shop: Path
) -> None:
    output = tmp_path / "stdout"
    with output.open("wb") as stdout:
        server = start("shop:app", "--workers", "1", cwd=shop, env={"PWD": ""}, stdout=stdout)
    server.wait("generation settled")  # or a line of ours may come between a text and its newline
    assert server.get("/there") == (200, b"ok")
    server.stop()
    assert output.read_text() == "printed to stdout\n"
    assert [line.rstrip() for line in server.other] == [
        "printed to stderr",
        "said to wsgi.errors",
        "warned of /there",
    ]


def test_its_logging_goes_where_its_file_says_and_ours_does_not(
    start: Start, tmp_path: Path, shop: Path
) -> None:
    log, config = tmp_path / "shop.log", tmp_path / "logging.json"
    handler = {"class": "logging.FileHandler", "filename": str(log), "formatter": "plain"}
    config.write_text(json.dumps(DICT_CONFIG | {"handlers": {"file": handler}}))
    options = ("--workers", "1", "--set", f"log.config={config}")
    server = start("shop:app", *options, cwd=shop, env={"PWD": ""}).wait_ready(1)
    server.expected_errors.add("application failed")
    assert server.get("/error")[0] == 500
    server.stop()
    assert log.read_text() == "shop WARNING warned of /error\n"
    (event,) = server.find("application failed")
    assert "ValueError: raised on purpose" in event["traceback"]
    assert "warned" not in server.log()


def test_the_traceback_of_an_application_goes_into_the_file_of_the_error_log(
    start: Start, tmp_path: Path, shop: Path
) -> None:
    log = tmp_path / "error.log"
    options = ("--workers", "1", "--set", f"log.error={log}")
    server = start("shop:app", *options, cwd=shop, env={"PWD": ""})
    until(lambda: log.exists() and "worker ready" in log.read_text(), "it is ready")
    port = json.loads(log.read_text().splitlines()[0])["address"].rpartition(":")[2]
    with Connection(int(port)) as connection:
        assert connection.ask("/error").status == 500
    server.stop()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (told,) = [event for event in events if event["level"] == "error"]
    assert told["role"] == "worker"
    assert told["slot"] == 0
    assert "GET /error" in json.dumps(told)
    assert told["traceback"].startswith("Traceback (most recent call last):")
    assert told["traceback"].endswith("ValueError: raised on purpose")
    # Its own words are not the server's: they stay on its stderr.
    assert "warned of /error\n" in server.other


# A full disk.


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("key", ["error", "access"])
def test_a_full_disk_costs_no_request(start: Start, key: str) -> None:
    server = start(BASIC, "--workers", "2", "--set", f"log.{key}=/dev/full")
    until(lambda: accepts(server.control), "it can be asked")

    def status() -> dict[str, Any]:
        told: dict[str, Any] = server.status()
        return told

    def ready() -> bool:
        return [worker["state"] for worker in status()["workers"]] == ["idle"] * 2

    until(ready, "both workers are ready")
    port = int(status()["listeners"][0].rpartition(":")[2])
    for path, code in (("/pid", 200), ("/error", 500), ("/pid", 200)):
        with Connection(port) as connection:
            assert connection.ask(path).status == code
    server.expected_errors.add("application failed")
    server.ask("reload")
    server.ask("reopen")
    with Connection(port) as connection:
        assert connection.ask("/pid").status == 200
    server.stop()
    assert not server.other
