"""Static files, called as the WSGI application that they are."""

import email
import errno
import mmap
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefork import linux, unpatched
from prefork.apps import static
from prefork.apps.static import Mounts, Site
from prefork.apps.wsgi import FileWrapper
from tests.support.waiting import PATIENCE
from tests.support.wsgi import Answer, StartResponse, call, environ_for

TEXT = b"0123456789"
SECRET = b"the secret outside"
MODIFIED = 1_700_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


def get(
    application: Any, path: str, method: str = "GET", query: str = "", **headers: str
) -> Answer:
    return call(application, environ_for(path, method, query, **headers))


@pytest.fixture(autouse=True)
def _no_descriptor_is_left_open() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert before.issuperset(os.listdir("/proc/self/fd"))  # the collector may have closed others


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "sub").mkdir(parents=True)
    (root / "text.txt").write_bytes(TEXT)
    (root / "empty.txt").write_bytes(b"")
    (root / "index.html").write_bytes(b"<p>home</p>")
    (root / "sub" / "inner.txt").write_bytes(b"inner")
    (root / ".hidden").write_bytes(SECRET)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_bytes(SECRET)
    (tmp_path / "secret.txt").write_bytes(SECRET)
    os.utime(root / "text.txt", (MODIFIED, MODIFIED))
    return root


@pytest.fixture
def site(root: Path) -> Site:
    return Site(str(root))


