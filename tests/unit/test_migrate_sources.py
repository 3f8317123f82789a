"""Where gunicorn's settings come from: a file that is run, a command line, the environment."""

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from prefork.cli.migrate import command
from prefork.migrate.data_flow import ALL, CPUS, FILE, follow
from prefork.migrate.gunicorn_command import gather
from prefork.migrate.python_file import Opaque, Ran, SourceError, run_file


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory of its own, without variables that gunicorn reads."""
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)


def ran(text: str, name: str = "gunicorn.conf.py") -> Ran:
    Path(name).write_text(text)
    return run_file(name)


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(command, ["gunicorn", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def result(*arguments: str) -> dict[str, Any]:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return tomllib.loads(done.stdout)


# The file.


def test_values_and_what_is_none() -> None:
    found = ran(
        "import os, fractions\nworkers = 3\nbind = ('a', 'b')\ndef on_exit(server): pass\n"
        "class Logger: pass\nlogger_class = Logger\nratio = fractions.Fraction(1, 2)\n"
    )
    assert (found.names["workers"], found.names["bind"]) == (3, ["a", "b"])
    assert found.names["on_exit"] == Opaque("function", "on_exit", 4)
    assert found.names["logger_class"] == Opaque("class", "__config__.Logger")
    assert found.names["ratio"].kind == "other"
    assert "os" not in found.names  # modules are no values
    assert found.flow.idle == {"on_exit"}


def test_odd_values_and_forks() -> None:
    found = ran(
        "import enum, os\nclass Level(str, enum.Enum):\n    A = 'debug'\nloglevel = Level.A\n"
        "loop = [1]\nloop.append(loop)\nlarge = 1 << 99999\nshare = 0.5\n"
        "class Hostile:\n    @property\n    def __class__(self): raise ValueError\n"
        "hostile = Hostile()\nos.fork()\nworkers = 2\n"
    )
    assert (found.names["loglevel"], found.names["workers"]) == ("debug", 2)
    assert (found.names["share"], found.names["loop"][0]) == (0.5, 1)
    assert found.names["large"].kind == found.names["hostile"].kind == "other"


def test_the_working_directory_and_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVEL", "debug")
    Path("base.py").write_text("import os\nloglevel = os.environ['LEVEL']\nworkers = 2\n")
    Path("deploy").mkdir()
    found = ran("from base import *\nthreads = workers * 2\n", "deploy/conf")
    assert (found.names["loglevel"], found.names["threads"]) == ("debug", 4)
    assert found.origin("loglevel") == {"LEVEL"}
    assert not found.origin("threads")
    module = run_file("python:base")
    assert module.names["workers"] == 2
    assert module.origin("loglevel") == {"LEVEL"}


def test_where_values_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADS", "4")
    found = ran(
        "import multiprocessing, os\nfrom os import environ, getenv\n"
        "cores = multiprocessing.cpu_count()\nworkers = cores * 2 + 1\n"
        "threads = int(environ['THREADS'])\n"
        "bind = '0.0.0.0:' + getenv('PORT', '80')\n"
        "chdir = os.path.dirname(os.path.abspath(__file__))\n"
        "def variable(name): return os.environ.get(name)\n"
        "proc_name = variable('NAME')\n"
        "timeout = 30\n"
        "if 'DEBUG' in environ:\n    timeout = 0\nelse:\n    reload = False\n"
        "raw_env = []\nraw_env.append('A=' + environ.get('A', ''))\n"
        "keepalive = 5\n"
        "environ.setdefault('SET_HERE', 'x')\nuser = environ['SET_HERE']\n"
    )
    expected = {
        "workers": {CPUS},
        "threads": {"THREADS"},
        "bind": {"PORT"},
        "chdir": {FILE},
        "proc_name": {"NAME"},
        "timeout": {"DEBUG"},
        "reload": {"DEBUG"},
        "raw_env": {"A"},
        "keepalive": set(),
    }
    assert {name: found.origin(name) for name in expected} == expected
    assert found.flow.expressions["workers"] == "cores * 2 + 1"
    assert found.written == {"SET_HERE": "x"}


def test_a_file_that_goes_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_WORKERS", "3")
    found = ran(
        "import os\nfor k, v in os.environ.items():\n    if k.startswith('GUNICORN_'):\n"
        "        locals()[k.split('_', 1)[1].lower()] = v\n"
    )
    assert found.names["workers"] == "3"
    assert found.variables == [ALL]
    done = run("gunicorn.conf.py", "m:app")
    assert "here it has set workers" in done.stderr


def test_what_it_prints_does_not_get_into_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    ran("import os\nprint('hello')\nos.system('echo world')\n")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.split() == ["hello", "world"]


def test_what_it_does_to_the_machine_is_told() -> None:
    found = ran(
        "import os\nos.makedirs('logs')\nopen('logs/x', 'w').close()\nopen('logs/x').close()\n"
    )
    here = Path.cwd()
    assert [line.replace(f"{here}/", "") for line in found.effects] == [
        "line 2: it made the directory logs",
        "line 3: it opened logs/x for writing",
    ]


def test_modules_for_hooks_are_stood_in_for() -> None:
    found = ran(
        "from gevent import monkey\nmonkey.patch_all()\nimport ddtrace.auto\n"
        "from newrelic.agent import thing as t\nfrom meinheld.x import Worker\n"
        "class Mine(Worker): pass\n@t.wrap\ndef post_fork(server, worker): pass\n"
        "workers = 2\nthreads = t.count\nworker_class = Worker\n"
    )
    assert found.stood_in == ["ddtrace", "gevent", "meinheld", "newrelic"]
    assert found.names["post_fork"].kind == "function"
    assert found.names["threads"] == Opaque("stand-in", "newrelic.agent.thing.count")
    done = run("gunicorn.conf.py", "m:app")
    assert "threads: it comes from newrelic.agent.thing.count" in done.stderr


def test_dotenv_is_stood_in_for() -> None:
    Path(".env").write_text("# a comment\nexport LISTEN_AT='127.0.0.1:81'\n")
    text = (
        "import os\nfrom dotenv import load_dotenv\nload_dotenv()\nbind = os.environ['LISTEN_AT']\n"
    )
    found = ran(text)
    assert (found.names["bind"], found.env_files) == ("127.0.0.1:81", [".env"])
    assert result("gunicorn.conf.py", "m:app")["server"]["env_file"] == ".env"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = (\n", ":1: it cannot be run: SyntaxError"),
        ("\nimport no_such_module\n", ":2: it cannot be run: there is no module 'no_such_module'"),
        ("raise SystemExit(3)\n", ":1: it cannot be run: SystemExit: 3"),
        ("import os\nos._exit(7)\n", ":2: it cannot be run: it calls os._exit(7)"),
        ("import os\nx = 1\ny = os.environ['W_1']\n", ":3: the variable W_1 is not set here; set"),
        ("import os\nx = int(os.getenv('W_2'))\n", ":2: the variable W_2 is not set here; set W_2"),
        ("def f(): raise ValueError('no')\nf()\n", ":1: it cannot be run: ValueError: no"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", ": it ended the process"),
        # The name of the error is another one since CPython 3.11.4.
        (
            "\0",
            f": it cannot be run: {'Syntax' if sys.version_info >= (3, 11, 4) else 'Value'}Error",
        ),
    ],
)
def test_a_file_that_cannot_be_run(text: str, problem: str) -> None:
    with pytest.raises(SourceError) as caught:
        ran(text)
    assert str(caught.value).startswith(f"gunicorn.conf.py{problem}")


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("site.ini", "[uwsgi]\nmodule = m\n", "`prefork migrate uwsgi FILE`"),
        ("site.ini", "[uwsgi]\nmodule = m:app\n", "`prefork migrate uwsgi FILE`"),
        ("start.sh", "exec gunicorn -w 4 m:app\n", "`prefork migrate gunicorn -- gunicorn ...`"),
    ],
)
def test_a_file_of_another_kind_is_named(name: str, text: str, hint: str) -> None:
    Path(name).write_text(text)
    done = run(f"./{name}", "m:app")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: ./{name}: it is no Python file; for a ")
    assert hint in done.stderr


def test_a_flow_survives_any_text() -> None:
    assert follow("x = (", []).sources == {}
    assert follow("match x:\n  case 1:\n    y = 2\n", [(1, "A")]).sources == {"y": {"A"}}
    assert follow("try:\n  a = 1\nexcept E:\n  b = 1\n", [(2, "A")]).sources == {"a": {"A"}}


# The command line.


@pytest.mark.parametrize("app", ["shop:create('x', debug=True)", 'a.b:make( "x" )'])
def test_a_factory_with_arguments_is_no_start_line(app: str) -> None:
    assert gather([app], {}).settings == {"wsgi_app": app}


def test_options_win_over_the_environment_and_that_over_the_file() -> None:
    Path("conf.py").write_text("workers = 9\nthreads = 8\ntimeout = 7\n")
    environ = {"GUNICORN_CMD_ARGS": "--workers 5 -c conf.py --threads 6"}
    gathered = gather(["-w", "3", "m:app"], environ)
    assert {name: gathered.settings[name] for name in ("workers", "threads", "timeout")} == {
        "workers": "3",
        "threads": "6",
        "timeout": 7,
    }


def test_each_kind_of_option_is_read() -> None:
    words = ["-D", "-R", "--preload", "-p", "x", "-e", "A=1", "--proxy-protocol", "--", "a:b"]
    assert gather(words, {}).settings == {
        "daemon": True,
        "enable_stdio_inheritance": True,
        "preload_app": True,
        "pidfile": "x",
        "raw_env": ["A=1"],
        "proxy_protocol": "auto",
        "wsgi_app": "a:b",
    }


def test_the_file_of_the_directory_is_read_beside_an_application() -> None:
    Path("gunicorn.conf.py").write_text("workers = 9\nwsgi_app = 'other:app'\n")
    found = result("m:app")
    assert (found["workers"]["count"], found["server"]["app"]) == (9, "m:app")


@pytest.mark.parametrize("name", ["gunicorn.conf.py", "conf", "deploy/gunicorn", "conf.cfg"])
def test_a_file_of_any_name_with_the_application(name: str) -> None:
    Path("deploy").mkdir()
    Path(name).write_text("workers = 6\n")
    found = result(name, "shop.wsgi")
    assert (found["workers"]["count"], found["server"]["app"]) == (6, "shop.wsgi:application")


@pytest.mark.parametrize(
    "words",
    [
        ["gunicorn", "-w", "4", "shop.wsgi"],
        ["exec", "/srv/venv/bin/gunicorn", "-w", "4", "shop.wsgi"],
        ["env", "A=1", "python3", "-m", "gunicorn", "-w", "4", "shop.wsgi"],
        ["poetry", "run", "gunicorn", "-w4", "shop.wsgi"],
        ["--workers=4", "shop.wsgi"],
        ["gunicorn -w 4 shop.wsgi"],
        ['["gunicorn", "-w", "4", "shop.wsgi"]'],
    ],
)
def test_whole_command_lines(words: list[str]) -> None:
    found = result("--", *words)
    assert found["workers"]["count"] == 4
    assert found["server"]["app"] == "shop.wsgi:application"


def test_words_before_gunicorn() -> None:
    words = ["A=1", "SECRET_KEY=abc", "WEB_CONCURRENCY=3", "newrelic-admin", "run-program"]
    done = run("--", *words, "gunicorn", "-e", "API_TOKEN=xyz", "-n", "gunicorn", "m:app")
    found = tomllib.loads(done.stdout)
    assert found["server"] == {"app": "m:app", "env": {"A": "1"}, "name": "gunicorn"}
    assert "# count = 3" in done.stdout
    for word in ("WEB_CONCURRENCY=3", "newrelic-admin", "run-program"):
        assert (
            f"- {word}: it comes before gunicorn in the command line; put it before prefork, too"
            in done.stderr
        )
    assert "abc" not in done.output
    assert "xyz" not in done.output


def test_a_command_line_in_quotes() -> None:
    found = result("--", "gunicorn -w 4 --name 'my shop' shop.wsgi")
    assert (found["server"]["name"], found["workers"]["count"]) == ("my shop", 4)
    assert run("--", "gunicorn 'a").stderr.startswith("Error: this is no command line")


def test_what_raw_env_takes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAME_TOKEN", "DB_HOST_HERE", "OTHER_TOKEN"):
        monkeypatch.setenv(name, f"value-of-{name}")
    Path("conf.py").write_text(
        "import os\nraw_env = ['SAME_TOKEN=' + os.environ['SAME_TOKEN'],"
        " f'HOST={os.environ[\"DB_HOST_HERE\"]}', 'MY_TOKEN=' + os.environ['OTHER_TOKEN']]\n"
    )
    done = run("conf.py", "m:app")
    assert tomllib.loads(done.stdout)["server"]["env"] == {"HOST": "value-of-DB_HOST_HERE"}
    assert (
        "# Some of it came from DB_HOST_HERE and OTHER_TOKEN; these are the values here."
        in done.stdout
    )
    assert "- SAME_TOKEN: the application inherits it from the environment" in done.stderr
    assert "- MY_TOKEN: it looks like a secret" in done.stderr
    assert "value-of-OTHER_TOKEN" not in done.output
    assert "value-of-SAME_TOKEN" not in done.output


def test_a_place_of_this_machine_becomes_relative() -> None:
    Path("conf.py").write_text("import os\npidfile = os.path.abspath('run/pid')\n")
    assert result("conf.py", "m:app")["process"]["pidfile"] == "run/pid"


def test_a_default_that_came_from_the_environment_names_the_variable_of_its_key() -> None:
    Path("conf.py").write_text(
        "import os\nthreads = int(os.getenv('N_THREADS', 1))\nloglevel = os.getenv('LEVEL')\n"
    )
    done = run("conf.py", "m:app")
    assert "threads" not in tomllib.loads(done.stdout)["workers"]
    assert "set PREFORK_WORKERS_THREADS on a server" in done.stderr.replace("\n  ", " ")


def test_variables_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEVEL", "debug")
    words = ["gunicorn", "-b", ":$PORT", "-w", "${N:-3}", "--log-level", "$LEVEL", "m:app"]
    done = run("--", *words)
    found = tomllib.loads(done.stdout)
    assert "bind" not in found["server"]  # prefork reads PORT
    assert '# bind = ["0.0.0.0:8000"]' in done.stdout
    assert (found["workers"]["count"], found["log"]["level"]) == (3, "debug")
    assert "PREFORK_WORKERS_COUNT takes precedence over this line" in done.stdout
    assert "set PREFORK_LOG_LEVEL" in done.stderr.replace("\n  ", " ")
    done = run("--", "gunicorn", "-w", "$NOWHERE", "m:app")
    assert done.exit_code == 1
    assert "set NOWHERE as it is on the server" in done.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nowhere.py"], "nowhere.py: cannot be read: No such file"),
        (["./nowhere", "m:app"], "./nowhere: cannot be read: No such file"),
        (["--no-such-option", "a:b"], "unrecognized arguments"),
        (["-w", "x", "a:b"], "workers: expected an integer"),
        (["-w", "4"], "no application is named; add it, as in prefork migrate gunicorn -w 4"),
    ],
)
def test_what_is_refused(words: list[str], problem: str) -> None:
    done = run(*words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert problem in done.stderr


def test_a_file_without_an_application_says_what_to_add() -> None:
    Path("conf.py").write_text("workers = 2\n")
    done = run("conf.py")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "prefork migrate gunicorn conf.py shop.wsgi:application" in done.stderr


# What is written of origins.


def test_a_computed_count_is_marked() -> None:
    Path("conf.py").write_text("from os import cpu_count\nworkers = cpu_count() * 2 + 1\n")
    done = run("conf.py", "m:app")
    assert "# It was computed from the number of CPUs here (cpu_count() * 2 + 1)." in done.stdout
    Path("conf.py").write_text("import os\nworkers = os.cpu_count()\n")
    assert result("conf.py", "m:app")["workers"]["count"] == "auto"


def test_an_explicit_web_concurrency_is_not_hidden() -> None:
    Path("conf.py").write_text("import os\nworkers = int(os.getenv('WEB_CONCURRENCY', 4))\n")
    done = run("conf.py", "m:app")
    assert "# count = 4" in done.stdout
    assert "count" not in tomllib.loads(done.stdout)["workers"]


def test_paths_that_the_file_derives_from_its_own_place_become_relative() -> None:
    Path("conf.py").write_text(
        "import os\nhere = os.path.dirname(os.path.abspath(__file__))\nchdir = here + '/src'\n"
        "pidfile = os.path.join(here, 'run', 'pid')\n"
    )
    found = result("conf.py", "m:app")
    assert (found["server"]["chdir"], found["process"]["pidfile"]) == ("src", "run/pid")


def test_names_that_gunicorn_ignores() -> None:
    Path("conf.py").write_text("worker = 5\ncores = 2\nmax_request = 1\nmax_requests = max_request")
    report = run("conf.py", "m:app").stderr
    assert (
        "worker = 5, line 1: gunicorn has no such setting and ignores it; did you mean workers?"
        in (report.replace("\n  ", " "))
    )
    assert report.count("gunicorn has no such setting") == 1


def test_prometheus_files_of_dead_workers() -> None:
    Path("conf.py").write_text(
        "from prometheus_client import multiprocess\ndef child_exit(server, worker):\n"
        "    multiprocess.mark_process_dead(worker.pid)\n"
    )
    assert "child_exit: prometheus_client's mark_process_dead()" in run("conf.py", "m:app").stderr
