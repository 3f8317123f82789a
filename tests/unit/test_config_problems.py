"""What can be wrong with a configuration: every problem in a line, all of them at once."""

import os
import socket
from pathlib import Path

import pytest

from prefork.config import parse_set
from tests.support.config_site import APP, Write, loaded, problems, site_in


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return site_in(tmp_path, monkeypatch)


# Problems


def test_all_problems_are_reported_at_once(site: Write) -> None:
    name = site("""
bind = ":80"
[server]
app = "shop.py:app"
bind = ["a:1", "b", 5, ":80", "0.0.0.0:80"]
pythonpath = ["nope"]
[workers]
cuont = 4
count = 0
threads = true
[htp]
keepalive = 1
[log]
level = "warn"
""")
    assert problems(name, parse_set("workers.count=none"), parse_set("a.b=1")) == [
        "site.toml: bind: key outside any section; did you mean server.bind?",
        "site.toml: htp: unknown section; did you mean [http]?",
        'site.toml: server.app: names a file; name the module, as in "shop:app"',
        'site.toml: server.bind: "b": no port; write b:8000',
        'site.toml: server.bind: 5: expected a string such as "127.0.0.1:8000"',
        "site.toml: server.bind: 0.0.0.0:80 is given more than once",
        "site.toml: workers.cuont: unknown key; did you mean workers.count?",
        'site.toml: workers.count: expected an integer of at least 1 or "auto", got 0',
        "site.toml: workers.threads: expected an integer from 1 to 255, got true",
        'site.toml: log.level: expected "debug", "info", "warning" or "error", got "warn"',
        '--set: workers.count: expected an integer of at least 1 or "auto", got "none"',
        "--set: a: unknown section;"
        " the sections are server, workers, http, websocket, tls, static, log, process, control,"
        " metrics",
        f'site.toml: server.pythonpath: "{Path.cwd() / "nope"}": no such file or directory',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[workers]\nbind = 1", "workers.bind: unknown key; did you mean server.bind?"),
        ("[log]\nzzzz = 1", "log.zzzz: unknown key; [log] has level, format, error, access,"),
        ('[log]\n"a\\nb" = 1', 'log."a\\nb": unknown key'),
        ('[log]\n"a.b" = 1', 'log."a.b": unknown key'),
        ("workers = 3", "workers: expected a table, with the heading [workers]"),
        ("[[workers]]\ncount = 3", "workers: expected a table, with the heading [workers]"),
    ],
)
def test_unknown_names(site: Write, text: str, problem: str) -> None:
    (line,) = problems(site(text))  # and not that there is nothing to serve: that may be meant
    assert line.startswith(f"site.toml: {problem}")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[server]\na = = 2\n", "line 2, column 5: invalid value"),
        (b'app = "a\n', "line 1, column 9: the string does not end on its line"),
        (b"[http]\n[http]\n", "line 2, column 6: cannot declare [http] twice"),
        (b"[a.b]\n[a.b]\n", "line 2, column 5: cannot declare [a.b] twice"),
        (b"a = [1", "line 1, column 7: unclosed array"),
        (b"[server]\napp = 'a'\napp = 'b'\n", "line 3, column 10: cannot overwrite a value"),
        (b"[server]\n# \xff\n", "line 2: not UTF-8"),
        (b"a = " + b"[" * 5000, "cannot be read as TOML"),
        (b"a = 1" + b"0" * 5000, "cannot be read as TOML"),
    ],
)
def test_a_file_that_does_not_parse(site: Write, tmp_path: Path, data: bytes, problem: str) -> None:
    site("")
    (tmp_path / "site.toml").write_bytes(data)
    (line,) = problems("site.toml")
    assert line.startswith(f"site.toml: {problem}")


def test_a_file_that_cannot_be_read(site: Write, tmp_path: Path) -> None:
    site(APP, "directory.toml/x")
    assert problems("none.toml") == ["none.toml: cannot be read: No such file or directory"]
    assert problems("directory.toml") == ["directory.toml: cannot be read: Is a directory"]