@pytest.fixture(params=["openat2", "walk"])
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test twice: with openat2(2), and as a kernel that does not have it."""
    if request.param == "walk":
        monkeypatch.setattr(linux, "_openat2", raising(errno.ENOSYS))
    return str(request.param)


def raising(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


# What is there


def test_a_file_is_answered_with_its_bytes_and_all_its_headers(site: Site, root: Path) -> None:
    status = (root / "text.txt").stat()
    answer = get(site, "/text.txt")
    assert (answer.code, answer.body) == (200, TEXT)
    assert answer.headers == {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": "10",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
        "ETag": f'"{status.st_mtime_ns:x}-a"',
    }


def test_a_file_of_many_blocks_is_whole(site: Site, root: Path) -> None:
    content = os.urandom(200_001)
    (root / "big.bin").write_bytes(content)
    assert get(site, "/big.bin").body == content


def test_an_empty_file_is_an_empty_body(site: Site) -> None:
    answer = get(site, "/empty.txt")
    assert (answer.code, answer.headers["Content-Length"], answer.body) == (200, "0", b"")


def test_a_name_that_is_not_ascii_is_found_by_its_utf_8_bytes(site: Site, root: Path) -> None:
    (root / "grün ☃.txt").write_bytes(b"snow")
    assert get(site, "/grün ☃.txt").body == b"snow"


def test_a_name_that_is_not_utf_8_is_found_by_its_bytes(site: Site, root: Path) -> None:
    with open(os.fsencode(root) + b"/\xff.txt", "wb") as file:
        file.write(b"odd")
    assert get(site, "/\udcff.txt").body == b"odd"


def test_a_file_deep_down_is_found(root: Path, opener: str) -> None:
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "b" / "c" / "d.txt").write_bytes(b"deep")
    site = Site(str(root), listing=True)
    assert get(site, "/a/b/c/d.txt").body == b"deep"
    assert b"d.txt" in get(site, "/a/b/c/").body
    assert get(site, "/a/b/missing/d.txt").code == 404


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.TXT", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/gzip"),
        ("a.unheard-of", "application/octet-stream"),
        ("README", "application/octet-stream"),
        ("data:,x.html", "text/html; charset=utf-8"),
    ],
)
def test_the_content_type_follows_the_last_suffix(
    site: Site, root: Path, name: str, kind: str
) -> None:
    (root / name).write_bytes(b"x")
    answer = get(site, f"/{name}")
    assert answer.headers["Content-Type"] == kind
    assert "Content-Encoding" not in answer.headers


def test_a_link_to_a_release_that_is_swapped_is_seen_by_the_next_request(tmp_path: Path) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "version").write_text(release)
    current = tmp_path / "current"
    current.symlink_to("one")
    site = Site(str(current))
    assert get(site, "/version").body == b"one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(current)
    assert get(site, "/version").body == b"two"


# Methods


@pytest.mark.parametrize(
    "path", ["/text.txt", "/empty.txt", "/", "/sub", "/missing", "/listed/", "/.hidden"]
)
def test_head_has_the_status_and_headers_of_get_and_no_body(root: Path, path: str) -> None:
    (root / "listed").mkdir()
    site = Site(str(root), listing=True)
    whole, head = get(site, path), get(site, path, "HEAD")
    assert (head.code, head.headers, head.body) == (whole.code, whole.headers, b"")


def test_head_takes_no_notice_of_a_range(site: Site) -> None:
    answer = get(site, "/text.txt", "HEAD", range="bytes=0-1")
    assert (answer.code, answer.headers["Content-Length"]) == (200, "10")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get"])
@pytest.mark.parametrize("path", ["/text.txt", "/missing"])
def test_another_method_is_405_with_what_is_allowed(root: Path, method: str, path: str) -> None:
    environ = environ_for(path, method)
    started = StartResponse()
    body = Site(str(root))(environ, started)
    assert started.status == "405 Method Not Allowed"
    assert started.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert list(body) == [b"405 Method Not Allowed\n"]


def test_options_says_what_is_allowed(site: Site) -> None:
    answer = get(site, "/text.txt", "OPTIONS")
    assert (answer.code, answer.headers, answer.body) == (204, {"Allow": "GET, HEAD, OPTIONS"}, b"")


# Conditions


def test_the_entity_tag_changes_with_time_and_size_and_is_that_of_a_copy(
    site: Site, root: Path
) -> None:
    file, other = root / "text.txt", root / "other.txt"
    tags = [get(site, "/text.txt").headers["ETag"]]
    file.write_bytes(b"longer than before")
    os.utime(file, (MODIFIED, MODIFIED))
    tags.append(get(site, "/text.txt").headers["ETag"])
    os.utime(file, ns=(0, MODIFIED * 10**9 + 1))
    tags.append(get(site, "/text.txt").headers["ETag"])
    assert len(set(tags)) == 3
    # As on another machine: the same content at the same time, and another inode.
    other.write_bytes(b"longer than before")
    os.utime(other, ns=(0, MODIFIED * 10**9 + 1))
    assert other.stat().st_ino != file.stat().st_ino
    assert get(site, "/other.txt").headers["ETag"] == tags[-1]


@pytest.mark.parametrize("path", ["/text.txt", "/sub/", "/sub", "/missing"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_no_browser_guesses_another_type(root: Path, path: str, method: str) -> None:
    answer = get(Site(str(root), listing=True), path, method)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"a,b" ,W/{},"c"', "*", " * "])
def test_if_none_match_that_names_the_file_is_304(site: Site, form: str, method: str) -> None:
    whole = get(site, "/text.txt").headers
    answer = get(site, "/text.txt", method, if_none_match=form.format(whole["ETag"]))
    assert (answer.code, answer.body) == (304, b"")
    assert answer.headers == {name: whole[name] for name in ("ETag", "Last-Modified")}


def test_if_none_match_outranks_if_modified_since(site: Site) -> None:
    later = formatdate(MODIFIED + 100, usegmt=True)
    for tags in ('"other"', "", "nonsense"):
        answer = get(site, "/text.txt", if_none_match=tags, if_modified_since=later)
        assert (answer.code, answer.body) == (200, TEXT)


@pytest.mark.parametrize(
    ("date", "code"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", 304),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", 304),
        ("Tue Nov 14 22:13:20 2023", 304),
        ("Tue, 14 Nov 2023 22:13:21 GMT", 304),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 200),
        ("Tue, 99 Nov 2023 22:13:20 GMT", 200),
        ("tomorrow", 200),
        ("", 200),
    ],
)
def test_if_modified_since_in_each_form_of_a_date_whatever_the_zone_of_the_server(
    site: Site, date: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        assert get(site, "/text.txt", if_modified_since=date).code == code
    finally:
        monkeypatch.undo()
        time.tzset()


@given(date=st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_date_breaks_a_request(site: Site, date: str) -> None:
    assert get(site, "/text.txt", if_modified_since=date).code in (200, 304)


@pytest.mark.parametrize("seconds", [-5, 2**40])
def test_a_file_from_before_1970_or_from_the_future_has_a_date_that_can_be_sent(
    root: Path, seconds: int
) -> None:
    (root / "sub" / "odd").write_bytes(b"x")
    try:
        os.utime(root / "sub" / "odd", (seconds, seconds))
    except OSError:
        pytest.skip("the file system cannot store such a time")
    site = Site(str(root), listing=True)
    answer = get(site, "/sub/odd")
    assert answer.code == 200
    sent = parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
    assert 0 <= sent <= time.time()
    assert get(site, "/sub/").code == 200


@pytest.mark.parametrize("nanoseconds", [1, 500_000_000, 999_999_999])
def test_the_time_of_a_file_is_never_rounded_up(site: Site, root: Path, nanoseconds: int) -> None:
    """A date one second later would answer 304 for a change within that second."""
    os.utime(root / "text.txt", ns=(0, MODIFIED * 10**9 + nanoseconds))
    date = get(site, "/text.txt").headers["Last-Modified"]
    assert parsedate_to_datetime(date).timestamp() == MODIFIED
    assert get(site, "/text.txt", if_modified_since=date).code == 304


# Ranges


@pytest.mark.parametrize(
    ("text", "body", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-999999999999999999", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", TEXT, "bytes 0-9/10"),
        ("bytes=0-", TEXT, "bytes 0-9/10"),
        ("Bytes= 1-2 ", b"12", "bytes 1-2/10"),
        ("bytes=0-1,", b"01", "bytes 0-1/10"),
        ("bytes=10-20, 8-", b"89", "bytes 8-9/10"),
    ],
)
def test_a_single_range_is_206(site: Site, text: str, body: bytes, content_range: str) -> None:
    answer = get(site, "/text.txt", range=text)
    assert (answer.code, answer.body) == (206, body)
    assert answer.headers["Content-Range"] == content_range
    assert answer.headers["Content-Length"] == str(len(body))
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["ETag"] == get(site, "/text.txt").headers["ETag"]


@pytest.mark.parametrize(
    "text",
    [
        *("bytes=0-1,x", "bytes=,", "lines=0-1", "bytes", "bytes=", "bytes=-", "bytes=4-2"),
        *("bytes=a-b", "bytes=+1-2", "bytes=1--2", "bytes=0x0-1", "bytes=1", "bytes 0-1"),
        *("bytes=²-3", "bytes=0-" + "9" * 5000, "0-1", ""),
    ],
)
def test_a_range_that_is_not_one_well_formed_range_is_ignored(site: Site, text: str) -> None:
    answer = get(site, "/text.txt", range=text)
    assert (answer.code, answer.body) == (200, TEXT)
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize(
    ("path", "text", "content_range"),
    [
        ("/text.txt", "bytes=10-", "bytes */10"),
        ("/text.txt", "bytes=10-20", "bytes */10"),
        ("/text.txt", "bytes=999999999999999999-", "bytes */10"),
        ("/text.txt", "bytes=-0", "bytes */10"),
        ("/empty.txt", "bytes=0-", "bytes */0"),
    ],
)
def test_a_range_beyond_the_end_is_416(
    site: Site, path: str, text: str, content_range: str
) -> None:
    answer = get(site, path, range=text)
    assert (answer.code, answer.headers["Content-Range"]) == (416, content_range)
    assert answer.body.startswith(b"416 ")  # the words are those of the Python that runs


def test_the_last_bytes_of_an_empty_file_are_the_whole_of_it(site: Site) -> None:
    answer = get(site, "/empty.txt", range="bytes=-5")
    assert (answer.code, answer.body) == (200, b"")


def test_several_ranges_are_parts_of_one_answer(site: Site) -> None:
    answer = get(site, "/text.txt", range="bytes=0-1, 5-5,99-,-2")
    assert answer.code == 206
    assert "Content-Range" not in answer.headers
    assert answer.headers["Content-Length"] == str(len(answer.body))
    kind = answer.headers["Content-Type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n".encode() + answer.body)
    parts: Any = message.get_payload()
    assert [
        (part["Content-Type"], part["Content-Range"], part.get_payload(decode=True))
        for part in parts
    ] == [
        ("text/plain; charset=utf-8", "bytes 0-1/10", b"01"),
        ("text/plain; charset=utf-8", "bytes 5-5/10", b"5"),
        ("text/plain; charset=utf-8", "bytes 8-9/10", b"89"),
    ]
    head = get(site, "/text.txt", "HEAD", range="bytes=0-1,3-4")
    assert (head.code, head.headers["Content-Length"]) == (200, "10")


def test_ranges_that_ask_for_more_than_there_is_get_the_whole(site: Site) -> None:
    for text in ("bytes=0-5,4-9", "bytes=" + "0-,3-," * 2, "bytes=" + ",".join(["0-0"] * 17)):
        answer = get(site, "/text.txt", range=text)
        assert (answer.code, answer.body) == (200, TEXT)


# If-Match and If-Unmodified-Since


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_match_is_412_for_another_file_and_compares_strongly(site: Site, method: str) -> None:
    tag = get(site, "/text.txt").headers["ETag"]
    for same in (tag, "*", f'"other", {tag}'):
        assert get(site, "/text.txt", method, if_match=same).code == 200
    for other in ('"other"', f"W/{tag}", "", "nonsense"):
        answer = get(site, "/text.txt", method, if_match=other)
        assert (answer.code, "ETag" in answer.headers) == (412, False)
    # It outranks all other conditions.
    earlier = formatdate(MODIFIED - 1, usegmt=True)
    assert get(site, "/text.txt", if_match=tag, if_unmodified_since=earlier).code == 200
    assert get(site, "/text.txt", if_match='"other"', if_none_match=tag).code == 412
    assert get(site, "/text.txt", if_match=tag, if_none_match=tag).code == 304


def test_if_unmodified_since_is_412_for_a_later_file(site: Site) -> None:
    for step, code in ((-1, 412), (0, 200), (1, 200)):
        date = formatdate(MODIFIED + step, usegmt=True)
        assert get(site, "/text.txt", if_unmodified_since=date).code == code
    assert get(site, "/text.txt", if_unmodified_since="nonsense").code == 200


# Compressed files beside the others


@pytest.fixture
def beside(tmp_path: Path) -> Site:
    for name, content in {
        "app.js": b"the script",
        "app.js.gz": b"gzip of it",
        "app.js.br": b"brotli",
        "old.css": b"new",
        "old.css.gz": b"old",
        "alone.css": b"alone",
        "index.html": b"index",
        "index.html.zst": b"zstd of it",
    }.items():
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (MODIFIED, MODIFIED))
    os.utime(tmp_path / "old.css", (MODIFIED + 1, MODIFIED + 1))
    (tmp_path / "odd.js").write_bytes(b"odd")
    (tmp_path / "odd.js.gz").mkdir()
    return Site(str(tmp_path), precompressed=True)


@pytest.mark.parametrize(
    ("path", "accept", "body", "coding"),
    [
        ("/app.js", "gzip", b"gzip of it", "gzip"),
        ("/app.js", "gzip, deflate, br", b"brotli", "br"),
        ("/app.js", "br;q=0.1, gzip", b"gzip of it", "gzip"),
        ("/app.js", "*", b"brotli", "br"),
        ("/app.js", "gzip;q=0", b"the script", None),
        ("/app.js", "zstd", b"the script", None),
        ("/app.js", "", b"the script", None),
        ("/", "zstd", b"zstd of it", "zstd"),
        ("/old.css", "gzip", b"new", None),
        ("/alone.css", "gzip", b"alone", None),
        ("/odd.js", "gzip", b"odd", None),
        ("/app.js.gz", "", b"gzip of it", None),
    ],
)
def test_the_file_in_a_coding_that_the_client_takes(
    beside: Site, path: str, accept: str, body: bytes, coding: str | None
) -> None:
    headers = {"accept_encoding": accept} if accept else {}
    answer = get(beside, path, **headers)
    assert (answer.code, answer.body) == (200, body)
    assert answer.headers.get("Content-Encoding") == coding
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.headers["Content-Length"] == str(len(body))
    kind = {"j": "text/javascript; charset=utf-8", "g": "application/gzip"}.get(path[-2:-1])
    assert kind is None or answer.headers["Content-Type"] == kind


def test_each_coding_has_its_own_entity_tag(beside: Site) -> None:
    plain, packed = get(beside, "/app.js"), get(beside, "/app.js", accept_encoding="gzip")
    tag = packed.headers["ETag"]
    assert plain.headers["ETag"] != tag
    answer = get(beside, "/app.js", accept_encoding="gzip", if_none_match=tag)
    assert (answer.code, answer.headers["Vary"]) == (304, "Accept-Encoding")
    assert get(beside, "/app.js", if_none_match=tag).code == 200
    part = get(beside, "/app.js", accept_encoding="gzip", range="bytes=0-3")
    assert (part.code, part.body, part.headers["Content-Encoding"]) == (206, b"gzip", "gzip")


def test_codings_of_the_same_size_and_time_have_entity_tags_of_their_own(tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".zst", ".br"):
        (tmp_path / f"same.js{suffix}").write_bytes(b"12345")
        os.utime(tmp_path / f"same.js{suffix}", (MODIFIED, MODIFIED))
    site = Site(str(tmp_path), precompressed=True)
    answers = [get(site, "/same.js", accept_encoding=each) for each in ("", "gzip", "zstd", "br")]
    assert len({answer.headers["ETag"] for answer in answers}) == 4


def test_if_range_gives_the_part_only_of_the_very_same_file(site: Site) -> None:
    tag = get(site, "/text.txt").headers["ETag"]
    date = formatdate(MODIFIED, usegmt=True)
    for same in (tag, date):
        assert get(site, "/text.txt", range="bytes=0-1", if_range=same).code == 206
    later, earlier = (formatdate(MODIFIED + step, usegmt=True) for step in (1, -1))
    for other in (f"W/{tag}", '"other"', later, earlier, "nonsense", ""):
        answer = get(site, "/text.txt", range="bytes=0-1", if_range=other)
        assert (answer.code, answer.body) == (200, TEXT)


def test_a_condition_that_holds_outranks_a_range(site: Site) -> None:
    tag = get(site, "/text.txt").headers["ETag"]
    assert get(site, "/text.txt", range="bytes=99-", if_none_match=tag).code == 304


@given(first=st.integers(0, 12), last=st.none() | st.integers(0, 12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_range_is_the_slice_that_it_names(site: Site, first: int, last: int | None) -> None:
    answer = get(site, "/text.txt", range=f"bytes={first}-{'' if last is None else last}")
    if last is not None and last < first:
        assert (answer.code, answer.body) == (200, TEXT)
    elif first >= len(TEXT):
        assert answer.code == 416
    else:
        expected = TEXT[first:] if last is None else TEXT[first : last + 1]
        assert (answer.code, answer.body) == (206, expected)


# Directories


def test_a_directory_answers_with_its_index(site: Site) -> None:
    answer = get(site, "/")
    assert (answer.code, answer.body) == (200, b"<p>home</p>")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_the_index_can_have_another_name_or_none(root: Path) -> None:
    assert get(Site(str(root), index="text.txt"), "/").body == TEXT
    assert get(Site(str(root), index=""), "/").code == 404
    assert b"Index of" in get(Site(str(root), index="", listing=True), "/").body


@pytest.mark.parametrize("listing", [False, True])
def test_an_index_that_is_no_file_is_404(root: Path, listing: bool) -> None:
    os.mkfifo(root / "sub" / "index.html")
    assert get(Site(str(root), listing=listing), "/sub/").code == 404


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/sub", "", "/sub/"),
        ("/sub", "a=1&b=%20c?/", "/sub/?a=1&b=%20c?/"),
        ("/sub", "a=\r\nSet-Cookie: b\xff", "/sub/?a=%0D%0ASet-Cookie:%20b%FF"),
        ("/grün ?#%\\", "", "/gr%C3%BCn%20%3F%23%25%5C/"),
        ("/\\evil", "", "/%5Cevil/"),
    ],
)
def test_a_directory_without_its_slash_is_redirected(
    site: Site, root: Path, path: str, query: str, location: str
) -> None:
    (root / path[1:]).mkdir(exist_ok=True)
    answer = get(site, path, query=query)
    assert (answer.code, answer.headers["Location"]) == (301, location)


@pytest.mark.parametrize("path", ["//sub", "//sub/", "//evil.example/sub", "/sub//inner.txt"])
def test_an_empty_segment_is_404_so_that_no_redirect_names_another_host(
    site: Site, path: str
) -> None:
    assert get(site, path).code == 404


def test_a_redirect_never_begins_with_two_slashes(site: Site) -> None:
    environ = environ_for("/sub") | {"SCRIPT_NAME": "//evil.example"}
    answer = call(site, environ)
    assert (answer.code, answer.headers["Location"]) == (301, "/evil.example/sub/")


def test_a_file_with_a_slash_behind_it_is_404(site: Site) -> None:
    assert get(site, "/text.txt/").code == 404
    assert get(site, "/text.txt/more").code == 404


def test_a_directory_without_an_index_is_404_without_listing(site: Site) -> None:
    answer = get(site, "/sub/")
    assert (answer.code, answer.body) == (404, b"404 Not Found\n")


def test_a_listing_shows_names_sizes_and_dates_directories_first(root: Path) -> None:
    (root / "sub" / "zz").mkdir()
    (root / "sub" / "b.txt").write_bytes(b"x" * 1234)
    os.utime(root / "sub" / "b.txt", (MODIFIED, MODIFIED))
    (root / "sub" / ".hidden").write_bytes(b"x")
    os.mkfifo(root / "sub" / "fifo")
    answer = get(Site(str(root), listing=True), "/sub/")
    assert answer.code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    page = answer.body.decode()
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert links == ["../", "zz/", "b.txt", "inner.txt"]
    assert "<td>1,234</td><td>2023-11-14 22:13</td>" in page
    assert "Index of /sub/" in page


def test_the_listing_of_the_root_has_no_way_up(root: Path) -> None:
    (root / "index.html").unlink()
    assert b"../" not in get(Site(str(root), listing=True), "/").body


def test_a_listing_escapes_what_names_hold(root: Path) -> None:
    folder = root / '<b>"&'
    folder.mkdir()
    (folder / "<script>alert('x')").write_bytes(b"")
    (folder / "javascript:alert(1)").write_bytes(b"")
    (folder / "a ?#%.txt").write_bytes(b"")
    with open(os.fsencode(folder) + b"/\xff", "wb"):
        pass
    page = get(Site(str(root), listing=True), '/<b>"&/').body.decode()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "Index of /&lt;b&gt;&quot;&amp;/" in page
    assert 'href="javascript%3Aalert%281%29"' in page
    assert 'href="a%20%3F%23%25.txt"' in page
    assert 'href="%FF">\ufffd<' in page


def test_a_listing_says_nothing_of_what_lies_outside(root: Path, opener: str) -> None:
    (root / "sub" / "leak").symlink_to("../../secret.txt")
    (root / "sub" / "gone").symlink_to("nowhere")
    page = get(Site(str(root), listing=True), "/sub/").body.decode()
    assert "inner.txt" in page
    assert "leak" not in page
    assert "gone" not in page
    page = get(Site(str(root), listing=True, follow_symlinks=True), "/sub/").body.decode()
    assert "leak" in page
    assert "gone" not in page


# Nothing escapes


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/sub/../../secret.txt",
        "/sub/../text.txt",
        "/./text.txt",
        "/..",
        "/sub/..",
        "/sub/.",
        "/..\\secret.txt",
        "/sub\\..\\..\\secret.txt",
        "/%2e%2e/secret.txt",
        "/text.txt\0",
        "/text.txt\0.html",
        "/\0",
        "/.hidden",
        "/.git/config",
        "/.git/",
        "/.git",
        "/" + "a" * 256,
        "/" + "a/" * 5000,
        "*",
        "text.txt",
        "../secret.txt",
        "/missing",
        "/missing/",
        "/missing/text.txt",
    ],
)
@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_a_path_that_names_nothing_here_is_404(
    root: Path, path: str, follow_symlinks: bool, opener: str
) -> None:
    # Not through the validator, to which a path without its first slash is the server's fault.
    started = StartResponse()
    site = Site(str(root), follow_symlinks=follow_symlinks, listing=True)
    body = site(environ_for(path), started)
    assert started.status == "404 Not Found"
    assert list(body) == [b"404 Not Found\n"]


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("out", "../secret.txt", "/out"),
        ("up", "..", "/up/secret.txt"),
        ("far", "/proc/self/environ", "/far"),
        ("self", "/proc/self/root", "/self/etc/passwd"),
        ("sub/index.html", "../../secret.txt", "/sub/"),
        ("loop", "loop", "/loop"),
    ],
)
def test_a_link_that_leads_out_is_404(
    root: Path, link: str, target: str, path: str, opener: str
) -> None:
    (root / link).symlink_to(target)
    assert get(Site(str(root)), path).code == 404


def test_an_absolute_link_is_404_even_where_it_points_inside(root: Path, opener: str) -> None:
    (root / "absolute").symlink_to(root / "text.txt")
    assert get(Site(str(root)), "/absolute").code == 404


def test_a_link_may_lead_out_where_that_is_allowed(root: Path) -> None:
    (root / "out").symlink_to("../secret.txt")
    (root / "up").symlink_to("..")
    site = Site(str(root), follow_symlinks=True)
    assert get(site, "/out").body == SECRET
    assert get(site, "/up/secret.txt").body == SECRET


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "sub" / "back").symlink_to("../text.txt")
    (root / "folder").symlink_to("sub")
    assert get(Site(str(root)), "/sub/back").body == TEXT
    assert get(Site(str(root)), "/folder/inner.txt").body == b"inner"


def test_without_openat2_files_are_served_but_no_link_is_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "folder").symlink_to("sub")
    (root / "same").symlink_to("text.txt")
    # EPERM is what the filter of an old container runtime answers.
    for number in (errno.ENOSYS, errno.EPERM):
        monkeypatch.setattr(linux, "_openat2", raising(number))
        site = Site(str(root), listing=True)
        assert get(site, "/text.txt").body == TEXT
        assert get(site, "/sub/inner.txt").body == b"inner"
        assert get(site, "/sub").code == 301
        assert b"inner.txt" in get(site, "/sub/").body
        assert get(site, "/folder/inner.txt").code == 404
        assert get(site, "/same").code == 404


@pytest.mark.parametrize("follow_symlinks", [False, True])
@pytest.mark.timeout(PATIENCE)
def test_what_is_no_regular_file_is_404_and_does_not_block(
    root: Path, follow_symlinks: bool
) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        # By way of the descriptor: the path itself may be too long for sun_path.
        folder = os.open(root, os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        (root / "null").symlink_to("/dev/null")
        site = Site(str(root), follow_symlinks=follow_symlinks)
        for name in ("fifo", "socket", "null"):
            assert get(site, f"/{name}").code == 404


SEGMENTS = st.sampled_from(
    [
        *("..", ".", "", "sub", "text.txt", "inner.txt", "out", "up", "root", "index.html"),
        *("secret.txt", "inside", "deep", ".hidden", "..\\", "\\..", "\0", "%2e%2e", "...", "*"),
    ]
) | st.text(max_size=6)


@given(segments=st.lists(SEGMENTS, max_size=6), slash=st.sampled_from(["", "/", "//"]))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)
def test_no_path_yields_a_byte_of_a_file_outside_the_root(
    root: Path, opener: str, segments: list[str], slash: str
) -> None:
    for link, target in {
        "out": "../secret.txt",
        "up": "..",
        "root": "/",
        "inside": "sub",
        "sub/deep": "../../secret.txt",
    }.items():
        if not (root / link).is_symlink():
            (root / link).symlink_to(target)
    path = slash + "/".join(segments)
    bodies: list[bytes] = []
    started = StartResponse()
    environ = environ_for(path)
    environ["PATH_INFO"] = path.encode("utf-8", "surrogatepass").decode("latin-1")
    result = Site(str(root), listing=True)(environ, started)
    bodies.extend(result)
    close = getattr(result, "close", None)
    if close is not None:
        close()
    assert started.status[:3] in ("200", "301", "404")
    assert SECRET not in b"".join(bodies)
    assert b"secret.txt" not in b"".join(bodies)


# When the system refuses


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.EACCES, 403),
        (errno.EPERM, 403),
        (errno.ENOENT, 404),
        (errno.EINVAL, 404),
        (errno.EILSEQ, 404),
        (errno.ENODEV, 404),
        (errno.EAGAIN, 503),
        (errno.ENFILE, 503),
        (errno.ENOMEM, 503),
    ],
)
@pytest.mark.parametrize("path", ["/text.txt", "/"])
def test_a_refusal_of_the_system_has_its_status(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: int, code: int, path: str
) -> None:
    monkeypatch.setattr(static, "open_beneath", raising(number))
    answer = get(site, path)
    assert answer.code == code
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert ("Retry-After" in answer.headers) == (code == 503)


def test_a_fault_of_the_disk_is_raised_for_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "open_beneath", raising(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        get(site, "/text.txt")


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("path", ["/text.txt", "/sub/"])
def test_without_a_descriptor_to_spare_it_is_503(root: Path, spare: int, path: str) -> None:
    lowest = os.dup(0)
    os.close(lowest)
    site = Site(str(root), listing=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
    try:
        answer = get(site, path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (answer.code, answer.headers["Retry-After"]) == (503, "1")


def test_a_root_that_is_not_there_is_404_until_it_is(tmp_path: Path) -> None:
    site = Site(str(tmp_path / "later"))
    assert get(site, "/a").code == 404
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a").write_bytes(b"here")
    assert get(site, "/a").body == b"here"


def test_a_rename_that_races_is_tried_again_but_not_for_ever(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = linux._openat2, [errno.EAGAIN, errno.EINTR, errno.EAGAIN]

    def flaky(directory: int, path: bytes, flags: int) -> int:
        if failures:
            raise OSError(failures.pop(), "raced")
        return real(directory, path, flags)

    monkeypatch.setattr(linux, "_openat2", flaky)
    assert get(site, "/sub/inner.txt").body == b"inner"
    assert not failures
    monkeypatch.setattr(linux, "_openat2", raising(errno.EAGAIN))
    assert get(site, "/sub/inner.txt").code == 503


@pytest.mark.parametrize("path", [b"/etc/passwd", b"..", b"sub/../../secret.txt"])
def test_open_beneath_itself_lets_no_path_out(root: Path, path: bytes, opener: str) -> None:
    folder = os.open(root, os.O_PATH)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
            linux.open_beneath(folder, path, os.O_RDONLY)
        with pytest.raises(ValueError, match="NUL"):
            linux.open_beneath(folder, b"text.txt\0", os.O_RDONLY)
    finally:
        os.close(folder)


# The body and who sends it


def test_the_servers_file_wrapper_is_given_the_file_at_its_offset(site: Site) -> None:
    environ = environ_for("/text.txt", range="bytes=3-5") | {"wsgi.file_wrapper": FileWrapper}
    body: Any = site(environ, StartResponse())
    assert isinstance(body, FileWrapper)
    try:
        extent = body.extent()
        assert extent is not None
        fd, offset, _ = extent
        assert offset == 3
        assert os.lseek(fd, 0, os.SEEK_CUR) == 3
        assert b"".join(body) == b"345"
    finally:
        body.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)


def test_a_body_that_is_never_read_is_closed(site: Site) -> None:
    body: Any = site(environ_for("/text.txt"), StartResponse())
    fd = body.fileno()
    body.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)


def test_the_file_is_closed_where_the_server_fails(site: Site, root: Path) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("the server's own")

    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError) as caught:
        site(environ_for("/text.txt"), fail)
    # The traceback still holds every frame: it was closed by hand, not by the collector.
    assert before.issuperset(os.listdir("/proc/self/fd"))  # the collector may have closed others
    other = Site(str(root))
    with pytest.raises(RuntimeError) as caught_too:
        other(environ_for("/text.txt") | {"wsgi.file_wrapper": fail}, StartResponse())
    assert before.issuperset(os.listdir("/proc/self/fd"))  # the collector may have closed others
    del caught, caught_too


def test_a_file_that_shrinks_meanwhile_ends_early(site: Site, root: Path) -> None:
    body: Any = site(environ_for("/text.txt"), StartResponse())
    os.truncate(root / "text.txt", 4)
    assert b"".join(body) == TEXT[:4]
    body.close()


# What a small file was answered with is kept.


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's content is kept, however new it is."""
    monkeypatch.setattr(static, "_SETTLED", -float("inf"))


