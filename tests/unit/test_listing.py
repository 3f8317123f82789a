"""Listings of directories: what they have, and what they cost."""

import os
import re
from pathlib import Path

import pytest

from prefork.apps import listing
from prefork.apps.static import Site
from tests.support.wsgi import Answer, call, environ_for

OLD = 1_700_000_000

Opened = list[bytes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory of 150 entries that has not changed for long."""
    for number in range(140):
        (tmp_path / f"file-{number:03}").write_bytes(b"x")
    for number in range(10):
        (tmp_path / f"sub-{number}").mkdir()
    os.utime(tmp_path, (OLD, OLD))
    return tmp_path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """The entries that are looked at, which is what a listing costs."""
    found: Opened = []
    original = Site._entry

    def entry(site: Site, root: int, path: bytes, name: bytes) -> os.stat_result | None:
        found.append(name)
        return original(site, root, path, name)

    monkeypatch.setattr(Site, "_entry", entry)
    return found


def get(site: Site, path: str = "/", method: str = "GET") -> Answer:
    return call(site, environ_for(path, method))


def names(answer: Answer) -> list[str]:
    return re.findall(r'href="([^"]+)"', answer.body.decode())


def test_a_listing_ends_with_the_number_of_those_that_it_leaves_out(
    root: Path, opened: Opened
) -> None:
    answer = get(Site(str(root), listing=True, listing_max=12))
    assert names(answer) == [*(f"sub-{n}/" for n in range(10)), "file-000", "file-001"]
    assert b"<td>and 138 more</td>" in answer.body
    assert len(opened) == 12


@pytest.mark.parametrize("limit", [0, 150, 1000])
def test_a_listing_of_all_says_nothing_of_others(root: Path, limit: int) -> None:
    answer = get(Site(str(root), listing=True, listing_max=limit))
    assert len(names(answer)) == 150
    assert b" more<" not in answer.body


def test_hidden_files_are_not_counted(root: Path) -> None:
    (root / ".hidden").touch()
    answer = get(Site(str(root), listing=True, listing_max=149))
    assert b"<td>and 1 more</td>" in answer.body


def test_a_listing_is_kept_until_the_directory_changes(root: Path, opened: Opened) -> None:
    site = Site(str(root), listing=True)
    first = get(site)
    assert get(site) == first
    assert len(opened) == 150
    (root / "another").touch()
    os.utime(root, (OLD + 1, OLD + 1))
    assert "another" in names(get(site))
    assert len(opened) == 301


def test_a_listing_is_not_kept_for_long(
    root: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(str(root), listing=True)
    now = 1000.0
    monkeypatch.setattr(listing, "monotonic", lambda: now)
    get(site)
    (root / "file-000").write_bytes(b"x" * 4321)  # the directory is the same
    assert b"4,321" not in get(site).body
    now += 2.1
    assert b"4,321" in get(site).body
    assert len(opened) == 300


def test_a_directory_that_has_just_changed_is_listed_anew(root: Path) -> None:
    """A second change within a tick of the clock leaves its time as it is."""
    site = Site(str(root), listing=True)
    for number in range(20):
        (root / f"new-{number}").touch()
        assert f"new-{number}" in names(get(site))


def test_the_listings_that_are_kept_are_few(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(str(root), listing=True)
    for number in range(40):
        (root / f"dir-{number}").mkdir()
        os.utime(root / f"dir-{number}", (OLD, OLD))
        assert get(site, f"/dir-{number}/").code == 200
    assert site._listings is not None
    assert len(site._listings._kept) <= 16
    monkeypatch.setattr(listing, "_LARGEST", 100)
    other = Site(str(root), listing=True)
    get(other, "/dir-1/")
    assert other._listings is not None
    assert not other._listings._kept


def test_head_of_a_large_directory_makes_no_listing(root: Path, opened: Opened) -> None:
    site = Site(str(root), listing=True)
    head = get(site, method="HEAD")
    assert (head.code, head.body, opened) == (200, b"", [])
    assert head.headers == {
        "Content-Type": "text/html; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
    }


def test_the_links_of_a_mount_are_its_own(root: Path) -> None:
    """One directory at two prefixes, as X-Forwarded-Prefix may have it."""
    site = Site(str(root), listing=True)
    for prefix in ("/one", "/two"):
        page = call(site, {**environ_for("/"), "SCRIPT_NAME": prefix}).body
        assert f"Index of {prefix}/".encode() in page