def test_a_file_that_never_ends_or_never_begins_is_not_read(site: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    with (tmp_path / "huge.toml").open("wb") as huge:
        huge.truncate(2**40)  # it takes no room on the disk
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket.toml"))
    for name, reason in (
        ("fifo.toml", "it is a FIFO, and not a regular file"),
        ("zero.toml", "it is a device, and not a regular file"),
        ("huge.toml", "it has more than 16 MiB"),
        ("socket.toml", "it is a socket or a device, and not a regular file"),
    ):
        assert problems(name) == [f"{name}: cannot be read: {reason}"]
        (line,) = problems(site(f'{APP}env_file = "{name}"'))
        assert line.endswith(f"/{name}: cannot be read: {reason}")


def test_an_unreadable_file_hides_no_problem_of_the_command_line(site: Write) -> None:
    assert problems("none.toml", parse_set("workers.threads=0")) == [
        "none.toml: cannot be read: No such file or directory",
        "--set: workers.threads: expected an integer from 1 to 255, got 0",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["server.app: missing; set it to"]),
        ('[static]\nmounts = { "/a/" = "." }', ["server.app: missing"]),
        ('[server]\nprotocol = "tcp"', ["server.app: missing"]),
        ('[server]\nprotocol = "static"', ["static.root: missing"]),
        (
            '[server]\nprotocol = "static"\napp = "a:b"\n[static]\nroot = "."',
            ['server.app: not used with protocol "static"'],
        ),
        (
            '[server]\napp = "a:b"\n[static]\nroot = "."',
            ["static.root: not used with server.app; to serve it beside"],
        ),
        (
            '[server]\napp = "a:b()"\nprotocol = "tcp"\n[static]\nroot="."\nmounts={"/a/"="."}',
            [
                'server.app: expected "module:function" with protocol "tcp", got "a:b()"',
                "static.root: not used with server.app",
                'static.mounts: not used with protocol "tcp"',
            ],
        ),
        (
            '[server]\napp = "a:b"\n[workers]\nspare = 9\nmin = 8\nmax = 4',
            [
                "workers.min: 8 is more than workers.max (4)",
                "workers.spare: 9 is more than workers.max (4)",
            ],
        ),
        (
            '[server]\napp = "a:b"\n[workers]\ncount = 2\nspare = 3',
            ["workers.spare: 3 is more than workers.max (2)"],
        ),
        (
            '[server]\napp = "a:b"\n[workers]\nmin = 2\nmax = 4\nmax_requests_jitter = 5',
            [
                "workers.min: has no effect without workers.spare",
                "workers.max: has no effect without workers.spare",
                "workers.max_requests_jitter: has no effect without workers.max_requests",
            ],
        ),
        (
            '[server]\napp = "a:b"\n[workers]\nmin = 2\nspare = "x"',
            ["workers.spare: expected an integer from 0 to 1023"],
        ),
    ],
)
def test_a_file_that_does_not_agree_with_itself(
    site: Write, text: str, expected: list[str]
) -> None:
    lines = problems(site(text))
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(f"site.toml: {start}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('chdir = "none"', 'server.chdir: "{}/none": no such directory'),
        ('chdir = "site.toml"', 'server.chdir: "{}/site.toml": is not a directory'),
        ('env_file = "none"', "server.env_file: {}/none: cannot be read: No such file"),
        ('env_file = "site.toml"', "server.env_file: {}/site.toml: line 1: expected KEY=VALUE"),
        ('unix_owner = "no-such-user"', 'server.unix_owner: no such user: "no-such-user"'),
        ('unix_owner = "0:no-such-group"', 'server.unix_owner: no such group: "no-such-group"'),
        ('[static]\nmounts = {"/a/" = "none"}', 'static.mounts: "/a/": "{}/none": no such dir'),
        ('[log]\nerror = "none/x"', 'log.error: "{}/none": no such directory'),
        ('[log]\naccess = "none/x"', 'log.access: "{}/none": no such directory'),
        ('[log]\nconfig = "none.json"', "log.config: {}/none.json: cannot be read"),
        ('[log]\nconfig = "x.ini"', "log.config: {}/x.ini: expected a file that ends in .json"),
        ('[log]\nconfig = "bad.json"', "log.config: {}/bad.json: line 1, column 2: "),
        ('[log]\nconfig = "list.json"', "log.config: {}/list.json: expected a JSON object"),
        ('[log]\nconfig = "bad.toml"', "log.config: {}/bad.toml: line 1, column 3: "),
    ],
)
def test_what_the_machine_does_not_have(
    site: Write, tmp_path: Path, text: str, problem: str
) -> None:
    for name, content in (("bad.json", "{"), ("list.json", "[]"), ("bad.toml", "a ")):
        site(content, name)
    (line,) = problems(site(APP + text))
    assert line.startswith("site.toml: " + problem.format(tmp_path))


def test_what_the_machine_has_is_taken(site: Write) -> None:
    site('{"version": 1}', "log.json")
    site("version = 1", "log.toml")
    for config in ("log.json", "log.toml"):
        text = f'unix_owner = "root:0"\n[log]\nconfig = "{config}"\nerror = "x.log"\n'
        assert loaded(site(APP + text)).config.server.unix_owner == "root:0"


def test_a_value_that_is_known_to_be_wrong_makes_one_problem(site: Write) -> None:
    assert len(problems(site('[server]\napp = "x"\n'))) == 1
    assert len(problems(site('[server]\nprotocol = "http"\n'))) == 1
    assert len(problems(site("[static]\nroot = 3\n"))) == 1


def test_a_unix_path_is_measured_as_absolute(site: Write, tmp_path: Path) -> None:
    name = "a" * (108 - len(str(tmp_path)) - 1)
    (line,) = problems(site(APP + f'bind = "unix:{name}"\n'))
    assert "108 bytes is too long for a Unix socket (at most 107)" in line
    assert loaded(site(APP + f'bind = "unix:{name[1:]}"\n'))
    (line,) = problems(site(APP + f'[control]\npath = "{name}"\n'))
    assert "control.path" in line
    assert "too long" in line


def test_a_coding_whose_package_is_not_there(site: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    name = site(f"{APP}[http]\ncompress = ['zstd']")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (line,) = problems(name)
    assert line == (
        'site.toml: http.compress: "zstd" needs the package zstandard;'
        " pip install 'prefork[zstd]'"
    )