@pytest.fixture(params=["head", "content"])
def warm(site: Site, request: pytest.FixtureRequest) -> Site:
    """A site that has answered with its small files before, and has kept their heads or more."""
    if request.param == "content":
        request.getfixturevalue("settled")
    for path in ("/text.txt", "/", "/sub/inner.txt"):
        for _ in range(2):
            assert get(site, path).code == 200
        kept = site._known[path]
        assert kept.size
        assert (kept.content is not None) == (request.param == "content" and kept.in_root)
    return site


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The paths of files that are opened."""
    paths: list[bytes] = []
    open_ = unpatched.os.open

    def noted(path: bytes, flags: int, *, dir_fd: int | None = None) -> int:
        paths.append(path)
        return open_(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(unpatched.os, "open", noted)
    return paths


class Clock:
    """What `time` is to a site."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return self.now


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("follow_symlinks", [False, True])
def test_the_content_of_a_small_file_is_kept_for_a_second(
    root: Path, opened: list[bytes], monkeypatch: pytest.MonkeyPatch, follow_symlinks: bool
) -> None:
    clock = Clock()
    monkeypatch.setattr(static, "time", clock)
    site = Site(str(root), follow_symlinks=follow_symlinks)
    first = get(site, "/text.txt")
    assert get(site, "/text.txt") == first
    opened.clear()
    assert get(site, "/text.txt") == first
    assert not opened
    # Nothing tells of this write: the page was writable before.
    with (root / "text.txt").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"0"
        clock.now += static._FRESH
        assert get(site, "/text.txt").body == TEXT
        mapped[0:1] = b"Z"
        clock.now += static._FRESH
        assert get(site, "/text.txt").body == b"Z" + TEXT[1:]


