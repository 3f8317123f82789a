"""A real server for a test: started as a user would start it, and watched through its log."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from prefork.control import ControlClient, ControlError
from tests.support.commands import ROOT, prefork_command
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE

Event = dict[str, Any]


BRIDGED = ("tests.apps.bridged:app", "--set", "server.protocol=asgi")
"""The arguments that serve the same application as ASGI."""


class Server:
    """`prefork serve ARGS` with its log as JSON; every wait is for a line of that log."""

    def __init__(
        self,
        *args: str,
        tmp: Path,
        bind: tuple[str, ...] = ("127.0.0.1:0",),
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
        default_control: bool = False,
        default_format: bool = False,
        **popen: Any,
    ) -> None:
        """`wrapper`: a program that starts the server by exec.
        `default_control`: the control socket is where the server would put it.
        `default_format`: its log is text, all of it in `other`."""
        self.is_asgi = "server.protocol=asgi" in args
        self.control = tmp / "control.sock"
        command = [*wrapper, *prefork_command("serve", *args)]
        command += [part for address in bind for part in ("--bind", address)]
        if not default_control:
            command += ["--set", f"control.path={self.control}"]
        if not default_format:
            command += ["--set", "log.format=json"]
        # A link to its control socket is not to be found by other tests.
        own = {} if default_control else {"PREFORK_RUN_DIR": str(tmp)}
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **own, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=popen.pop("stdout", subprocess.DEVNULL),
            stderr=subprocess.PIPE,
            **popen,
        )
        self.pid = self.process.pid
        self.events: list[Event] = []
        self.other: list[str] = []
        """Lines on stderr that are not the server's log."""
        self.expected_errors: set[str] = set()
        """Names of events that may be logged at level error in this test."""
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                try:
                    event = json.loads(line)
                    assert isinstance(event, dict)
                    self.events.append(event)
                except (ValueError, AssertionError):
                    self.other.append(line.decode(errors="replace"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    # Waiting.

    def find(self, name: str, **fields: Any) -> list[Event]:
        """All events so far of that name and with those fields."""
        with self._news:
            return [event for event in self.events if _matches(event, name, fields)]

    def wait(self, name: str, count: int = 1, **fields: Any) -> Event:
        """The `count`th event of that name and with those fields."""

        def there() -> bool:
            found = [event for event in self.events if _matches(event, name, fields)]
            return len(found) >= count or self._ended

        with self._news:
            self._news.wait_for(there, PATIENCE)
        found = self.find(name, **fields)
        if len(found) < count:
            raise AssertionError(
                f"no event {name!r} {fields} (number {count}) in the log:\n{self.log()}"
            )
        return found[count - 1]

    def wait_ready(self, workers: int) -> "Server":
        """Waits until `workers` workers of the first generation are ready."""
        self.wait("worker ready", workers, generation=1)
        return self

    def wait_settled(self, generation: int) -> "Server":
        """Waits until that generation serves, and no worker of an older one accepts any more."""
        self.wait("generation settled", generation=generation)
        for event in self.find("worker ready"):
            if event["generation"] < generation:
                self.wait("worker leaving", pid=event["pid"])
        return self

    def log(self) -> str:
        with self._news:
            return "\n".join([*(json.dumps(event) for event in self.events), *self.other])

    # Looking.

    @property
    def addresses(self) -> list[str]:
        self.wait("listening")
        return [event["address"] for event in self.find("listening")]

    @property
    def port(self) -> int:
        return int(self.addresses[0].rpartition(":")[2])

    def children(self, role: str) -> list[psutil.Process]:
        """The master's living children of a role: worker, zygote or watcher."""
        return [child for _, child in self._titled(role)]

    def workers(self) -> list[psutil.Process]:
        """The living worker processes, by slot."""
        found = {int(title.split()[2]): child for title, child in self._titled("worker")}
        return [found[slot] for slot in sorted(found)]

    def worker_pids(self) -> list[int]:
        """The living worker processes, by slot."""
        return [worker.pid for worker in self.workers()]

    def ready_pids(self) -> list[int]:
        """The workers that are ready, and neither leave nor are dead: by the log."""
        ended = {
            event["pid"]
            for name in ("worker died", "worker exited", "worker leaving")
            for event in self.find(name)
        }
        return [event["pid"] for event in self.find("worker ready") if event["pid"] not in ended]

    def _titled(self, role: str) -> list[tuple[str, psutil.Process]]:
        """The same as `children`, each with its title."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                # Each may end at any time; a zombie raises NoSuchProcess, too.
                with contextlib.suppress(psutil.NoSuchProcess):
                    title = " ".join(child.cmdline())
                    if title.startswith(f"prefork: {role}"):
                        found.append((title, child))
        return found

    # Talking.

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def http(self, timeout: float = PATIENCE) -> http.client.HTTPConnection:
        """A keep-alive connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path: str = "/", **headers: str) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = self.http()
        try:
            connection.request("GET", path, headers={"Connection": "close", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Sends bytes, and reads until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def ask(self, command: str, **args: Any) -> dict[str, Any]:
        """Sends a command over the control socket, without a process of `prefork COMMAND`.

        Raises ControlError with the server's reason."""
        with ControlClient(self.control, timeout=PATIENCE * 2) as client:
            return client.call(command, **args)

    def refusal(self, command: str, **args: Any) -> str:
        """The reason with which the server refuses a command."""
        try:
            answer = self.ask(command, **args)
        except ControlError as error:
            return str(error)
        raise AssertionError(f"{command} was to fail: {answer}\n{self.log()}")

    def status(self) -> dict[str, Any]:
        """What `prefork status --json` says."""
        return self.ask("status")

    def start_command(self, *args: str) -> subprocess.Popen[str]:
        """Starts `prefork COMMAND ... --control PATH` and does not wait for it."""
        return subprocess.Popen(
            prefork_command(*args, "--control", self.control),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs `prefork COMMAND ... --control PATH` to its end; with `check`, it must succeed."""
        done = subprocess.run(
            prefork_command(*args, "--control", self.control),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
        )
        if check and done.returncode:
            raise AssertionError(f"{args}: {done.returncode}: {done.stderr}\n{self.log()}")
        return done

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    # The end.

    def wait_exit(self) -> int:
        """Waits for the end of the server and of its log; returns the exit status."""
        status = self.process.wait(PATIENCE * 2)
        self._reader.join(PATIENCE)
        return status

    def stop(self) -> None:
        """Stops the server if it runs; it must exit with 0, and have logged no unexpected error."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            status = self.wait_exit()
            assert status == 0, f"exit status {status} after TERM:\n{self.log()}"
        self._reader.join(PATIENCE)
        errors = [
            event
            for event in self.events
            if event.get("level") == "error"
            and event["event"] not in self.expected_errors
            # A test may end a moment before its reload has settled.
            and event.get("reason") != "the server is stopping"
        ]
        assert not errors, f"unexpected errors in the log: {errors}\n{self.log()}"
        # What an event loop says of a callback of ours.
        unhandled = [line for line in self.other if line.startswith("Exception in callback")]
        assert not unhandled, self.log()

    def kill(self) -> None:
        """Kills all processes that are left, the master first: it must not log their deaths."""
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children(recursive=True)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for pid in {event["pid"] for event in self.find("worker ready")}:
            with contextlib.suppress(psutil.NoSuchProcess):
                left = psutil.Process(pid)
                if left.cmdline() and left.cmdline()[0].startswith("prefork: worker"):
                    left.kill()


def _matches(event: Event, name: str, fields: dict[str, Any]) -> bool:
    return event.get("event") == name and all(
        key in event and event[key] == value for key, value in fields.items()
    )


Start = Callable[..., Server]


def servers(tmp: Path) -> Iterator[Start]:
    """A function that starts servers; all are stopped and checked at the end of the test."""
    running: list[Server] = []

    def start(*args: str, **options: Any) -> Server:
        place = tmp / f"server-{len(running)}"
        place.mkdir()
        server = Server(*args, tmp=place, **options)
        running.append(server)
        return server

    try:
        yield start
        for server in running:
            server.stop()
    finally:
        for server in running:
            server.kill()
            print(f"--- log of {server.process.args!r}\n{server.log()}")
