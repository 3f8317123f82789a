"""`prefork wire` on a real network interface, beside tshark, and as a user sees it fail."""

import contextlib
import ctypes
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scapy.layers.inet import IP, TCP

from prefork.cli.wire import command as wire_command
from prefork.wire import show
from prefork.wire.capture import Capture, CaptureError, _as_capture_error
from prefork.wire.packet import Frame
from prefork.wire.pcap_files import Writer
from tests.support.commands import prefork_command
from tests.support.hostile_servers import Handler, answer, answers, expect_end, reset, serving
from tests.support.sockets import closed_port, read_head
from tests.support.waiting import PATIENCE, until

CAP_NET_RAW = 13
PR_CAPBSET_DROP = 24

REQUEST = " data  GET / HTTP/1.1"
HANDSHAKE = [
    "SYN seq=0 len=0 ->: handshake 1 of 3: asks",
    "<- SYN,ACK seq=0 ack=1 len=0: handshake 2 of 3: agreed",
    "ACK seq=1 ack=1 len=0 ->: handshake 3 of 3: open",
]

LINE = re.compile(r" *(\d+) +(\S+ \w+) \|(<?)-* ?([A-Z,]+ seq=.* len=\d+) -*(>?)-*\|  (.*)")
CALL = re.compile(r"(\w+)\(.*\) = .* \[.*\]")


def lacking(what: str) -> None:
    """Skips the test; in CI, where everything is to be there, fails it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def right() -> None:
    """The right to capture."""
    try:
        Capture("lo", 1).__exit__(None, None, None)
    except CaptureError as error:
        lacking(str(error))


@pytest.fixture
def tshark() -> str:
    found = shutil.which("tshark")
    if found is None:
        lacking("tshark is not installed: tests/install-system-packages.sh does it")
    assert found is not None
    return found


def command(*arguments: str) -> list[str]:
    return prefork_command("wire", *arguments)


class Done:
    """How a run ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in err, err

    @property
    def packets(self) -> list[str]:
        """`FLAGS numbers ->: meaning`, or `<- FLAGS numbers: meaning`."""
        return [packet for _, packet in self.blocks()]

    def blocks(self) -> list[tuple[str, str]]:
        """Each packet with the system call above it."""
        found, call = [], ""
        for line in self.out.splitlines():
            if CALL.fullmatch(line):
                call = line.partition("(")[0]
            elif packet := LINE.fullmatch(line):
                _, _, left, label, right, meaning = packet.groups()
                assert bool(left) != bool(right), line
                shown = f"<- {label}: " if left else f"{label} ->: "
                found.append((call, shown + meaning))
        return found

    @property
    def calls(self) -> list[str]:
        return [found[1] for line in self.out.splitlines() if (found := CALL.fullmatch(line))]


def wire(*arguments: str, **options: Any) -> Done:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=PATIENCE * 2, **options
    )
    return Done(done.returncode, done.stdout, done.stderr)


def fetch(port: int, host: str = "127.0.0.1") -> None:
    """A request by somebody else."""
    with socket.create_connection((host, port), PATIENCE) as sock:
        sock.sendall(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n")
        while sock.recv(65536):
            pass


def v6_server(handler: Handler) -> tuple[socket.socket, threading.Thread]:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error.strerror}")

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            handler(sock)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener, thread


# --get