def test_the_content_of_a_file_that_was_just_written_is_not_kept(
    site: Site, root: Path, opened: list[bytes]
) -> None:
    for _ in range(3):
        opened.clear()
        assert get(site, "/text.txt").body == TEXT
        assert opened
    assert site._known["/text.txt"].content is None


@pytest.mark.usefixtures("settled")
def test_a_write_that_leaves_size_and_time_as_they_were_is_seen(site: Site, root: Path) -> None:
    for _ in range(2):
        assert get(site, "/text.txt").body == TEXT
    before = (root / "text.txt").stat().st_ctime_ns
    while (root / "text.txt").stat().st_ctime_ns == before:  # until the clock has ticked
        (root / "text.txt").write_bytes(TEXT[::-1])
        os.utime(root / "text.txt", (MODIFIED, MODIFIED))
    assert get(site, "/text.txt").body == TEXT[::-1]


@pytest.mark.usefixtures("settled")
def test_contents_are_kept_up_to_a_size(
    site: Site, root: Path, opened: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "_CONTENTS", 12)
    (root / "other.txt").write_bytes(b"other")

    def is_kept(path: str) -> bool:
        for _ in range(3):
            opened.clear()
            assert get(site, path).code == 200
        return not opened

    assert is_kept("/text.txt")
    assert not is_kept("/other.txt")
    (root / "text.txt").write_bytes(b"shorter")  # which makes room
    assert is_kept("/text.txt")
    assert is_kept("/other.txt")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/text.txt", "/", "/sub/inner.txt"])
