"""Every kind of address, served for real; and what cannot be had, refused with nothing left."""

import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import ROOT, prefork_command
from tests.support.processes import alive
from tests.support.server import Server, Start
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until

BASIC = "tests.apps.basic:app"

PASS_SOCKETS = """\
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",")]
for place, fd in enumerate(high, 3):
    os.dup2(fd, place)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Does as systemd between fork and exec: the sockets from 3 on, LISTEN_PID the process's own."""

DROP_CAPABILITY = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, int(sys.argv[1]), 0, 0, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Takes a capability from root over the next exec (prctl(2), PR_CAPBSET_DROP)."""

CAP_DAC_OVERRIDE, CAP_NET_BIND_SERVICE = "1", "10"


def connected(address: str) -> socket.socket:
    """A connection to an address as the server names it."""
    if not address.startswith("unix:"):
        host, _, port = address.rpartition(":")
        host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
        return socket.create_connection((host, int(port)), PATIENCE)
    path = address.removeprefix("unix:")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
    return sock


def pid_at(address: str) -> int:
    """Which worker answers there."""
    with connected(address) as sock:
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return int(body)


def serves(server: Server, *addresses: str) -> None:
    """It listens on exactly these, and its workers answer on each."""
    assert server.addresses == list(addresses)
    workers = {event["pid"] for event in server.find("worker ready")}
    for address in addresses:
        assert pid_at(address) in workers


def refused(address: str, tmp: Path, wrapper: tuple[str, ...] = ()) -> str:
    """The one line with which a server refuses to start; it ends with 1 and leaves nothing.

    The output is read to its end, which no process that is left would let come.
    """
    control = tmp / "refused.sock"
    options = ("--bind", "127.0.0.1:0", "--bind", address, "--set", f"control.path={control}")
    done = subprocess.run(
        [*wrapper, *prefork_command("serve", BASIC, *options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    assert done.returncode == 1, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"prefork: cannot listen on {address}: "), line
    assert not control.exists()
    return line


needs_ipv6 = pytest.mark.skipif(
    not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text(),
    reason="this machine has no IPv6 address",
)


def test_port_0_is_reported_and_each_server_has_another(start: Start) -> None:
    first, second = (start(BASIC, "--workers", "1").wait_ready(1) for _ in range(2))
    assert first.port != second.port
    for server in (first, second):
        serves(server, f"127.0.0.1:{server.port}")


def test_a_port_alone_means_every_ipv4_interface(start: Start) -> None:
    server = start(BASIC, "--workers", "1", bind=(":0",)).wait_ready(1)
    serves(server, f"0.0.0.0:{server.port}")
    assert pid_at(f"127.1.2.3:{server.port}") == server.find("worker ready")[0]["pid"]


@needs_ipv6
@pytest.mark.parametrize("only", ["false", "true"])
def test_ipv6_takes_ipv4_too_unless_configured_otherwise(start: Start, only: str) -> None:
    options = ("--set", f"server.ipv6_only={only}")
    server = start(BASIC, "--workers", "1", *options, bind=("[::]:0",)).wait_ready(1)
    serves(server, f"[::]:{server.port}")
    if only == "false":
        assert pid_at(f"127.0.0.1:{server.port}") > 0
    else:
        with pytest.raises(ConnectionRefusedError):
            connected(f"127.0.0.1:{server.port}")


def test_a_unix_socket_has_its_mode_and_goes_at_the_stop(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    options = ("--workers", "1", "--set", "server.unix_mode=0640")
    server = start(BASIC, *options, bind=(f"unix:{path}",)).wait_ready(1)
    serves(server, f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    server.stop()
    assert not path.exists()


def test_a_socket_left_by_servers_that_were_killed_is_taken_over(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "site.sock"
    dead = start(BASIC, "--workers", "2", bind=(f"unix:{path}",)).wait_ready(2)
    workers = [worker.pid for worker in dead.workers()]
    for pid in (dead.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    dead.process.wait(PATIENCE)
    until(lambda: not any(map(alive, workers)), "all are dead")
    assert path.is_socket()
    with pytest.raises(ConnectionRefusedError):
        connected(f"unix:{path}")
    serves(start(BASIC, "--workers", "1", bind=(f"unix:{path}",)).wait_ready(1), f"unix:{path}")


def test_a_socket_with_a_listener_is_refused(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    server = start(BASIC, "--workers", "1", bind=(f"unix:{path}",)).wait_ready(1)
    line = refused(f"unix:{path}", tmp_path)
    assert f"in use by pid {server.pid}; " in line
    serves(server, f"unix:{path}")


def test_an_abstract_socket(start: Start, tmp_path: Path) -> None:
    address = f"unix:@prefork-test-{secrets.token_hex(8)}"
    server = start(BASIC, "--workers", "1", bind=(address,)).wait_ready(1)
    serves(server, address)
    assert "in use" in refused(address, tmp_path)
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connected(address)


@pytest.fixture
def passed() -> Iterator[list[socket.socket]]:
    """Two listening sockets of ours, and one of IPv4 that is bound only."""
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield made
    for sock in made:
        sock.close()


def name_of(sock: socket.socket) -> str:
    return f"127.0.0.1:{sock.getsockname()[1]}"


def test_an_inherited_descriptor_is_served_and_outlives_each_server(
    start: Start, passed: list[socket.socket]
) -> None:
    """Nothing done at a stop may hurt who else holds it: the next server serves the queue."""
    mine = passed[0]
    for _ in range(2):
        server = start(
            BASIC, "--workers", "2", bind=(f"fd:{mine.fileno()}",), pass_fds=(mine.fileno(),)
        )
        serves(server.wait_ready(2), name_of(mine))
        server.stop()
        waiting = connected(name_of(mine))
        waiting.sendall(b"GET /pid HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    last = start(BASIC, bind=(f"fd:{mine.fileno()}",), pass_fds=(mine.fileno(),)).wait_ready(1)
    with waiting:
        assert read_all(waiting).startswith(b"HTTP/1.1 200 ")
    last.stop()


def from_systemd(start: Start, passed: list[socket.socket], *bind: str) -> Server:
    numbers = [sock.fileno() for sock in passed]
    return start(
        *(BASIC, "--workers", "2"),
        bind=bind,
        pass_fds=numbers,
        env={"LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:admin"},
        wrapper=(sys.executable, "-c", PASS_SOCKETS, ",".join(map(str, numbers))),
    )


def test_systemds_sockets_are_served(start: Start, passed: list[socket.socket]) -> None:
    web, admin = map(name_of, passed)
    serves(from_systemd(start, passed, "systemd").wait_ready(2), web, admin)


def test_systemds_sockets_are_chosen_by_name(start: Start, passed: list[socket.socket]) -> None:
    _, admin = map(name_of, passed)
    serves(from_systemd(start, passed, "systemd:admin").wait_ready(2), admin)


def test_systemds_sockets_survive_a_reload(start: Start, passed: list[socket.socket]) -> None:
    web, admin = map(name_of, passed)
    server = from_systemd(start, passed, "systemd:web", "systemd:admin").wait_ready(2)
    server.ask("reload")
    serves(server.wait_settled(2), web, admin)


def test_several_kinds_at_once(start: Start, tmp_path: Path) -> None:
    path, name = tmp_path / "site.sock", f"@prefork-test-{secrets.token_hex(8)}"
    bind = ("127.0.0.1:0", f"unix:{path}", f"unix:{name}", ":0")
    server = start(BASIC, "--workers", "2", bind=bind).wait_ready(2)
    first, *_, last = server.addresses
    for _ in range(5):
        serves(server, first, f"unix:{path}", f"unix:{name}", last)
    server.stop()
    for address in (first, f"unix:{name}", last):
        with pytest.raises(ConnectionRefusedError):
            connected(address)
    assert not path.exists()


# What cannot be had.  The address before it can: it must be given up again.


def test_a_port_in_use(passed: list[socket.socket], tmp_path: Path) -> None:
    line = refused(name_of(passed[0]), tmp_path)
    assert f"(pid {os.getpid()})" in line
    assert "in use" in line


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    assert "no such address" in refused("192.0.2.1:8000", tmp_path)  # TEST-NET-1, RFC 5737


def test_a_descriptor_that_is_no_listening_socket(tmp_path: Path) -> None:
    assert "descriptor 0 is not " in refused("fd:0", tmp_path)


def test_systemd_without_systemd(tmp_path: Path) -> None:
    assert "systemd passed no sockets" in refused("systemd", tmp_path)


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    line = refused(f"unix:{tmp_path}/nowhere/site.sock", tmp_path)
    assert "its directory does not exist" in line


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    file = tmp_path / "site.sock"
    file.write_text("precious")
    assert "not a socket" in refused(f"unix:{file}", tmp_path)
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]


def test_a_directory_without_the_right_to_write(tmp_path: Path) -> None:
    place = tmp_path / "closed"
    place.mkdir(0o500)
    drop = (sys.executable, "-c", DROP_CAPABILITY, CAP_DAC_OVERRIDE)
    line = refused(f"unix:{place}/site.sock", tmp_path, drop if os.geteuid() == 0 else ())
    assert "no permission for " in line
    assert not list(place.iterdir())


def test_a_low_port_without_the_right_to_it(tmp_path: Path) -> None:
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1:
        pytest.skip("every port is free to all on this machine")
    drop = (sys.executable, "-c", DROP_CAPABILITY, CAP_NET_BIND_SERVICE)
    line = refused("127.0.0.1:1", tmp_path, drop if os.geteuid() == 0 else ())
    assert "CAP_NET_BIND_SERVICE" in line


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "nowhere", "[::1:80", "unix:", "fd:x"])
def test_what_is_no_address(address: str, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    options = ("--set", f"control.path={control}")
    done = subprocess.run(
        prefork_command("serve", BASIC, "--bind", address, *options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("prefork: ")
    assert address in line
    assert not control.exists()
