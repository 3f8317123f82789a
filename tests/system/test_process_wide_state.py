"""Nothing that the server holds depends on what an application may change in its process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import psutil
import pytest

from tests.support.commands import ROOT
from tests.support.passable import passable
from tests.support.raw_http import request, talk
from tests.support.server import Server, Start, servers
from tests.support.waiting import PATIENCE, until

CHANGES = "tests.apps.process_wide:app"


@pytest.fixture(scope="module", params=["import", "request"])
def changed(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    """A server whose application sets a default timeout of sockets, and SIGPIPE to its default."""
    for start in servers(tmp_path_factory.mktemp("changed")):
        yield start(
            *(CHANGES, "--workers", "1", "--set", "workers.preload=true"),
            *("--set", "log.access=stderr"),
            env={"CHANGE": request.param},
        ).wait_ready(1)


def test_an_upload_may_pause_for_longer_than_the_default_timeout(changed: Server) -> None:
    with talk(changed) as client, talk(changed) as other:
        assert client.ask(request("/pid")).status == 200
        client.send(request("/echo", "Content-Length: 10", method="POST") + b"half,")
        began = monotonic()
        while monotonic() - began < 0.6:  # three times that timeout
            assert other.ask(request("/pid")).status == 200
        assert client.ask(b" half").body == b"half, half"


@pytest.mark.parametrize("path", ["/big?n=100000000", "/wrap?path="])
def test_a_client_that_leaves_does_not_end_the_worker(
    changed: Server, tmp_path: Path, path: str
) -> None:
    if path.endswith("="):
        file = tmp_path / "file"
        file.write_bytes(b"x" * 50_000_000)
        path += str(file)
    worker = changed.get("/pid")
    for _ in range(5):
        with talk(changed, receive_buffer=4096) as client:
            client.send(request(path))
            assert client.line() == "HTTP/1.1 200 OK"
        assert changed.get("/pid") == worker
    assert not changed.find("worker died")


def test_it_stops_and_reloads_as_ever(changed: Server) -> None:
    assert changed.get("/pid")[0] == 200
    # The loop itself may be compiled.
    assert "worker/boot/process.py" in changed.command("status", "--stack", "0").stdout
    changed.ask("reopen")
    changed.signal(signal.SIGHUP)
    changed.wait_settled(2)
    assert changed.get("/pid")[0] == 200
    changed.ask("upgrade")
    assert changed.get("/pid")[0] == 200


def test_what_a_terminal_sends_to_its_group_ends_no_worker(start: Start) -> None:
    changed = start(CHANGES, "--workers", "1", env={"CHANGE": "import"}).wait_ready(1)
    worker = changed.workers()[0]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR2):
        worker.send_signal(number)
        assert changed.get("/pid") == (200, str(worker.pid).encode())


@pytest.mark.parametrize("application", ["app", "asgi"])
@pytest.mark.parametrize(
    "deed",
    ["request default", "request ignore", "request block", "request raise", "import raise"],
)
def test_handlers_of_signals_that_the_application_replaces_stop_no_reload(
    start: Start, application: str, deed: str
) -> None:
    server = start(
        f"tests.apps.resets_signals:{application}", "--workers", "1", env={"DEED": deed}
    ).wait_ready(1)
    for generation in (1, 2):
        before = server.get("/")
        assert before[0] == 200
        server.signal(signal.SIGHUP)
        server.wait_settled(generation + 1)
        server.wait("worker exited", generation=generation, how="exit status 0")
        assert server.get("/")[1] != before[1]
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert not server.find("worker killed")


@pytest.mark.parametrize("application", ["app", "asgi"])
def test_an_interrupt_that_reaches_a_handler_of_the_application_is_no_error(
    start: Start, application: str
) -> None:
    """Ctrl-C is for the whole group, and the master may have it later."""
    server = start(
        *(f"tests.apps.resets_signals:{application}", "--workers", "1"),
        env={"DEED": "request raise"},
    ).wait_ready(1)
    assert server.get("/")[0] == 200
    until(lambda: server.status()["workers"][0]["state"] == "idle", "the end of the call")
    server.workers()[0].send_signal(signal.SIGINT)
    assert "traceback" not in server.wait("worker interrupted", level="warning")
    server.signal(signal.SIGINT)
    assert server.wait_exit() == 0
    assert server.find("worker exited", how="exit status 0")


@pytest.mark.parametrize("application", ["app", "asgi"])
def test_pythons_own_handler_of_sigint_does_not_survive_the_import(
    start: Start, application: str
) -> None:
    server = start(
        *(f"tests.apps.resets_signals:{application}", "--workers", "1"),
        env={"DEED": "import raise"},
    ).wait_ready(1)
    worker = server.workers()[0]
    for _ in range(3):
        worker.send_signal(signal.SIGINT)
        assert server.get("/") == (200, str(worker.pid).encode())


def test_a_log_whose_reader_has_gone_does_not_end_the_worker(start: Start) -> None:
    reader, writer = os.pipe()
    server = start(
        *(CHANGES, "--workers", "1", "--set", "log.access=stdout"),
        env={"CHANGE": "import"},
        stdout=writer,
    ).wait_ready(1)
    os.close(writer)
    os.close(reader)
    worker = server.get("/pid")
    for _ in range(5):
        assert server.get("/pid") == worker


@pytest.mark.parametrize("preload", ["true", "false"])
def test_a_reload_that_opens_other_logs_closes_nothing_of_the_server(
    start: Start, tmp_path: Path, preload: str
) -> None:
    file = tmp_path / "site.toml"
    site = '[server]\napp = "tests.apps.basic:app"\nchdir = "{}"\n[workers]\npreload = {}\n'
    site = site.format(ROOT, preload)
    file.write_text(f'{site}[log]\nerror = "one.log"\naccess = "access.log"\n')
    server = start(str(file), default_format=True)
    log = tmp_path / "one.log"
    until(lambda: log.exists() and "generation settled" in log.read_text(), "the start")
    server.ask("reload")
    file.write_text(f'{site}[log]\nerror = "two.log"\n')
    server.ask("reload")
    server.ask("upgrade")
    assert "error" not in (tmp_path / "two.log").read_text()


@pytest.mark.parametrize("preload", ["true", "false"])
def test_an_application_may_close_what_the_server_was_started_with(
    start: Start, tmp_path: Path, preload: str
) -> None:
    reader, writer = os.pipe()
    (tmp_path / "closing.py").write_text(
        f"import os\nfrom tests.apps.basic import app as app\nos.close({reader})\n"
    )
    server = start(
        *("closing:app", "--workers", "1", "--set", f"server.pythonpath=['{tmp_path}']"),
        *("--set", f"workers.preload={preload}"),
        pass_fds=(reader,),
    )
    os.close(reader)
    os.close(writer)
    server.wait_ready(1)
    server.ask("reload")


@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_an_application_that_closes_our_descriptors_at_a_request_is_named(
    start: Start, tmp_path: Path, preload: str, threads: str
) -> None:
    (tmp_path / "closing.py").write_text(
        "import os\n"
        "from tests.apps import basic\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/close':\n"
        "        os.closerange(3, 200)\n"
        "    return basic.app(environ, start_response)\n"
    )
    server = start(
        *("closing:app", "--workers", "1", "--set", f"server.pythonpath=['{tmp_path}']"),
        *("--set", f"workers.preload={preload}", "--threads", threads),
    ).wait_ready(1)
    server.expected_errors |= {"worker failed", "worker died", "application failed"}
    with server.connect() as sock:
        sock.sendall(b"GET /close HTTP/1.1\r\nHost: t\r\n\r\n")
        failed = server.wait("worker failed")
    assert "the application has closed it, by os.closerange()" in failed["reason"]
    server.wait_ready(2)
    assert server.get("/pid")[0] == 200


@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("first", ["3", "6"])
def test_an_application_that_closes_our_descriptors_is_told(
    start: Start, tmp_path: Path, preload: str, first: str
) -> None:
    (tmp_path / "closing.py").write_text(
        f"import os\nfrom tests.apps.basic import app as app\n"
        f"for fd in range({first}, 40):\n"
        "    try: os.close(fd)\n"
        "    except OSError: pass\n"
    )
    server = start(
        *("closing:app", "--workers", "1", "--set", f"server.pythonpath=['{tmp_path}']"),
        *("--set", f"workers.preload={preload}"),
    )
    server.expected_errors |= {"first boot failed", "worker failed to boot", "zygote died"}
    assert server.wait_exit() == 3
    assert "were closed when the application was imported" in server.log()
    assert "Traceback" not in server.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("when", ["import", "request"])
def test_workers_that_drop_rights_by_themselves_end_with_the_master(
    start: Start, preload: str, when: str
) -> None:
    """A change of credentials clears the signal that the kernel sends at a parent's death."""
    server = start(
        *("tests.apps.drops_rights:app", "--workers", "2"),
        *("--set", f"workers.preload={preload}"),
        env={"DROP": when},
        wrapper=passable(),
    ).wait_ready(2)
    if when == "request":
        dropped: set[tuple[int, bytes]] = set()
        while len(dropped) < 2:  # both
            dropped.add(server.get("/pid"))
    workers = [psutil.Process(event["pid"]) for event in server.find("worker ready")]
    server.signal(signal.SIGKILL)
    server.process.wait()
    _, alive = psutil.wait_procs(workers, PATIENCE)
    for worker in alive:
        worker.kill()
    assert not alive