def test_a_file_is_answered_alike_again_and_again(
    warm: Site, root: Path, path: str, method: str
) -> None:
    expected = get(Site(str(root)), path, method)
    assert get(warm, path, method) == expected
    assert get(warm, path, method) == expected


def test_conditions_and_ranges_are_looked_at_again_and_again(warm: Site) -> None:
    etag = get(warm, "/text.txt").headers["ETag"]
    assert get(warm, "/text.txt", if_none_match=etag).code == 304
    assert get(warm, "/text.txt", if_match='"other"').code == 412
    assert get(warm, "/text.txt", range="bytes=2-3").body == TEXT[2:4]
    since = get(warm, "/text.txt").headers["Last-Modified"]
    assert get(warm, "/text.txt", if_modified_since=since).code == 304
    assert get(warm, "/text.txt", if_unmodified_since=since).code == 200
    assert get(warm, "/text.txt", range="bytes=2-3", if_range='"other"').body == TEXT


def test_a_file_that_was_written_to_is_another_one(warm: Site, root: Path) -> None:
    before = get(warm, "/text.txt")
    (root / "text.txt").write_bytes(TEXT[::-1])
    after = get(warm, "/text.txt")
    assert after.body == TEXT[::-1]
    assert after.headers["ETag"] != before.headers["ETag"]
    assert get(warm, "/text.txt") == after


