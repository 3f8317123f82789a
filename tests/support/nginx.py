"""nginx as the tests run it: one process in the foreground, and one place for what it writes."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE, until

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"

_CONFIG = """
daemon off;
master_process off;
pid {root}/pid;
error_log {log} {level};
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {root}/t1;
    proxy_temp_path {root}/t2;
    fastcgi_temp_path {root}/t3;
    uwsgi_temp_path {root}/t4;
    scgi_temp_path {root}/t5;
    {http}
    access_log {access};
}}
"""


def nginx_command(
    root: Path,
    http: str,
    *,
    log: str | Path = "stderr",
    level: str = "notice",
    access: str = "off",
) -> list[str | Path]:
    """The command that starts it; a test is skipped where it is not installed.

    `http` is what its block of that name has beside the places of files.  Its pid is in the file
    `pid` once it listens.
    """
    program = shutil.which("nginx", path=_PATH)
    if program is None:
        pytest.skip("nginx is not installed")
    path = root / "nginx.conf"
    path.write_text(_CONFIG.format(root=root, http=http, log=log, level=level, access=access))
    return [program, "-p", root, "-e", log, "-c", path]


@contextlib.contextmanager
def nginx_running(
    root: Path,
    http: str,
    *,
    log: str | Path = "stderr",
    level: str = "notice",
    access: str = "off",
) -> Iterator[subprocess.Popen[bytes]]:
    """nginx, which listens, for the block; at its end nothing of it is left."""
    command = nginx_command(root, http, log=log, level=level, access=access)
    with subprocess.Popen(command) as process:
        try:
            # Its pid file is written after it listens.
            until(lambda: (root / "pid").exists() or process.poll() is not None, "nginx listens")
            assert process.poll() is None, f"nginx ended with {process.returncode}"
            yield process
        finally:
            process.kill()
            process.wait(PATIENCE)
