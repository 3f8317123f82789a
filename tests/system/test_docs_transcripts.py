"""The transcripts of docs/operations.md and of the README are what real runs print.

    PREFORK_WRITE_DOCS=1 python -m pytest tests/system/test_docs_transcripts.py

writes them anew instead.
"""

import fcntl
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.commands import ROOT
from tests.support.transcripts import Site, blocks, comparable, put
from tests.support.waiting import PATIENCE, until

OPERATIONS, README = ROOT / "docs" / "operations.md", ROOT / "README.md"
WRITING = os.environ.get("PREFORK_WRITE_DOCS") == "1"
ADDRESS = "127.0.0.1:8080"
"""Where the shop listens, on the page."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    place = tmp_path / "shop"
    place.mkdir()
    shutil.copy(ROOT / "tests" / "apps" / "shop.py", place / "shop.py")
    for pipe in ("supplier", "database"):
        os.mkfifo(place / pipe)
    made = Site(place)
    yield made
    made.close()


def configure(site: Site, workers: str = "", rest: str = "") -> None:
    """Writes shop.toml, with an address that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    site.shown[address] = ADDRESS
    (site.place / "shop.toml").write_text(
        f'[server]\nname = "shop"\napp = "shop:app"\nbind = ["{address}"]\nbacklog = 8\n'
        f"[workers]\ncount = 2\n{workers}{rest}"
    )


def start(site: Site, workers: str = "", rest: str = "") -> tuple[str, int]:
    configure(site, workers, rest)
    site.serve("shop.toml")
    site.wait("worker ready", 2)
    host, _, port = next(real for real, shown in site.shown.items() if shown == ADDRESS).partition(
        ":"
    )
    return host, int(port)


def ask(address: tuple[str, int], path: str, *headers: str) -> socket.socket:
    """Sends a request; the answer is for the caller to wait for."""
    client = socket.create_connection(address, PATIENCE)
    lines = (f"GET {path} HTTP/1.1", "Host: shop", "Connection: close", *headers, "", "")
    client.sendall("\r\n".join(lines).encode())
    return client