def test_a_file_in_the_place_of_another_is_another_one(warm: Site, root: Path) -> None:
    before = get(warm, "/text.txt")
    (root / "new").write_bytes(TEXT[::-1])
    os.utime(root / "new", (MODIFIED, MODIFIED))
    os.replace(root / "new", root / "text.txt")
    after = get(warm, "/text.txt")
    assert (before.body, after.body) == (TEXT, TEXT[::-1])


@pytest.mark.parametrize("path", ["version", "sub/version"])
def test_a_swapped_release_is_seen_by_the_next_request_of_a_file_that_is_kept(
    tmp_path: Path, path: str
) -> None:
    for release in ("one", "two"):
        (tmp_path / release / "sub").mkdir(parents=True)
        (tmp_path / release / path).write_text(release)
    current = tmp_path / "current"
    current.symlink_to("one")
    site = Site(str(current))
    assert [get(site, f"/{path}").body for _ in range(2)] == [b"one", b"one"]
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", current)
    assert get(site, f"/{path}").body == b"two"


@pytest.mark.parametrize("path", ["link", "sub/link"])
def test_links_are_followed_again_and_again_only_where_they_may(
    site: Site, root: Path, tmp_path: Path, path: str
) -> None:
    following = Site(str(root), follow_symlinks=True)
    (root / path).write_bytes(b"inside")
    for each in (site, following):
        assert [get(each, f"/{path}").body for _ in range(2)] == [b"inside", b"inside"]
    # The very file that is kept, but by a link that leads out.
    os.rename(root / path, tmp_path / "outside")
    (root / path).symlink_to(tmp_path / "outside")
    assert [get(site, f"/{path}").code for _ in range(2)] == [404, 404]
    assert [get(following, f"/{path}").body for _ in range(2)] == [b"inside", b"inside"]


