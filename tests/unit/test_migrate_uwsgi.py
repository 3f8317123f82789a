"""uWSGI's options as ours: each name once, and no input that ends in a traceback."""

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from prefork.cli.migrate import command
from prefork.migrate.document import check
from prefork.migrate.migration_report import Fate
from prefork.migrate.python_file import SourceError
from prefork.migrate.uwsgi import migrate
from prefork.migrate.uwsgi_command import gather
from prefork.migrate.uwsgi_options import NAMES, OPTIONS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def result(text: str, name: str = "uwsgi.ini") -> dict[str, Any]:
    Path(name).write_text(text)
    rendered = migrate(gather([name], {})).render()
    assert check(rendered, machine=False) == []
    return tomllib.loads(rendered)


def options(**given: object) -> dict[str, Any]:
    lines = [f"{name.replace('_', '-')} = {value}" for name, value in given.items()]
    return result("\n".join(["[uwsgi]", "module = m", *lines]))


def test_each_name_stands_once() -> None:
    names = Counter(name for main, option in OPTIONS.items() for name in (main, *option.names))
    assert [name for name, count in names.items() if count > 1] == []


def test_each_translated_option_is_read() -> None:
    source = "".join(
        (Path(__file__).parents[2] / "prefork/migrate" / name).read_text()
        for name in ("uwsgi.py", "uwsgi_network.py")
    )
    read = set(re.findall(r'"([a-z0-9-]+)"', source))
    translated = {main for main, option in OPTIONS.items() if option.fate is Fate.TRANSLATED}
    assert translated <= read


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"processes": "3 ; three"}, {"workers": {"count": 3}}),
        ({"workers": "0"}, {"workers": {"count": 1}}),
        ({"p": "5000"}, {"workers": {"count": 1023}}),
        ({"harakiri": "9"}, {"workers": {"request_timeout": 9}}),
        ({"socket": "/s", "chmod_socket": "true"}, {"server": {"unix_mode": "0666"}}),
        ({"socket": "/s"}, {"server": {"unix_mode": "0755"}}),
        ({"socket": "s", "chdir": "/srv"}, {"server": {"bind": ["unix:/srv/s"]}}),
        ({"http_socket": "@x"}, {"server": {"bind": ["unix:@x"]}}),
        ({"socket": "fd://3"}, {"server": {"bind": ["fd:3"]}}),
        ({"socket": ":0", "protocol": "http"}, {"server": {"bind": ["0.0.0.0:0"]}}),
        ({"lazy_apps": "true"}, {"workers": {"count": 1, "request_timeout": 0}}),
        ({"cheaper": "9", "processes": "4"}, {"workers": {"min": 4, "max": 4, "spare": 1}}),
        ({"umask": "27"}, {"process": {"umask": "0027"}}),
        ({"umask": "nonsense", "uid": "1"}, {"process": {"user": "1"}}),
        ({"limit_as": "256"}, {"process": {"limits": {"as": 256 << 20}}}),
        ({"logto": "/l", "req_logger": "file:/r"}, {"log": {"error": "/l", "access": "/r"}}),
        ({"logger": "syslog:uwsgi"}, {"log": {"error": "syslog", "access": "syslog"}}),
        ({"daemonize": "true"}, {"log": {"error": "syslog", "access": "syslog"}}),
        ({"logto": "10.0.0.1:514"}, {"log": {"access": "stderr"}}),
        ({"enable_proxy_protocol": "1"}, {"http": {"proxy_protocol": True}}),
        ({"static_map": "/s=/d"}, {"static": {"mounts": {"/s/": "/d"}}}),
    ],
)
def test_translations(given: dict[str, str], expected: dict[str, Any]) -> None:
    found = options(**given)
    for name, table in expected.items():
        assert found[name].items() >= table.items()


@pytest.mark.parametrize(
    ("lines", "app"),
    [
        ("module = a.b:c", "a.b:c"),
        ("module = a.b\ncallable = c", "a.b:c"),
        ("wsgi = a:create()", "a:create()"),
        ("wsgi-file = a/b.py", "a.b:application"),
        ("wsgi-file = my-shop.py", "my-shop:application"),
        ("wsgi-file = /srv/x/a.py\nchdir = /srv/x", "a:application"),
        ("mount = /=a.b", "a.b:application"),
    ],
)
def test_applications(lines: str, app: str) -> None:
    assert result(f"[uwsgi]\n{lines}\n")["server"]["app"] == app


def test_a_file_outside_of_the_directory_needs_a_path() -> None:
    found = result("[uwsgi]\nwsgi-file = /srv/x/a.py\nchdir = /etc\n")["server"]
    assert (found["app"], found["pythonpath"]) == ("a:application", ["/srv/x"])


