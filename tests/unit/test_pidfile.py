"""The pidfile: whose it is, and that its lock lasts as long as the process."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefork.master.pidfile import PidFile, PidFileError
from tests.support.commands import ROOT
from tests.support.waiting import PATIENCE


def held(path: Path) -> bool:
    """Whether another process has the lock: one's own is never in one's way."""
    script = "import fcntl,sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX|fcntl.LOCK_NB)"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True)
    return done.returncode != 0


def test_it_is_held_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(str(path))
    assert held(path)
    assert path.read_text() == f"{os.getpid()}\n"  # which closes it, and so drops the lock
    file.close()
    assert not path.exists()
    assert file.descriptors() == set()


def test_one_that_was_left_behind_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("123456789012\n")
    inode = path.stat().st_ino
    file = PidFile(str(path))
    assert (path.read_text(), path.stat().st_ino) == (f"{os.getpid()}\n", inode)
    file.close()


def test_a_reload_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("1", "2", "3"))
    file = PidFile(str(first))
    file.prepare(str(second))
    assert held(second)
    file.prepare(str(third))  # a later reload took its place
    assert not second.exists()
    file.prepare(str(first))
    assert not third.exists()
    assert held(first)
    file.prepare(None)
    file.commit()
    assert not first.exists()


def test_the_same_file_by_another_name_keeps_its_lock(tmp_path: Path) -> None:
    path, alias = tmp_path / "pid", tmp_path / "alias"
    file = PidFile(str(path))
    alias.symlink_to(tmp_path)
    file.prepare(str(alias / "pid"))
    file.commit()
    assert held(path)
    file.close()
    assert not path.exists()


def test_it_survives_an_exec(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    new = (
        "import sys; from prefork.master.pidfile import PidFile;"
        "from prefork.master.snapshot import PidFileSnapshot;"
        "PidFile(None, PidFileSnapshot(path=sys.argv[1], fd=int(sys.argv[2])));"
        "print('ready', flush=True); sys.stdin.read()"
    )
    old = (
        "import os, sys; from prefork.master.pidfile import PidFile;"
        "state = PidFile(sys.argv[1]).snapshot(); os.set_inheritable(state.fd, True);"
        f"os.execv(sys.executable, [sys.executable, '-c', {new!r}, state.path, str(state.fd)])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", old, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert path.read_text() == f"{process.pid}\n"
        with pytest.raises(
            PidFileError, match=f"is locked by process {process.pid}, a running server"
        ):
            PidFile(str(path))
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE)
    PidFile(str(path)).close()


def test_what_cannot_be_a_pidfile(tmp_path: Path) -> None:
    for path, problem in (
        (tmp_path, "cannot open the pidfile .*: Is a directory"),
        (tmp_path / "no" / "pid", "cannot open the pidfile .*: No such file"),
        (tmp_path / "link", "cannot open the pidfile .*: Too many levels of symbolic links"),
        (tmp_path / "fifo", "the pidfile .* is not a regular file; choose another path"),
    ):
        if path.name == "link":
            path.symlink_to("/etc/passwd")
        if path.name == "fifo":
            os.mkfifo(path)
        with pytest.raises(PidFileError, match=problem):
            PidFile(str(path))


def test_a_file_that_its_holder_removes_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pid"
    path.write_text("1\n")
    lock = fcntl.lockf

    def late(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "lockf", lock)
        path.unlink()  # as the server does that ends just now
        lock(fd, how)

    monkeypatch.setattr(fcntl, "lockf", late)
    file = PidFile(str(path))
    assert held(path)
    assert path.read_text() == f"{os.getpid()}\n"  # which closes it, and so drops the lock
    file.close()