def test_what_is_no_file_any_more_is_no_file(warm: Site, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    os.rename(root / "text.txt", outside)
    assert get(warm, "/text.txt").code == 404
    (root / "text.txt").symlink_to(outside)
    assert get(warm, "/text.txt").code == 404
    os.remove(root / "text.txt")
    (root / "text.txt").mkdir()
    assert get(warm, "/text.txt").code == 301
    os.remove(root / "index.html")
    assert get(warm, "/").code == 404


def test_a_small_file_that_shrinks_while_it_is_read_is_answered_as_it_is_then(
    warm: Site, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrink(status: os.stat_result) -> static._Stamp:
        os.truncate(root / "text.txt", 4)
        return stamp(status)

    warm._known["/text.txt"].content = None  # or it is not read
    stamp = static._stamp
    monkeypatch.setattr(static, "_stamp", shrink)
    answer = get(warm, "/text.txt")
    assert (answer.body, answer.headers["Content-Length"]) == (TEXT[:4], "4")


def test_only_so_much_is_kept(site: Site, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "_KEPT", 2)
    for name in ("a", "b", "c", "d", "e"):
        (root / name).write_bytes(b"x")
        assert get(site, f"/{name}").code == 200
        assert len(site._known) <= 2
    (root / "large").write_bytes(b"x" * (static._SMALL + 1))
    assert get(site, "/large").code == 200
    assert "/large" not in site._known


def test_a_file_that_grows_meanwhile_keeps_to_its_content_length(site: Site, root: Path) -> None:
    body: Any = site(environ_for("/text.txt"), StartResponse())
    with (root / "text.txt").open("ab") as file:
        file.write(b"more")
    assert b"".join(body) == TEXT
    body.close()


# Mounts


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"app {environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode()]


@pytest.fixture
def mounts(root: Path, tmp_path: Path) -> Mounts:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "text.txt").write_bytes(b"other")
    other, site = Site(str(tmp_path / "other")), Site(str(root))
    return Mounts(application, {"/static/": site, "/static/deep/": other, "/é": other})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/static/text.txt", TEXT),
        ("/static/sub/inner.txt", b"inner"),
        ("/static/deep/text.txt", b"other"),
        ("/é/text.txt", b"other"),
        ("/", b"app  /"),
        ("/staticky/text.txt", b"app  /staticky/text.txt"),
        ("/x/static/text.txt", b"app  /x/static/text.txt"),
    ],
)
def test_the_longest_prefix_wins_and_the_rest_is_the_applications(
    mounts: Mounts, path: str, body: bytes
) -> None:
    assert get(mounts, path).body == body


def test_a_path_beneath_a_prefix_never_reaches_the_application(mounts: Mounts) -> None:
    for path in ("/static/missing", "/static/../admin", "/static/.hidden"):
        assert get(mounts, path).code == 404
    answer = get(mounts, "/static/text.txt", "PUT")
    assert answer.code == 405


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/static", "/app/static/?a=1"),
        ("/static/sub", "/app/static/sub/?a=1"),
        ("/static/deep", "/app/static/deep/?a=1"),
    ],
)
def test_redirects_keep_the_prefix_and_the_place_of_the_application(
    mounts: Mounts, path: str, location: str
) -> None:
    answer = call(mounts, environ_for(path, query="a=1") | {"SCRIPT_NAME": "/app"})
    assert (answer.code, answer.headers["Location"]) == (301, location)


def test_the_servers_environ_is_left_as_it_was(mounts: Mounts) -> None:
    environ = environ_for("/static/text.txt")
    call(mounts, environ)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/static/text.txt")


def test_a_listing_names_its_place_with_the_prefix(root: Path) -> None:
    site = Site(str(root), listing=True)
    page = get(Mounts(application, {"/files/": site}), "/files/sub/").body
    assert b"Index of /files/sub/" in page
