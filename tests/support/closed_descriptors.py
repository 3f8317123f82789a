"""A server that is started with some of its standard descriptors closed."""

import os
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.support.commands import ROOT, prefork_command
from tests.support.processes import links
from tests.support.sockets import accepts
from tests.support.waiting import PATIENCE, until


def serve_once(place: Path, closed: Iterable[int]) -> None:
    """Starts it in the directory `place`; it must answer, have /dev/null there, and stop."""

    def close() -> None:
        for fd in closed:
            os.close(fd)

    web = place / "web"
    server = subprocess.Popen(
        prefork_command(
            *("serve", "tests.apps.basic:app", "--bind", f"unix:{web}", "--workers", "1"),
            *("--set", f"control.path={place / 'control'}"),
        ),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=close,
    )
    try:
        until(lambda: accepts(web) or server.poll() is not None, "it listens")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(web))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        found = links(server.pid)
        assert [found[fd] for fd in (0, 1, 2)] == ["/dev/null"] * 3
    finally:
        server.terminate()
        assert server.wait(PATIENCE) == 0
