"""The servers that are compared: how each is started, how its CPU time is read, how it is stopped.

CPU time is that of the whole process tree: the master and all its descendants, and what their
children that ended have used.  A live process is read from its CPU clock, in nanoseconds
(clock_getcpuclockid(3)): /proc counts ticks of 10 ms, which is 5 % of a short round.  Ended
children are known in ticks only; there are none in a good round.
"""

import compileall
import contextlib
import http.client
import os
import resource
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.hello import BODY

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench/.venv/bin"
BUILD = ROOT / "bench/build"
OPENSSL = Path("/usr/include/openssl/ssl.h")
"""Without it the load generator does not speak TLS."""
CERTIFICATE, KEY = BUILD / "certificate.pem", BUILD / "key.pem"

BOOT_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0


class BenchError(Exception):
    """What stops a run, in one line for the user."""


@dataclass(frozen=True)
class Server:
    """One row of a table."""

    name: str
    command: tuple[str, ...]
    """`{port}` stands for the port of 127.0.0.1 to listen on, `{config}` for the file below."""
    probe: str = "/"
    """What it answers like `bench.hello` once it is up."""
    config: str = ""
    """A configuration file; `{port}` as above, `{directory}` is one of its own to write in."""
    tls: bool = False
    """It speaks TLS, with the certificate and key that `certificate` has made."""


def prepare() -> None:
    """Sees that the peers are there and compiles the C programs.

    Raises BenchError where the peers or the compiler are missing, or it refuses.
    """
    if not (PEERS / "gunicorn").exists():
        raise BenchError(f"no gunicorn in {PEERS}: `make bench` puts it there")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    compile_modules()
    compile_programs()


def compile_modules() -> None:
    """As an installation does: the peers are compiled, and a checkout is not."""
    for package in ("prefork", "bench"):
        compileall.compile_dir(ROOT / package, quiet=2)


def compile_programs() -> None:
    """Compiles the C programs into bench/build; raises BenchError where that fails."""
    BUILD.mkdir(exist_ok=True)
    for name in ("load", "accept_loop"):
        source, binary = f"{ROOT}/bench/{name}.c", f"{BUILD}/{name}"
        tls = ("-DTLS", "-lssl", "-lcrypto") if OPENSSL.exists() and name == "load" else ()
        command = ["cc", "-O2", "-Wall", "-Wextra", "-o", binary, source, *tls]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            raise BenchError("cc not found: install a C compiler (Debian: gcc)") from None
        except subprocess.CalledProcessError:
            raise BenchError(f"cc could not compile bench/{name}.c") from None


def certificate() -> None:
    """Makes CERTIFICATE and KEY, for 127.0.0.1 (ECDSA, P-256).

    Raises BenchError where openssl(1) is missing, or the load generator does not speak TLS.
    """
    if not OPENSSL.exists():
        raise BenchError(f"{OPENSSL} is missing (Debian: libssl-dev): no load over TLS")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-nodes", "-days", "30", "-keyout", str(KEY), "-out", str(CERTIFICATE)]
    try:
        subprocess.run(
            [*command, *files, "-subj", "/CN=127.0.0.1"], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as problem:
        raise BenchError(f"openssl could not make a certificate: {problem}") from None


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago.

    Somebody else may take it before the server does; the server then fails to start, and says so.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A server that answers."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.name = name
        self.process = process
        self.port = port

    def tree(self) -> list[psutil.Process]:
        """Raises psutil.NoSuchProcess where the server is gone."""
        master = psutil.Process(self.process.pid)
        return [master, *master.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of CPU that the whole tree has used so far.

        Raises BenchError where the server is gone, or one of its processes goes meanwhile.
        """
        try:
            return sum(_used(process) for process in self.tree())
        except (psutil.NoSuchProcess, OSError):
            raise BenchError(f"{self.name}: it or a process of it ended during a round") from None


def _used(process: psutil.Process) -> float:
    ended = process.cpu_times()
    # CPUCLOCK_SCHED of another process, all its threads: <linux/posix-timers.h>, Linux 2.6.12
    clock = (~process.pid << 3) | 2
    return time.clock_gettime(clock) + ended.children_user + ended.children_system


@contextlib.contextmanager
def started(server: Server) -> Iterator[Running]:
    """The server, from its first right answer to its end; nothing of it is left afterwards.

    Raises BenchError where it does not start, with the end of what it printed.
    """
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        tempfile.TemporaryFile() as output,
    ):
        os.chmod(directory, 0o755)  # a server may drop its rights
        config = Path(directory, "config")
        config.write_text(server.config.format(port=port, directory=directory))
        command = [part.format(port=port, config=config) for part in server.command]
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, process_group=0
            )
        except OSError as error:
            raise BenchError(f"{server.name}: {command[0]}: {error.strerror}") from None
        running = Running(server.name, process, port)
        try:
            if not _answers(running, server.probe, tls=server.tls):
                output.seek(0)
                said = output.read().decode(errors="replace").strip()[-2000:]
                raise BenchError(f"{server.name} did not start: {said or 'it printed nothing'}")
            yield running
        finally:
            _stop(running)


def _connection(port: int, *, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.check_hostname = False
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)


def _answers(running: Running, path: str, *, tls: bool) -> bool:
    deadline = time.monotonic() + BOOT_TIMEOUT
    while time.monotonic() < deadline and running.process.poll() is None:
        connection = _connection(running.port, tls=tls)
        try:
            # a server that does not keep connections may close after its answer, and it may be C
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return answer.status == 200 and answer.read() == BODY
        except (OSError, http.client.HTTPException):
            time.sleep(0.005)
        finally:
            connection.close()
    return False


def _stop(running: Running) -> None:
    """Ends the server, and whatever it leaves of its process group.

    Not what its tree was when it was told to stop: granian, for one, goes on forking workers then.
    """
    process = running.process
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    until = time.monotonic() + STOP_TIMEOUT
    # The id is the group's for as long as anybody is in it.
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.005)