def answer(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def check(page: Path, **found: str) -> None:
    """Compares, or writes; the underscores of a transcript's name are spaces on the page."""
    named = {name.replace("_", " "): text for name, text in found.items()}
    if WRITING:
        put(page, named)
    shown = blocks(page)
    for name, text in named.items():
        assert comparable(shown[name]) == comparable(text), name


def test_a_queue(site: Site) -> None:
    address = start(site, rest='[metrics]\nbind = "127.0.0.1:0"\n')
    exported = site.wait("metrics served").partition("address=")[2].strip()
    site.shown[exported] = "127.0.0.1:9100"
    assert b"200 OK" in answer(ask(address, "/"))
    clients = [ask(address, "/report") for _ in range(8)]
    until(lambda: " 6 of 8" in site.run("prefork status shop.toml"), "a queue of six")
    site.wait("listen queue fills up")
    pattern = "^prefork_(listen_queue|requests|workers)"
    found = {
        "status": site.run("prefork status shop.toml"),
        "stack": site.run("prefork status --stack 0 shop.toml"),
        "metrics": site.run(f"curl -s http://127.0.0.1:9100/metrics | grep -E '{pattern}'"),
    }
    # The database answers, and from now on at once.
    (site.place / "answer").write_text("all of it")
    with (site.place / "database").open("w"):
        (site.place / "answer").replace(site.place / "database")
    assert all(b"200 OK" in answer(client) for client in clients)
    site.wait("listen queue is taken again")
    queue = site.log("listen queue fills up", "listen queue is taken again")
    check(OPERATIONS, **found, queue_log=queue)


def test_a_slow_request_and_a_crash(site: Site) -> None:
    timeouts = "slow_request = 1\nrequest_timeout = 3\ngraceful_timeout = 2\n"
    address = start(site, timeouts, '[http]\nrequest_id_header = "X-Request-ID"\n')
    command = f"curl -si http://{ADDRESS}/order -H 'X-Request-ID: cart-77' | head -2"
    found = {"request_id": site.run(command), "slow_request": site.log("slow request")}
    site.wait("worker died")
    site.wait("worker ready", 3)
    timeout = site.log("worker leaving", "request timed out", "worker killed", "worker died")
    assert answer(ask(address, "/thumbnail")) == b""
    site.wait("worker ready", 4)
    site.wait("killed by SIGSEGV")
    crash = site.log("worker died").splitlines(keepends=True)[-1]
    restarts = site.run("prefork status shop.toml", keep=lambda lines: lines[2:3])
    check(OPERATIONS, **found, request_timeout=timeout, crash=crash, restarts=restarts)


def test_a_failed_start(site: Site) -> None:
    configure(site, "slow_requests = 1\n")
    checked = site.run("prefork check shop.toml")
    start(site)
    (site.place / "other.toml").write_text(
        (site.place / "shop.toml").read_text().replace('"shop"', '"other"')
    )
    taken = site.run("prefork serve other.toml")
    with (site.place / "shop.py").open("a") as application:
        application.write("\n\nimport stocks\n")
    reload = site.run("prefork reload shop.toml; echo $?")
    site.run("prefork stop shop.toml")
    site.wait_exit()
    site.serve("shop.toml")
    site.wait_exit()
    first = f"$ prefork serve shop.toml\n...\n{site.log('first boot failed')}"
    check(OPERATIONS, check=checked, address_in_use=taken, reload=reload, first_boot=first)


def test_a_boot_that_hangs(site: Site) -> None:
    lock = 'import fcntl\n\nfcntl.flock(open("migrate.lock", "w"), fcntl.LOCK_EX)\n'
    (site.place / "shop.py").write_text(lock)
    with (site.place / "migrate.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        configure(site)
        site.serve("shop.toml")
        until(lambda: site.run("prefork status shop.toml").count("booting") == 2, "two boots")
        booting = site.run("prefork status shop.toml", keep=lambda lines: ["...\n", *lines[-3:]])
        stack = site.run("prefork status --stack 0 shop.toml")
    check(OPERATIONS, booting=booting, booting_stack=stack)


def test_the_first_screen_of_the_readme(site: Site) -> None:
    """`make serve` is this command; with its port, and as many workers as CPUs."""
    arguments = ["-m", "prefork", "serve", "examples.demo:app", "--bind", "127.0.0.1:0"]
    terminal = pexpect.spawn(
        sys.executable,
        [*arguments, "--workers", "2"],
        cwd=ROOT,
        env={**site.environ, "NO_COLOR": "1"},
        timeout=PATIENCE,
        encoding="utf-8",
        dimensions=(50, 200),
    )
    try:
        terminal.expect("generation settled.*\n")
        served = f"{terminal.before}{terminal.after}".replace("\r\n", "\n")
        address = re.search(r"http://(\S+)", served)
        assert address is not None
        site.shown = {address[1]: "127.0.0.1:8000", "127.0.0.1:0: ": "127.0.0.1:8000: "}
        pid = re.findall(r"worker ready .* pid=(\d+)", served)[0]
        request = "curl -s -o /dev/null -w '%{http_code}\\n' 127.0.0.1:8000"
        commands = site.run(f"kill -9 {pid}", request)
        terminal.expect("worker ready")
        commands += site.run("prefork status", "prefork reload", "prefork stop")
        terminal.expect(pexpect.EOF)
    finally:
        terminal.close(force=True)
    served = site.show(served)
    made = f"$ make serve\n.venv/bin/prefork serve examples.demo:app\n{served}"
    check(README, make_serve=made, first_commands=commands)


def test_each_transcript_of_the_pages_is_checked() -> None:
    """A block without the comment would go stale unnoticed."""
    source = Path(__file__).read_text(encoding="utf-8")
    for page in (OPERATIONS, README):
        text = page.read_text(encoding="utf-8")
        names = blocks(page).keys()
        written = {name.replace(" ", "_") for name in names}
        assert not {
            name for name in written if f"{name}=" not in source and f'"{name}"' not in source
        }
        assert text.count("<!-- transcript: ") == len(names)
    text = OPERATIONS.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(blocks(OPERATIONS))