def test_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    found = result(
        "[uwsgi]\nmodule = m\nn = 10\nprocesses = %(%k * 2)\nthreads = %(n - 6)\n"
        "max-requests = %(n+n)\n"
    )
    assert (found["workers"]["count"], found["workers"]["threads"]) == (6, 4)
    assert found["workers"]["max_requests"] == 20
    with pytest.raises(SourceError, match="expected a number"):
        options(processes="%(x * 2)")


def test_placeholders_of_later_options() -> None:
    """As uWSGI 2.0.31 prints them: of an option that stands twice they have the first value."""
    found = result(
        "[uwsgi]\nmodule = m\nprocesses = %(most)\nthreads = %(n + 1)\nmost = %(n)\nn = 3\nn = 4\n"
        "max-requests = %(n)\nharakiri = %(n)%(tail)\ntail = 0\n"
    )
    assert found["workers"].items() >= {"count": 3, "threads": 4, "max_requests": 3}.items()
    assert found["workers"]["request_timeout"] == 30


@pytest.mark.parametrize("text", ["a = %(b)\nb = %(a)", "a = %(a)%(a)", "a = " + "%(a)" * 999])
def test_placeholders_that_mean_themselves(text: str) -> None:
    with pytest.raises(SourceError, match="expected a number"):
        result(f"[uwsgi]\nmodule = m\nprocesses = %(a)\n{text}\n")


def test_a_file_that_is_mapped_is_lost() -> None:
    Path("m.ini").write_text("[uwsgi]\nmodule = m\nstatic-map = /favicon.ico=/srv/f.ico\n")
    assert any("static-map" in entry for entry in migrate(gather(["m.ini"], {})).report.lost)


def test_a_map_of_a_directory_does_not_fall_back_to_the_application() -> None:
    Path("m.ini").write_text("[uwsgi]\nmodule = m\nstatic-map = /static=/srv/static\n")
    document = migrate(gather(["m.ini"], {}))
    assert document.settings["static.mounts"].value == {"/static/": "/srv/static"}
    assert any("= /static=/srv/static: a file that" in each for each in document.report.changed)


def test_monkey_patching_is_not_needed() -> None:
    Path("m.ini").write_text("[uwsgi]\nmodule = m\ngevent = 9\ngevent-monkey-patch = true\n")
    report = migrate(gather(["m.ini"], {})).report
    assert "gevent-monkey-patch: threads need no monkey patching" in report.unneeded
    assert not any("monkey" in entry for entry in report.lost)


def test_a_file_of_json() -> None:
    text = '{"uwsgi": {"module": "a.b", "master": true, "processes": 3, "env": ["A=1", "B=2"]}}'
    found = result(text, "uwsgi.json")
    assert (found["server"]["app"], found["workers"]["count"]) == ("a.b:application", 3)
    assert found["server"]["env"] == {"A": "1", "B": "2"}


def test_included_files_and_sections() -> None:
    Path("more.ini").write_text("[uwsgi]\nthreads = 3\n[b]\nharakiri = 7\n")
    found = result("[uwsgi]\nmodule = m\ninclude = more.ini\nini = more.ini:b\nini = :uwsgi\n")
    assert (found["workers"]["threads"], found["workers"]["request_timeout"]) == (3, 7)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("uwsgi.ini", "", "there is no section [uwsgi]; is it a configuration file of uWSGI?"),
        ("uwsgi.ini", "[uwsgi]\nmodule = m\nthreads = x\n", "threads = x: expected a number"),
        ("uwsgi.ini", "[uwsgi]\nprocesses = 1\n", "no application is named"),
        ("uwsgi.xml", "<uwsgi>", "it is no XML"),
        ("uwsgi.xml", "<!DOCTYPE x [<!ENTITY a 'b'>]><uwsgi/>", "declares entities"),
        ("uwsgi.yaml", "uwsgi:\n  processes: x\n  module: m\n", "expected a number"),
        ("uwsgi.json", "[uwsgi]\nmodule = m\n", "it is no JSON"),
        ("uwsgi.json", '[{"module": "m"}]', "there is no section [uwsgi]"),
        ("uwsgi.json", "[" * 9999, "it is no JSON"),
    ],
)  # fmt: skip
def test_what_is_refused(name: str, text: str, problem: str) -> None:
    Path(name).write_text(text)
    done = CliRunner().invoke(command, ["uwsgi", name])
    assert isinstance(done.exception, SystemExit)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {name}: ")
    assert problem in done.stderr


def line(*words: str, **environ: str) -> dict[str, Any]:
    rendered = migrate(gather(words, environ)).render()
    assert check(rendered, machine=False) == []
    return tomllib.loads(rendered)


