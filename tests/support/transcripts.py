"""Transcripts on a page: a real server in a directory of its own, and what its commands print.

A block on a page is a transcript if a comment stands before it:

    <!-- transcript: NAME -->
    ```console
    ...
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.commands import ROOT
from tests.support.waiting import PATIENCE

BLOCK = re.compile(r"^<!-- transcript: ([\w ]+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ [+-]\d{4} ", re.MULTILINE)
_FRAME = re.compile(r'^ *File "(?!/srv/).*\n', re.MULTILINE)
_VARIES = (
    (_TIMESTAMP.pattern, "TIME "),
    (r"; \d+ overflows? of listen queues", ""),
    (r"^(queue of .* of) \d+", r"\1 N"),
    (r"\b(elapsed=|up )[\d.]+", r"\1N"),
    (r"(, prefork [\d.]+) \(compiled\),", r"\1,"),
    (r"\b\d+(\.\d+)? (us|ms|s|MB)\b", "TIME"),
    (r"\bpid([ =]|=\")\d+", r"pid\1PID"),
    (r"^ *\d+ +\d+ +(\d+ +[a-z]+ )", r"ROW PID \1"),
    (r"\b(slot=|worker |kill -9 |depth=)\d+", r"\1N"),
    (r"(Current thread|Thread) 0x[0-9a-f]+.*\(most", "Thread ID (most"),
    (r" +", " "),
    (r"^ ?\.\.\.\n", ""),
    (r"^ ?Thread ID.*\n(?! ?File)", ""),
    (r"\n\s*\n", "\n"),
)
"""What differs from run to run and from machine to machine: times, process and thread ids, which
worker it was, columns, the build, the limit of a queue, and overflows, which may be another
server's. And threads of prefork's own: a worker that gets no CPU writes its stacks in the other of
two ways."""


def blocks(page: Path) -> dict[str, str]:
    """The transcripts of a page by their names."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert len(dict(found)) == len(found), f"{page}: a transcript's name stands twice"
    return dict(found)


def put(page: Path, contents: dict[str, str]) -> None:
    """Writes transcripts anew."""

    def anew(match: re.Match[str]) -> str:
        head, name, old = match[0][: match.start(2) - match.start()], match[1], match[2]
        return f"{head}{contents.get(name, old)}```"

    page.write_text(BLOCK.sub(anew, page.read_text(encoding="utf-8")), encoding="utf-8")


def comparable(text: str) -> list[str]:
    """A transcript without what differs from run to run.

    Lines of the log are sorted, each with the indented lines below it, and so are the lines of
    `status`: what several processes do at the same time has no order.
    """
    for pattern, put_in in _VARIES:
        text = re.sub(pattern, put_in, text, flags=re.MULTILINE)
    if text.startswith("["):
        return sorted(re.findall(r"^\[.*\n(?:(?: .*)?\n)*", text, re.MULTILINE))
    lines = text.splitlines()
    workers = sorted(line for line in lines if line.startswith("ROW PID "))
    return [workers.pop(0) if line.startswith("ROW PID ") else line for line in lines]


class Site:
    """A directory with a configuration and an application, a server in it, and a shell beside it.

    Commands find only this server: the control sockets are in a directory of the site's own.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.shown: dict[str, str] = {str(place): "/srv/shop"}
        """What is replaced on the page: a directory or an address of this run."""
        self._process: subprocess.Popen[str] | None = None
        self._log: list[str] = []
        self._news = threading.Condition()
        (place / "run").mkdir()
        script = place / "bin" / "prefork"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m prefork "$@"\n')
        script.chmod(0o755)

    @property
    def environ(self) -> dict[str, str]:
        path = f"{self.place}/bin:{os.environ.get('PATH', os.defpath)}"
        own = {"PREFORK_RUN_DIR": str(self.place / "run"), "PATH": path, "PYTHONPATH": str(ROOT)}
        return {**os.environ, **own}

    # The server.

    def serve(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefork", "serve", *arguments],
            cwd=self.place,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._news:
                self._log.append(line)
                self._news.notify_all()

    def log(self, *events: str) -> str:
        """What stands in the log of these events, without times; each with its traceback."""
        with self._news:
            text = _TIMESTAMP.sub("", "".join(self._log))
        entries = re.findall(r"^.*\n(?:(?: .*)?\n)*", text, re.MULTILINE)
        wanted = re.compile(rf"\[\w+\] ({'|'.join(events)}) ")
        return self.show("".join(entry for entry in entries if wanted.match(entry)))

    def wait(self, text: str, count: int = 1) -> str:
        """The `count`th line of the log with this text in it."""

        def found() -> list[str]:
            return [line for line in self._log if text in line]

        with self._news:
            if not self._news.wait_for(lambda: len(found()) >= count, PATIENCE):
                raise AssertionError(f"never {text!r}, {count} times:\n{''.join(self._log)}")
            return found()[count - 1]

    def wait_exit(self) -> None:
        assert self._process is not None
        self._process.wait(PATIENCE)

    def close(self) -> None:
        """Leaves nothing behind, whatever became of the test."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children(recursive=True)
            self._process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self._process.wait()

    # The shell.

    def show(self, text: str) -> str:
        """As the page has it: no paths of this run, and frames outside the application as dots."""
        for real, shown in self.shown.items():
            text = text.replace(real, shown)
        text = _FRAME.sub(lambda match: f"{match[0][: match[0].index('F')]}...\n", text)
        text = re.sub(r"^( *\.\.\.\n)\1+", r"\1", text, flags=re.MULTILINE)
        return re.sub(r" +$", "", text, flags=re.MULTILINE)

    def run(self, *commands: str, keep: Callable[[list[str]], list[str]] = list) -> str:
        """Commands and their output, as in a terminal; `keep` chooses of the lines of output."""
        text = ""
        for command in commands:
            real = command
            for actual, shown in self.shown.items():
                real = real.replace(shown, actual)
            done = subprocess.run(
                ["sh", "-c", f"exec 2>&1\n{real}"],
                cwd=self.place,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
            )
            lines = keep(self.show(done.stdout).splitlines(keepends=True))
            text += f"$ {command}\n{''.join(lines)}"
        return text
