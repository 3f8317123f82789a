"""What each kind of key takes and refuses, and the lines of an environment file."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prefork.capacity import THREADS_MAX, WORKERS_MAX
from prefork.config.config_files import Unreadable, parse_env
from prefork.config.schema import KEYS
from prefork.config.values import GIB, KIB, MIB, Invalid, read, show


def taken(name: str, raw: Any) -> Any:
    return read(KEYS[name].kind, KEYS[name].hint, raw, "/base")


def refused(name: str, raw: Any) -> str:
    with pytest.raises(Invalid) as caught:
        taken(name, raw)
    assert all("\n" not in reason for reason in caught.value.reasons)
    return "; ".join(caught.value.reasons)


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (0, 0),
        (1234, 1234),
        ("0B", 0),
        ("512B", 512),
        ("64KiB", 64 * KIB),
        ("64kib", 64 * KIB),
        ("1 MiB", MIB),
        ("2GiB", 2 * GIB),
        ("64KB", 64_000),
        ("1MB", 1_000_000),
        ("3GB", 3 * 10**9),
    ],
)
def test_sizes(raw: object, size: int) -> None:
    assert taken("http.max_body", raw) == size


@pytest.mark.parametrize(
    "raw",
    [
        *(-1, 1.5, True, "", "64", "64K", "KiB", "-1KiB", "1.5MiB", "²MiB", "1TiB"),
        *("9" * 40 + "B", "9" * 19 + "GiB", f"{2**63}B", 2**63),
    ],
)
def test_not_sizes(raw: object) -> None:
    assert refused("http.max_body", raw).startswith("expected a size in bytes or such as")


@given(st.integers(0, 2**63 - 1))
@example(2**63 - 1024)
def test_a_size_that_is_shown_reads_back(size: int) -> None:
    text = show(KEYS["http.max_body"].kind, size)
    assert taken("http.max_body", text.strip('"') if text.startswith('"') else int(text)) == size


@pytest.mark.parametrize("raw", [0, 0.5, 30, 2_000_000])
def test_durations(raw: float) -> None:
    value = taken("http.keepalive", raw)
    assert value == raw
    assert isinstance(value, float)


@pytest.mark.parametrize(
    "raw", [-1, -0.1, True, "5", "5s", float("inf"), float("nan"), 2_000_001, [], {}]
)
def test_not_durations(raw: object) -> None:
    assert refused("http.keepalive", raw).startswith(
        "expected seconds from 0 (no limit) to 2000000"
    )


def test_counts() -> None:
    assert taken("workers.count", 1) == 1
    assert taken("workers.count", WORKERS_MAX) == WORKERS_MAX
    for raw in (0, -1, 1.0, True, "4", "", None):
        assert "at least 1" in refused("workers.count", raw)
    assert refused("workers.count", WORKERS_MAX + 1) == "expected at most 1023 workers, got 1024"


def test_the_bounds_are_those_of_the_scoreboard() -> None:
    assert taken("workers.threads", THREADS_MAX) == THREADS_MAX
    assert refused("workers.threads", THREADS_MAX + 1)


@pytest.mark.parametrize(
    ("raw", "mode"),
    [("0666", 0o666), ("660", 0o660), ("0o600", 0o600), (0o777, 0o777), ("000", 0)],
)
def test_modes(raw: object, mode: int) -> None:
    assert taken("server.unix_mode", raw) == mode


@pytest.mark.parametrize("raw", ["0888", "66", "07777", "", 0o1000, 666, -1, True, "u+w"])
def test_not_modes(raw: object) -> None:
    assert refused("server.unix_mode", raw).startswith("expected an octal mode")


@pytest.mark.parametrize("raw", ["www", "www:data", ":data", "33:33"])
def test_owners(raw: str) -> None:
    assert taken("server.unix_owner", raw) == raw


@pytest.mark.parametrize("raw", ["", ":", "www:", "a:b:c", "a b", 33])
def test_not_owners(raw: object) -> None:
    assert refused("server.unix_owner", raw).startswith('expected "user", "user:group" or ":group"')


@pytest.mark.parametrize("raw", ["a:b", "a.b:c.d", "a:b()", "ä:ö", "a:_b", "my-shop.wsgi:app"])
def test_apps(raw: str) -> None:
    assert taken("server.app", raw) == raw


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "a",
        "a:",
        ":b",
        "a:b:c",
        "a:b(1)",
        "a b:c",
        "a..b:c",
        "a:b()()",
        "1:b",
        "a:b-c",
        3,
        ["a:b"],
    ],
)
def test_not_apps(raw: object) -> None:
    assert refused("server.app", raw).startswith('expected "module:callable" or "module:factory()"')


@pytest.mark.parametrize("raw", ["a/b.py:app", "./a/b:app", "a/b.py"])
def test_an_app_that_names_a_file_gets_the_module_as_a_hint(raw: str) -> None:
    assert refused("server.app", raw) == 'names a file; name the module, as in "a.b:app"'


def test_bind_takes_one_or_several() -> None:
    assert taken("server.bind", ":80") == ("0.0.0.0:80",)
    assert taken("server.bind", ["unix:x/../y", "[::]:1"]) == ("unix:/base/y", "[::]:1")
    wrong: tuple[object, ...] = ([], "", 80, {}, [[]])
    for raw in wrong:
        assert refused("server.bind", raw)


@pytest.mark.parametrize("key", ["server.bind", "tls.bind", "metrics.bind"])
def test_a_port_alone_is_answered_with_an_address(key: str) -> None:
    assert refused(key, 9100) == '9100: expected a string such as "127.0.0.1:8000"'


def test_all_addresses_have_no_star() -> None:
    assert 'write "0.0.0.0/0" and "::/0"' in refused("http.trusted_proxies", ["*"])


def test_bind_names_every_bad_address_and_equal_ones() -> None:
    with pytest.raises(Invalid) as caught:
        taken("server.bind", [":80", "x", "0.0.0.0:80", "y"])
    assert caught.value.reasons == (
        '"x": no port; write x:8000',
        '"y": no port; write y:8000',
        "0.0.0.0:80 is given more than once",
    )


def test_codings_keep_their_order() -> None:
    assert taken("http.compress", ["gzip", "zstd", "gzip"]) == ("gzip", "zstd")
    assert taken("http.compress", []) == ()
    for raw in ("gzip", ["br"], [["gzip"]], [1], True):
        assert refused("http.compress", raw).startswith('expected a list of "zstd" and "gzip"')


def test_paths() -> None:
    assert taken("static.root", "../site") == "/site"
    assert taken("static.root", "/srv/site") == "/srv/site"
    assert taken("server.pythonpath", ["a", "/b"]) == ("/base/a", "/b")
    assert taken("log.error", "stdout") == "/base/stdout"
    assert taken("log.access", "stdout") == "stdout"
    for raw in ("", 3, ["a"]):
        assert refused("static.root", raw).startswith("expected a path")
    assert "control or unprintable" in refused("static.root", "a\0b")
    assert refused("server.pythonpath", "a").startswith("expected a list of paths")
    assert refused("server.pythonpath", [1]).startswith("expected a list of paths")


@pytest.mark.parametrize("raw", ["", "a/b", "/", "..", ".hidden", 3])
def test_an_index_is_the_name_of_a_file(raw: object) -> None:
    assert refused("static.index", raw).startswith("expected a file's name")
    assert taken("static.index", "home.html") == "home.html"


def test_mounts_name_each_bad_entry() -> None:
    raw = {"/": "a", "x/": "a", "/x": "a", "/y/": 3, "/z/": "z"}
    with pytest.raises(Invalid) as caught:
        taken("static.mounts", raw)
    assert [reason.split(":")[0] for reason in caught.value.reasons] == [
        '"/"',
        '"x/"',
        '"/x"',
        '"/y/"',
    ]
    assert taken("static.mounts", {"/z/": "z"}) == {"/z/": "/base/z"}
    assert refused("static.mounts", ["/z/"]).startswith("expected a table such as")


def test_env_is_what_putenv_takes() -> None:
    assert taken("server.env", {"A": ""}) == {"A": ""}
    reasons = refused("server.env", {"": "x", "A=B": "x", "C": 1, "D": "a\0b", "E": "x"})
    assert len(reasons.split("; ")) == 5  # "expected a string; put the value in quotes" has one
    assert refused("server.env", "A=1").startswith("expected a table of strings")


def test_flags_names_and_choices() -> None:
    assert taken("static.listing", True) is True
    assert refused("static.listing", 1) == "expected true or false, got 1"
    assert refused("server.name", "") == 'expected a name, got ""'
    assert "control" in refused("server.name", "a\nb")
    assert refused("log.format", "xml") == 'expected "text" or "json", got "xml"'
    assert refused("server.backlog", -1) == "expected an integer of at least 0, got -1"
    assert refused("server.backlog", 2**31).startswith("expected an integer")


def test_what_was_got_is_cut_short() -> None:
    assert len(refused("server.app", "x" * 5000)) < 150
    for name in ("workers.count", "server.backlog", "http.keepalive", "http.max_body"):
        assert len(refused(name, 10**5000)) < 150
        assert refused(name, 10**20).endswith(f"got {10**20}")


@given(
    st.sampled_from(sorted(KEYS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_anything_is_taken_or_refused_in_a_line(name: str, raw: object) -> None:
    try:
        lines: tuple[str, ...] = (show(KEYS[name].kind, taken(name, raw)),)
    except Invalid as problem:
        lines = problem.reasons
    assert lines
    assert all(line.isprintable() for line in lines)


# Environment files


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A=", ""),
        ("  export A=b  ", "b"),
        ("A = b", "b"),
        ("A=b c", "b c"),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=# comment", ""),
        ("A='b # c' # comment", "b # c"),
        ("A=\"b 'c' $X \\n\"", "b 'c' $X \\n"),
        ("A=''", ""),
        ("A=b=c", "b=c"),
        ("A=it's", "it's"),
        ("A=b\r", "b"),
        ("A=\u2028b", "b"),
        ("A=x\nA=y", "y"),
        ("# A=x\n\n  # A=z\nA=b", "b"),
    ],
)
def test_env_lines(line: str, value: str) -> None:
    assert parse_env(line) == {"A": value}


def test_every_bad_env_line_is_reported_without_its_text() -> None:
    with pytest.raises(Unreadable) as caught:
        parse_env('secret\n1A=secret\nOK=1\nA=\'secret\nB="a" secret\nC=a\0b\n=x\n')
    numbers = [reason.split(":")[0] for reason in caught.value.reasons]
    assert numbers == ["line 1", "line 2", "line 4", "line 5", "line 6", "line 7"]
    assert "secret" not in str(caught.value)