@pytest.mark.parametrize(
    "words",
    [
        ["--http", ":8000", "--wsgi-file", "app.py", "--callable", "app", "-M", "-p", "3"],
        ["--http=:8000", "--wsgi-file=app.py", "--callable=app", "--master", "--processes=3"],
        ["-Mp3", "app.py:app", "--http", ":8000"],
        ["--http", ":8000", "--master", "app.py:app", "--", "more.ini"],
        ["env", "A=1", "/srv/venv/bin/uwsgi", "--http", ":8000", "-TMp3", "app.py:app"],
        ["uwsgi --http :8000 --lazy-apps -p3 app.py:app"],
        ['["uwsgi", "--http", ":8000", "-p3", "--need-app", "app.py:app"]'],
    ],
)
def test_command_lines(words: list[str]) -> None:
    Path("more.ini").write_text("[uwsgi]\nprocesses = 3\n")
    found = line(*words)
    assert found["server"]["app"] == "app:app"
    assert found["server"]["bind"] == ["0.0.0.0:8000"]
    assert found["workers"]["count"] == 3


def test_of_two_values_uwsgi_takes_the_later_one_and_files_without_an_option_come_last() -> None:
    Path("a.ini").write_text("[uwsgi]\nmodule = a.b:c\nprocesses = 3\nthreads = %(n)\n")
    assert line("--set", "n=4", "--ini", "a.ini", "-p", "2")["workers"]["count"] == 2
    assert line("--set-ph", "n=4", "-p", "2", "--ini=a.ini")["workers"]["count"] == 3
    assert line("-S", "n=4", "a.ini", "-p", "2")["workers"]["count"] == 3
    assert line("-Sn=4", "a.ini")["workers"]["threads"] == 4


def test_variables_of_uwsgi_are_options_that_others_outweigh() -> None:
    found = line("-w", "a.b", UWSGI_HTTP=":80", UWSGI_PROCESSES="5", UWSGI_RELOADS="1")
    assert found["server"]["bind"] == ["0.0.0.0:80"]
    assert found["workers"]["count"] == 5
    found = line("UWSGI_THREADS=2", "MODE=live", "uwsgi", "-p", "2", "-w", "a.b")
    assert found["workers"] | {"count": 2, "threads": 2} == found["workers"]
    assert found["server"]["env"] == {"MODE": "live"}


def test_variables_of_the_shell_are_named() -> None:
    document = migrate(gather(["--http", ":$PORT", "-w", "a.b"], {"PORT": "81"}))
    assert document.settings["server.bind"].value == ["0.0.0.0:81"]
    assert any(
        "http: it came from the environment, PORT" in each for each in document.report.changed
    )
    with pytest.raises(SourceError, match="names the variable COUNT, which is not set here"):
        gather(["-p", "$COUNT", "-w", "a.b"], {})


def test_a_file_that_is_named_on_the_command_line_has_its_own_place() -> None:
    Path("etc").mkdir()
    Path("etc/a.ini").write_text("[uwsgi]\nmodule = a.b\nchdir = %d\n")
    assert line("--ini", "etc/a.ini")["server"]["chdir"] == "etc"


def test_unknown_options_and_programs_before_are_reported() -> None:
    document = migrate(gather(["ddtrace-run uwsgi --frobnicate 3 --http-raw --module a.b"], {}))
    assert "frobnicate = 3: it is not known here" in document.report.lost
    assert any(each.startswith("http-raw = true") for each in document.report.lost)
    assert any(each.startswith("ddtrace-run: it comes before") for each in document.report.changed)
    with pytest.raises(SourceError, match="start line of gunicorn: prefork migrate gunicorn --"):
        gather(["gunicorn", "-w", "4", "a.b"], {})
    with pytest.raises(SourceError, match=r"nowhere\.ini: cannot be read"):
        gather(["-p", "2", "nowhere.ini"], {})


VALUES = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.sampled_from(
        ["true", "1", "/s", ":1", "a:b", "%(x)", "%d", "%%", "a=b", "/=a", "@", "0 ; x"]
    ),
)


@given(lines=st.lists(st.tuples(st.sampled_from(sorted(NAMES)), VALUES), max_size=8))
def test_any_file_is_refused_or_makes_toml(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(["[uwsgi]", *(f"{name} = {value}" for name, value in lines)])
    Path("any.ini").write_text(text, errors="replace")
    try:
        rendered = migrate(gather(["any.ini"], {})).render()
    except SourceError:
        return
    tomllib.loads(rendered)
    done = CliRunner().invoke(command, ["uwsgi", "any.ini"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception


WORDS = st.one_of(
    VALUES,
    st.sampled_from([f"--{name}" for name in NAMES] + ["-", "--", "-Mp", "-", "-x", "=", "--"]),
)


@given(words=st.lists(WORDS, min_size=1, max_size=8))
def test_any_command_line_is_refused_or_makes_toml(words: list[str]) -> None:
    try:
        rendered = migrate(gather(words, {})).render()
    except SourceError:
        return
    tomllib.loads(rendered)
