"""What is said of a file that cannot be opened."""

import os
from pathlib import Path

import pytest

from prefork import system_errors

DENIED = PermissionError(13, "Permission denied")


def test_our_own_file_has_no_owner_to_name(tmp_path: Path) -> None:
    assert system_errors.explain_open(DENIED, str(tmp_path)) == "Permission denied"
    assert system_errors.explain_open(DENIED, str(tmp_path / "none")) == "Permission denied"


@pytest.mark.parametrize(("uid", "owner"), [(0, "root"), (4_000_000, "user 4000000")])
def test_another_users_file_names_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, owner: str
) -> None:
    found = os.lstat(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_001)
    monkeypatch.setattr(os, "lstat", lambda path: os.stat_result((*found[:4], uid, *found[5:10])))
    path = str(tmp_path)
    assert system_errors.explain_open(DENIED, path) == f"Permission denied; it belongs to {owner}"
    assert system_errors.explain_open(IsADirectoryError(21, "Is a directory"), path) == (
        "Is a directory"
    )
