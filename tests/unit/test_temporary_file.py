"""Files without a name: where they are, and that they are nobody else's."""

import errno
import os
import stat
from pathlib import Path

import pytest

from prefork import unpatched
from prefork.temporary_file import unnamed_file


@pytest.fixture(params=["O_TMPFILE", "a name that goes at once"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As file systems do it that know unnamed files, and as others do."""
    if request.param == "O_TMPFILE":
        return
    actual = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return actual(path, flags, mode)

    monkeypatch.setattr(unpatched.os, "open", refuse)


def test_it_has_no_name_and_no_reader_and_keeps_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with open(unnamed_file(), "r+b", 0) as file:
        status = os.fstat(file.fileno())
        assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 0)
        assert status.st_dev == tmp_path.stat().st_dev
        assert os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(str(tmp_path))
        assert not os.get_inheritable(file.fileno())
        file.write(b"some")
        file.seek(0)
        assert file.read() == b"some"
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_no_directory_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("TEMP", str(tmp_path / "file"))
    monkeypatch.setenv("TMP", str(tmp_path))
    fd = unnamed_file()
    place = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    assert place.startswith(str(tmp_path))


def test_without_a_free_descriptor_no_other_directory_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        asked.append(path)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(unpatched.os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        unnamed_file()
    assert asked == [str(tmp_path)]
