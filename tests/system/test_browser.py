"""A browser, Chromium without a screen: a page with fifty assets from two workers, twice."""

import contextlib
import gzip
import json
import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from time import time

import psutil
import pytest

from tests.apps.browsed import ASSETS, DRAWINGS, PICTURES, SCRIPTS, SOUND, STYLES, TABLES
from tests.support.server import Start
from tests.support.waiting import until

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

FLAGS = (
    # As root, which a container's tests are, its sandbox can't be made.
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-breakpad", "--disable-dev-shm-usage", "--mute-audio"),
)

COMMENT = "/* so long that it is worth to be compressed */\n" * 40


def picture(number: int) -> bytes:
    """A PNG of 7 by 7, with as many bytes behind its end as tell it from others."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))
        )

    rows = zlib.compress((b"\0" + bytes((number * 9,)) * 7) * 7)
    header = chunk(b"IHDR", struct.pack("!IIBBBBB", 7, 7, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sound(seconds: int) -> bytes:
    """Silence as WAVE, 8000 samples of a byte a second."""
    data = b"\x80" * 8000 * seconds
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    head = (
        b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data))
    )
    return b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The files at /static/; styles have compressed ones beside them."""
    site = tmp_path / "site"
    site.mkdir()
    for n in range(PICTURES):
        (site / f"picture-{n}.png").write_bytes(picture(n))
    for n in range(STYLES):
        style = f"{COMMENT}body {{ --style-{n}: there; }}\n".encode()
        (site / f"style-{n}.css").write_bytes(style)
        (site / f"style-{n}.css.gz").write_bytes(gzip.compress(style))
    for n in range(SCRIPTS):
        (site / f"script-{n}.js").write_text(f"{COMMENT}ran.add({n});\n")
    (site / "sound.wav").write_bytes(sound(60))
    # Younger than any answer: a cache takes none of them as fresh by its age (RFC 9111, 4.2.2).
    for path in site.iterdir():
        os.utime(path, (time() + 3600,) * 2)
    return site


@contextlib.contextmanager
def browsing(url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A browser at a page; it goes with all of its processes at the end of the block."""
    assert CHROMIUM is not None
    # Not pytest's own directory: a socket's path has to be short, unix(7).
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as home:
        output = log.open("wb")
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={home}/data", url],
            env={"PATH": os.environ.get("PATH", ""), "HOME": home, "TMPDIR": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            for other in session(process.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    other.kill()
            process.wait()
            output.close()
            print(log.read_text(errors="replace"))


def session(pid: int) -> list[psutil.Process]:
    """The processes of a session, also those that have left their parents."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == pid:
                found.append(process)
    return found


def test_chromium_loads_a_page_with_fifty_assets_and_asks_again_whether_they_are_new(
    start: Start, site: Path, tmp_path: Path
) -> None:
    reports, access = tmp_path / "reports", tmp_path / "access.log"
    reports.touch()
    config = tmp_path / "site.toml"
    config.write_text(
        f'[server]\napp = "tests.apps.browsed:app"\nchdir = "{Path.cwd()}"\n'
        '[workers]\ncount = 2\n[http]\ncompress = ["gzip"]\n'
        f'[static]\nmounts = {{ "/static/" = "{site}" }}\nprecompressed = true\n'
        f'[log]\naccess = "{access}"\naccess_format = "json"\n'
    )
    server = start(str(config), env={"REPORTS": str(reports)}).wait_ready(2)

    def seen() -> list[dict[str, object]]:
        return [json.loads(line) for line in access.read_bytes().splitlines()]

    with browsing(f"http://127.0.0.1:{server.port}/", tmp_path / "browser.log") as browser:
        until(
            lambda: reports.read_bytes().count(b"\n") == 2 or browser.poll() is not None,
            "the page reports twice",
        )
    told = [json.loads(line) for line in reports.read_bytes().splitlines()]
    assert len(told) == 2
    workers = {worker.pid for worker in server.workers()}
    for report in told:
        assert report.get("problem") is None, report
        assert report["pictures"] == PICTURES + DRAWINGS
        assert (report["styles"], report["scripts"]) == (STYLES, SCRIPTS)
        assert (report["tables"], report["sound"]) == (TABLES, 60)
        assert set(report["workers"]) <= workers
        assert report["part"] == [206, "WAVE"]
    # Compressed beforehand, on the way, and by whom the application is served.
    packed = {path.rpartition("-")[0] for path in told[0]["packed"]}
    assert packed >= {"/static/style", "/static/script", "/table"}

    until(lambda: sum(line["uri"] == "/report" for line in seen()) == 2, "all is in the log")
    statuses: dict[object, list[object]] = defaultdict(list)
    for line in seen():
        statuses[line["uri"]].append(line["status"])
    assert len(ASSETS) == 50
    assert {asset: statuses.pop(asset) for asset in ASSETS} == {key: [200, 304] for key in ASSETS}
    assert statuses.pop("/") == [200, 304]
    # A player asks for a range from the first byte on; what it has kept it asks about again.
    heard = statuses.pop(SOUND)
    assert set(heard) <= {206, 304}
    assert heard.count(206) >= 3
    assert dict(statuses) == {"/report": [204, 204]}