def tshark_rows(tshark: str, path: Path) -> list[list[str]]:
    numbers = ("flags.str", "seq", "ack", "len", "dstport")
    fields = [*(f"tcp.{name}" for name in numbers), "frame.time_epoch"]
    options = [part for field in fields for part in ("-e", field)]
    done = subprocess.run(
        [tshark, "-r", str(path), "-T", "fields", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=True,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


LETTERS = {"SYN": "S", "ACK": "A", "PSH": "P", "FIN": "F", "RST": "R"}


def as_tshark_says(packet: str, port: int) -> tuple[set[str], str, str, str, bool]:
    """Flags, seq, ack, len, and whether it goes to the server."""
    label = re.search(r"([A-Z,]+) seq=(\d+)(?: ack=(\d+))? len=(\d+)", packet)
    assert label is not None
    flags, seq, ack, length = label.groups()
    return {LETTERS[flag] for flag in flags.split(",")}, seq, ack or "0", length, "->" in packet


@pytest.mark.usefixtures("right")
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_get_shows_one_handshake_in_order_and_tshark_reads_the_same_packets(
    family: str, tshark: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.pcap"
    handler = answers(answer(b"hello"))
    with contextlib.ExitStack() as stack:
        if family == "IPv4":
            port = stack.enter_context(serving(handler)).port
            url = f"http://127.0.0.1:{port}/path"
        else:
            listener, thread = v6_server(handler)
            stack.callback(thread.join, PATIENCE)
            port = stack.enter_context(listener).getsockname()[1]
            url = f"http://[::1]:{port}/path"
        done = wire("--get", url, "--interface", "lo", "--write", str(path))
    assert done.code == 0, done.err
    packets = done.packets
    assert packets[:3] == HANDSHAKE
    assert sum("SYN" in packet for packet in packets) == 2
    assert sum("data  GET /path HTTP/1.1" in packet for packet in packets) == 1
    assert sum("data  HTTP/1.1 200 OK" in packet for packet in packets) == 1
    assert packets[-1].endswith("end acknowledged: closed")
    assert "MSS 65" in done.out
    assert "SACK permitted, timestamps, window scale" in done.out

    rows = tshark_rows(tshark, path)
    assert len(rows) == len(packets)
    times = [float(row[5]) for row in rows]
    assert times == sorted(times)
    for (flags, seq, ack, length, to, _), packet in zip(rows, packets, strict=True):
        theirs = set(flags) & set(LETTERS.values())
        assert (theirs, seq, ack, length, to == str(port)) == as_tshark_says(packet, port)
    # Read back, it is the same conversation.
    again = wire("--read", str(path))
    assert [line for line in done.out.splitlines() if not CALL.fullmatch(line)] == (
        again.out.splitlines()
    )


@pytest.mark.usefixtures("right")
def test_the_packets_stand_below_the_calls_that_caused_them() -> None:
    for _ in range(5):
        with serving(answers(answer(b"hello"))) as server:
            done = wire("--get", server.url)
        blocks = done.blocks()
        handshake = [packet for call, packet in blocks if call == "connect"]
        ours = [(call, packet.partition(":")[2]) for call, packet in blocks if "->" in packet]
        ends = [call for call, packet in blocks if "FIN" in packet and "->" in packet]
        if handshake == HANDSHAKE and ("sendall", REQUEST) in ours and ends == ["shutdown"]:
            break  # else the machine was so busy that a packet was seen behind its call
    assert done.calls == [
        *("getaddrinfo", "socket", "connect", "sendall", "recv", "shutdown", "close")
    ]
    assert handshake == HANDSHAKE
    assert ("sendall", REQUEST) in ours
    assert ends == ["shutdown"]


@pytest.mark.usefixtures("right")
def test_a_long_answer_is_shown_to_its_last_byte() -> None:
    size = 3_000_000
    with serving(answers(answer(b"x" * size))) as server:
        done = wire("--get", server.url)
    lengths = [int(found) for found in re.findall(r"\|<.* len=(\d+) --\|", done.out)]
    head = len(answer(b"x" * size)) - size
    # What was sent twice is counted once: the end says how far it went.
    (end,) = re.findall(r"\|<-* FIN\S* seq=(\d+) ack=\d+ len=(\d+) --\|", done.out)
    assert int(end[0]) + int(end[1]) == 1 + head + size
    assert sum(length > 0 for length in lengths) > 10
    assert "came too fast" not in done.err


@pytest.mark.usefixtures("right")
def test_a_refused_connection() -> None:
    done = wire("--get", f"http://127.0.0.1:{closed_port()}/")
    assert done.code == 1
    assert done.blocks() == [
        ("connect", "SYN seq=0 len=0 ->: handshake 1 of 3: asks"),
        ("connect", "<- RST,ACK seq=1 ack=1 len=0: refused: nobody listens on this port"),
    ]
    assert done.err.splitlines()[-1].endswith("Connection refused")


@pytest.mark.usefixtures("right")
def test_a_reset_connection() -> None:
    def cut(sock: socket.socket) -> None:
        read_head(sock)
        reset(sock)

    with serving(cut) as server:
        done = wire("--get", server.url)
    assert done.code == 1
    assert "<- RST" in done.packets[-1]
    assert done.packets[-1].endswith("reset: cut off, what was not delivered is lost")
    assert "receive: " in done.err


@pytest.mark.usefixtures("right")
def test_the_connections_of_others_are_not_shown() -> None:
    """The server makes one to its own port before it answers."""
    ports: list[int] = []

    def first(sock: socket.socket) -> None:
        read_head(sock)
        fetch(ports[0])
        sock.sendall(answer(b"mine"))
        expect_end(sock)

    def second(sock: socket.socket) -> None:
        read_head(sock)

    with serving(first, second) as server:
        ports.append(server.port)
        done = wire("--get", server.url)
        assert server.accepted == 2
    assert done.code == 0
    assert "/other" not in done.out
    assert done.packets[:3] == HANDSHAKE
    assert sum("SYN" in packet for packet in done.packets) == 2
    assert done.err == f"prefork wire: {len(done.packets)} packets, 1 connection\n"


@pytest.mark.usefixtures("right")
def test_an_interrupt_shows_what_was_seen_until_then() -> None:
    asked = threading.Event()

    def silent(sock: socket.socket) -> None:
        read_head(sock)
        asked.set()
        expect_end(sock)

    with serving(silent) as server:
        process = subprocess.Popen(
            command("--get", server.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert asked.wait(PATIENCE)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    done = Done(process.returncode, out, err)
    assert done.code == 1
    assert done.packets[:3] == HANDSHAKE
    assert done.calls[-1] == "close"
    assert done.err.splitlines()[-1] == "prefork wire: interrupted"


# Traffic of others


@contextlib.contextmanager
def looking(*arguments: str) -> Iterator[Callable[[], Done]]:
    """`prefork wire ARGUMENTS`, which looks already; called, it ends by Ctrl-C."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    notice = process.stderr.readline()
    assert "stop with Ctrl-C" in notice, notice
    lines: list[str] = []

    def end() -> Done:
        # Every line is there as soon as its packet was seen: the last is waited for.
        assert process.stdout is not None
        while not lines or not lines[-1].endswith("end acknowledged: closed\n"):
            line = process.stdout.readline()
            assert line, lines
            lines.append(line)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        return Done(process.returncode, "".join(lines) + out, notice + err)

    try:
        yield end
    finally:
        process.kill()
        process.communicate()


def once(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(answer(b"hello"))


@pytest.mark.usefixtures("right")
@pytest.mark.parametrize("interface", ["lo", "any"])
def test_a_port_is_looked_at_and_no_other(interface: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with (
        serving(once) as server,
        serving(once, once) as other,
        looking(str(server.port), "--interface", interface, "--write", str(path)) as end,
    ):
        fetch(other.port)
        fetch(server.port)
        fetch(other.port)
        done = end()
    assert done.code == 0
    assert done.packets[:3] == HANDSHAKE
    assert sum("SYN" in packet for packet in done.packets) == 2
    assert str(other.port) not in done.out
    assert done.err.splitlines()[-1] == f"prefork wire: {len(done.packets)} packets, 1 connection"
    assert wire("--read", str(path)).packets == done.packets


# Files of others


@contextlib.contextmanager
def patient_server() -> Iterator[int]:
    """Answers as many requests as come, one after the other."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock:
                    once(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


@pytest.mark.usefixtures("right")
@pytest.mark.parametrize("interface", ["lo", "any"])
def test_a_file_that_dumpcap_wrote(interface: str, tshark: str, tmp_path: Path) -> None:
    dumpcap = shutil.which("dumpcap")
    assert dumpcap is not None, "it comes with tshark"
    path = tmp_path / "theirs.pcapng"
    arguments = ["-q", "-i", interface, "-c", "10", "-w", str(path)]
    with patient_server() as port:
        process = subprocess.Popen(
            [dumpcap, *arguments, "-f", f"tcp port {port}"], stderr=subprocess.PIPE
        )

        def seen_enough() -> bool:
            fetch(port)
            return process.poll() is not None

        try:
            # Nothing says when it looks; so it is given something to see until it has seen enough.
            until(seen_enough, "dumpcap's end")
        finally:
            process.kill()
            _, said = process.communicate()
        if process.returncode:
            lacking(f"dumpcap: {said.decode().strip()}")
    done = wire("--read", str(path))
    assert done.code == 0
    assert len(done.packets) == 10
    assert sum("GET /other HTTP/1.1" in packet for packet in done.packets) >= 1
    rows = tshark_rows(tshark, path)
    # Where the file begins in the middle of a connection, tshark counts from elsewhere.
    assert [(set(row[0]) & set(LETTERS.values()), row[3]) for row in rows] == [
        (said[0], said[3]) for said in (as_tshark_says(one, port) for one in done.packets)
    ]


@pytest.mark.usefixtures("right")
def test_files_that_tshark_wrote(tshark: str, tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    with serving(answers(answer(b"hello"))) as server:
        done = wire("--get", server.url, "--write", str(ours))
    for kind in ("pcap", "nsecpcap", "pcapng"):
        theirs = tmp_path / kind
        subprocess.run(
            [tshark, "-r", ours, "-F", kind, "-w", theirs],
            check=True,
            capture_output=True,
            timeout=PATIENCE * 2,
        )
        for port, count in ((None, len(done.packets)), (server.port, len(done.packets)), (1, 0)):
            lines: list[str] = []
            told = show.file(str(theirs), port, lines.append)
            assert told.summary == f"{count} packets, {1 if count else 0} connection" + (
                "" if count else "s"
            )
            assert told.error == ""
            # Times in microseconds are not those in nanoseconds.
            assert Done(0, "\n".join(lines), "").packets == (done.packets if count else [])


# What goes wrong


def without_right() -> None:
    """In the child, before exec: the bounding set is what root gets (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Fails for one who is not root, and has no right to begin with.
    libc.prctl(PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0)


@pytest.mark.parametrize("more", [("8000",), ("--get", "http://127.0.0.1:1/")])
def test_without_the_right_one_line_names_it_and_how_to_give_it(more: tuple[str, ...]) -> None:
    done = wire(*more, preexec_fn=without_right)
    assert done.code == 1
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert line.startswith("prefork wire: no permission to capture: CAP_NET_RAW is missing")
    assert "setcap" not in line  # that would give it to all programs in Python
    if os.geteuid() == 0:
        assert line.endswith("--cap-add=NET_RAW, or use the host")
    else:
        assert line.endswith(f"sudo {sys.executable} -m prefork wire {' '.join(more)}")


def test_reading_a_file_takes_no_right(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("nothing")
    done = wire("--read", str(path), preexec_fn=without_right)
    assert done.err.splitlines()[-1] == f"prefork wire: {path}: not a pcap or pcapng file"
    assert done.code == 1


def test_without_scapy_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['scapy'] = None; from prefork.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "wire"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert done.stderr == (
        "prefork wire: scapy is missing; install it with: pip install 'prefork[wire]'\n"
    )
    listed = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert "wire" in listed.stdout


@pytest.mark.usefixtures("right")
def test_an_interface_that_is_not_there() -> None:
    done = wire("8000", "--interface", "nope0")
    assert done.code == 1
    (line,) = done.err.splitlines()
    reason = r"nope0: no interface with this name; the interfaces are .*lo.*, any"
    assert re.fullmatch(f"prefork wire: {reason}", line)


@pytest.mark.parametrize(
    "error", [OSError("no interface with this name"), OSError(errno.ENODEV, "No such device")]
)
def test_it_is_named_in_the_same_words_by_each_python(error: OSError) -> None:
    with pytest.raises(CaptureError) as raised, _as_capture_error("nope0"):
        raise error
    assert str(raised.value).startswith("nope0: no interface with this name; the interfaces are ")


@pytest.mark.usefixtures("right")
def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.pcap"
    done = wire("--get", "http://127.0.0.1:1/", "--write", str(path))
    assert done.err == f"prefork wire: {path}: No such file or directory\n"
    assert done.code == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--read", "x", "--get", "http://h/"), "--read cannot be used with"),
        (("--read", "x", "--write", "y"), "--read cannot be used with"),
        (("--read", "x", "--interface", "lo"), "--read cannot be used with"),
        (("81", "--get", "http://h/"), "PORT is 81, and the port of the URL is 80"),
        (("443", "--get", "http://h:8000/"), "PORT is 443, and the port of the URL is 8000"),
        (("--get", "ftp://h/"), "unknown scheme"),
        (("--get", "http+unix://%2Ftmp%2Fx/"), "a Unix socket has no packets"),
        (("0",), "0 is not in the range"),
        (("65536",), "65536 is not in the range"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], reason: str) -> None:
    # In this process: what is refused here never comes to the packets.
    result = CliRunner().invoke(wire_command, list(arguments))
    assert result.exit_code == 2
    assert reason in result.output


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    data = bytes(IP(src="127.0.0.1", dst="127.0.0.1") / TCP(sport=50000, dport=8000) / b"hello")
    with Writer(str(path)) as writer:
        # More than a pipe holds (64 KiB).
        for number in range(3000):
            writer.write(Frame(number, data))
    environ = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        command("--read", str(path)),
        env=environ,  # what is buffered fails later
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("connection 1")
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(PATIENCE) == 1
    assert said == ""


def test_without_the_right_a_user_is_advised_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr("prefork.wire.capture.os.geteuid", lambda: 1000)
    monkeypatch.setattr("prefork.wire.capture.socket.socket", refused)
    monkeypatch.setattr(sys, "argv", ["prefork", "wire", "8000", "--write", "a file"])
    with pytest.raises(CaptureError) as caught:
        Capture("lo", 8000)
    advice = f"sudo {sys.executable} -m prefork wire 8000 --write 'a file'"
    assert str(caught.value).endswith(f"; run it with sudo: {advice}")


def test_the_port_of_the_url_may_be_given_with_get() -> None:
    port = closed_port()
    done = wire(str(port), "--get", f"http://127.0.0.1:{port}/")
    assert done.code == 1
    assert "the port of the URL" not in done.err
