"""Many bytes, or few of a file: static files beside nginx, and bodies that come in."""

import os
import tempfile
from pathlib import Path

from bench import peers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.hello import BODY
from bench.servers import Server

SMALL, LARGE = 1_024, 100_000_000
UPLOAD = 1_000_000


def _files(directory: Path) -> tuple[Path, Path]:
    (directory / "hello").write_bytes(BODY)
    small, large = directory / "small.bin", directory / "large.bin"
    small.write_bytes(os.urandom(SMALL))
    with large.open("wb") as file:
        for _ in range(LARGE // 1_000_000):
            file.write(os.urandom(1_000_000))
    os.chmod(directory, 0o755)
    return small, large


def static(quick: bool) -> list[Section]:
    sections = [
        loop_section(
            "static-1k",
            "A file of 1 KB",
            "One worker, keep-alive, 32 connections.",
        ),
        loop_section(
            "static-100m",
            "A file of 100 MB",
            "One worker, keep-alive, 2 connections; both use sendfile(2).",
        ),
    ]
    with tempfile.TemporaryDirectory(prefix="bench-files-") as name:
        small, large = _files(Path(name))
        rows = [
            Row(sections[0], Ask(path="/small.bin", body=f"@{small}")),
            Row(sections[1], Ask(connections=2, path="/large.bin", body=f"@{large}")),
        ]
        contestants = [
            Server("prefork", peers.prefork(f"{name}/", "--workers", "1"), "/hello"),
            peers.nginx("nginx", f"root {name};", "/hello"),
        ]
        compare(contestants, rows, 1 if quick else 5, 0.4 if quick else 0.6)
    return sections


def upload(quick: bool) -> Section:
    row = Row(
        loop_section(
            "post-1m",
            "POST of 1 MB",
            "One worker, keep-alive, 4 connections; the application reads the body to its end.",
        ),
        Ask(connections=4, upload=UPLOAD),
    )
    app, one = "bench.apps:reader", ("--workers", "1")
    contestants = [
        Server("prefork", peers.prefork(app, *one)),
        Server("bjoern", peers.bjoern(app)),
        Server("granian", peers.granian(app, 1, *one)),
        Server("gunicorn gthread", peers.gthread(app, 1, *one)),
    ]
    compare(contestants, [row], 1 if quick else 5, 0.4 if quick else 0.6)
    return row.section


def measure(quick: bool) -> list[Section]:
    return [*static(quick), upload(quick)]
