"""Loading a configuration: who wins, what is derived, what a target may be."""

from pathlib import Path

import pytest

from prefork.config import (
    ConfigError,
    Override,
    Source,
    changes,
    load,
    parse_set,
    working_directory,
)
from tests.support.config_site import APP, Write, loaded, problems, site_in


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return site_in(tmp_path, monkeypatch)


# Who wins


def test_command_line_before_file_before_environment_before_default(site: Write) -> None:
    environ = {"PORT": "5000", "WEB_CONCURRENCY": "7"}
    default = loaded("a:app")
    assert default.config.server.bind == ("127.0.0.1:8000",)
    assert default.origins["server.bind"] == "default"

    env = loaded("a:app", environ=environ)
    assert env.config.server.bind == ("0.0.0.0:5000",)
    assert env.config.workers.count == 7
    assert env.origins["server.bind"] == "PORT"
    assert env.origins["workers.count"] == "WEB_CONCURRENCY"

    name = site(APP + 'bind = ":6000"\n[workers]\ncount = 3\n')
    file = loaded(name, environ=environ)
    assert file.config.server.bind == ("0.0.0.0:6000",)
    assert file.config.workers.count == 3
    assert file.origins["server.bind"] == file.origins["workers.count"] == "site.toml"

    bind = Override("server", "bind", ["127.0.0.1:7000"], "--bind")
    said = loaded(name, bind, Override("workers", "count", 2, "--workers"), environ=environ)
    assert said.config.server.bind == ("127.0.0.1:7000",)
    assert said.config.workers.count == 2
    assert said.origins["server.bind"] == "--bind"


def test_the_later_of_two_options_counts() -> None:
    options = (Override("workers", "count", 2, "--workers"), parse_set("workers.count=3"))
    assert loaded("a:app", *options).config.workers.count == 3


def test_the_environment_is_not_even_read_where_another_speaks(site: Write) -> None:
    name = site(APP + 'bind = ":6000"\n[workers]\ncount = 3\n')
    assert loaded(name, environ={"PORT": "nonsense", "WEB_CONCURRENCY": "nonsense"})


def test_an_empty_variable_says_nothing() -> None:
    empty = loaded("a:app", environ={"PORT": "", "WEB_CONCURRENCY": ""})
    assert empty.origins["server.bind"] == "default"


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Source("a:app"), {"PORT": "http", "WEB_CONCURRENCY": "many"})
    assert [str(problem) for problem in caught.value.problems] == [
        'PORT: server.bind: "0.0.0.0:http": the port "http" is not a number from 0 to 65535',
        'WEB_CONCURRENCY: workers.count: expected an integer of at least 1 or "auto", got "many"',
    ]


def test_every_load_reads_the_file_anew(site: Write) -> None:
    source = Source(site(APP + "[workers]\ncount = 1\n"))
    before = load(source, {}).config
    site(APP + "[workers]\ncount = 4\n")
    assert changes(before, load(source, {}).config) == ["workers.count: 1 -> 4"]


# Targets


def test_a_target_may_be_an_application() -> None:
    for app in ("a:app", "a.b:c.d", "a:make()"):
        config = loaded(app).config
        assert (config.server.app, config.server.protocol) == (app, "auto")


def test_a_target_may_be_a_directory(site: Write, tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    result = loaded("public")
    assert result.config.server.protocol == "static"
    assert result.config.static.root == str(tmp_path / "public")
    assert result.origins["server.protocol"] == "static.root"
    assert result.origins["static.root"] == "command line"
    assert result.file is None


def test_a_package_is_imported_and_its_source_is_not_served(site: Write, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("app = 1\n")
    assert loaded("shop").config.server.app == "shop:app"
    assert loaded("shop/").config.static.root == str(tmp_path / "shop")


def test_a_target_may_be_a_tcp_handler() -> None:
    result = loaded("a.b:handle", tcp=True)
    assert (result.config.server.protocol, result.config.server.app) == ("tcp", "a.b:handle")
    assert result.origins["server.protocol"] == "--tcp"


def test_a_target_may_be_a_file_and_says_which(site: Write, tmp_path: Path) -> None:
    assert loaded(site(APP, "conf/x.toml")).file == tmp_path / "conf/x.toml"


def test_without_a_target_the_options_may_say_it_all(site: Write) -> None:
    assert loaded(None, parse_set("server.app=a:app")).config.server.app == "a:app"


def test_tcp_makes_a_file_tcp(site: Write) -> None:
    assert loaded(site('[server]\napp = "a:handle"\n'), tcp=True).config.server.protocol == "tcp"


@pytest.mark.parametrize("target", ["nowhere", "./nowhere", "app.py", ""])
def test_a_target_that_is_nothing(site: Write, target: str) -> None:
    assert problems(target) == [
        f'command line: "{target}": no such directory or module, and neither a .toml file nor'
        " module:callable"
    ]


# What is derived


def test_defaults_that_follow_from_the_file(site: Write, tmp_path: Path) -> None:
    server = loaded(site(APP, "conf/shop.toml")).config.server
    assert server.name == "shop"
    assert server.chdir == str(tmp_path / "conf")


def test_defaults_without_a_file(site: Write, tmp_path: Path) -> None:
    server = loaded("a:app", parse_set('server.bind=[":1", ":2"]')).config.server
    assert server.name == "0.0.0.0:1"
    assert server.chdir == str(tmp_path)


def test_a_path_is_relative_to_the_file_or_directory_that_names_it(
    site: Write, tmp_path: Path
) -> None:
    for directory in ("conf/lib", "conf/run", "conf/static", "logs"):
        (tmp_path / directory).mkdir(parents=True)
    name = site(
        '[server]\napp = "a:app"\npythonpath = ["lib"]\nbind = "unix:run/x.sock"\n'
        '[static]\nmounts = { "/s/" = "static" }\n[control]\npath = "../c.sock"\n'
        '[log]\nerror = "stderr"\naccess = "access.log"\n',
        "conf/x.toml",
    )
    config = loaded(name, parse_set("log.access=logs/access.log")).config
    assert config.server.pythonpath == (str(tmp_path / "conf/lib"),)
    assert config.server.bind == (f"unix:{tmp_path}/conf/run/x.sock",)
    assert config.static.mounts == {"/s/": str(tmp_path / "conf/static")}
    assert config.control.path == str(tmp_path / "c.sock")
    assert config.log.error == "stderr"
    assert config.log.access == str(tmp_path / "logs/access.log")


def test_the_protocol_is_guessed(site: Write, tmp_path: Path) -> None:
    assert loaded(site(APP)).config.server.protocol == "auto"
    for more in ("", '[server]\nprotocol = "auto"\n'):
        result = loaded(site(more + '[static]\nroot = "."\n'))
        assert result.config.server.protocol == "static"
        assert result.origins["server.protocol"] == "static.root"


def test_tcp_has_no_request_timeout_unless_it_is_set() -> None:
    quiet = loaded("a:handle", tcp=True)
    assert quiet.config.workers.request_timeout == 0
    assert quiet.origins["workers.request_timeout"] == "default for tcp"
    told = loaded("a:handle", parse_set("workers.request_timeout=9"), tcp=True)
    assert told.config.workers.request_timeout == 9


def test_auto_is_the_number_of_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefork.config.cpus.available", lambda: 12)
    result = loaded("a:app")
    assert result.config.workers.count == 12
    assert result.origins["workers.count"] == 'default, "auto"'
    said = loaded("a:app", Override("workers", "count", "auto", "--workers"))
    assert (said.config.workers.count, said.origins["workers.count"]) == (12, '--workers, "auto"')


def test_the_env_file_joins_env_which_wins(site: Write) -> None:
    site("A=file\nB=file\n", "app.env")
    result = loaded(site(APP + 'env_file = "app.env"\nenv = { B = "table" }\n'))
    assert result.config.server.env == {"A": "file", "B": "table"}
    alone = loaded(site(APP + 'env_file = "app.env"\n'))
    assert alone.config.server.env == {"A": "file", "B": "file"}
    assert alone.origins["server.env"] == "site.toml (env_file)"


# The working directory


def test_a_release_symlink_is_followed_anew_by_each_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = tmp_path / "current"
    for release, count in (("one", 1), ("two", 2)):
        (tmp_path / release).mkdir()
        (tmp_path / release / "site.toml").write_text(APP + f"[workers]\ncount = {count}\n")
    current.symlink_to("one")
    monkeypatch.chdir(current)
    monkeypatch.setenv("PWD", str(current))
    source = Source("site.toml")
    assert load(source, {}).config.workers.count == 1
    current.unlink()
    current.symlink_to("two")
    second = load(source, {}).config
    assert second.workers.count == 2
    assert second.server.chdir == str(current)


@pytest.mark.parametrize("named", ["/", "relative", "/nowhere/at/all", ""])
def test_a_wrong_pwd_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert working_directory({"PWD": named}) == str(tmp_path.resolve())


# The size of the pool


def test_a_dynamic_pool_has_at_most_count_workers_where_no_more_is_said() -> None:
    spare = parse_set("workers.spare=1")
    dynamic = loaded("a:app", spare, parse_set("workers.count=6"))
    assert (dynamic.config.workers.min, dynamic.config.workers.max) == (1, 6)
    assert dynamic.origins["workers.max"] == "workers.count"
    assert loaded("a:app", spare, parse_set("workers.max=9")).config.workers.max == 9


def test_a_pool_of_fixed_size_has_no_bounds() -> None:
    workers = loaded("a:app", parse_set("workers.count=6")).config.workers
    assert (workers.min, workers.max, workers.spare) == (1, 0, 0)


def test_each_key_has_a_variable_that_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(
        '[server]\napp = "a:b"\n[workers]\ncount = 3\nthreads = 2\n'
    )
    environ = {
        "PREFORK_WORKERS_COUNT": "5",
        "PREFORK_SERVER_BIND": "0.0.0.0:81",
        "PREFORK_HTTP_TRUSTED_PROXIES": '["127.0.0.1"]',
        "PREFORK_HTTP_SERVICE_HOST": "10.0.0.1",  # Kubernetes has such names
        "PORT": "82",
        "WEB_CONCURRENCY": "6",
    }
    option = Override("workers", "threads", 4, "--threads")
    loaded = load(Source(str(tmp_path / "site.toml"), (option,)), environ)
    config = loaded.config
    assert (config.workers.count, config.workers.threads) == (5, 4)
    assert loaded.origins["workers.count"] == "PREFORK_WORKERS_COUNT"
    assert (config.server.bind, config.http.trusted_proxies) == (("0.0.0.0:81",), ("127.0.0.1",))


def test_a_bad_value_in_a_variable_names_it() -> None:
    with pytest.raises(ConfigError, match=r"^PREFORK_WORKERS_THREADS: workers.threads: expected"):
        load(Source("a:b"), {"PREFORK_WORKERS_THREADS": "many"})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("application = 1\napp = 2\n", "application"),
        ("app = 2\n", "app"),
        ("from shop.site import app\n", "app"),
        ("from shop.site import site as application\n", "application"),
        ("def app(environ, start_response): ...\n", "app"),
        ("try:\n    import x\nexcept ImportError:\n    app, db = 1, 2\n", "app"),
        ("def f():\n    app = 1\n", "application"),
        ("app: object = 1\n", "app"),
        ("not Python (", "application"),
    ],
)
def test_a_module_alone_is_a_target(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "wsgi.py").write_text(text)
    config = load(Source("shop.wsgi", directory=str(tmp_path)), {}).config
    assert (config.server.app, config.server.protocol) == (f"shop.wsgi:{name}", "auto")
    assert load(Source("wsgi", directory=str(tmp_path / "shop")), {}).config.server.app == (
        f"wsgi:{name}"
    )


def test_a_target_that_is_no_module_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    # A directory is a site, also one that is a package.
    assert load(Source("shop", directory=str(tmp_path)), {}).config.server.protocol == "static"
    for target in ("shop.wsgi", "nowhere", "site.tmol", "a-b"):
        with pytest.raises(ConfigError, match="no such directory or module"):
            load(Source(target, directory=str(tmp_path)), {})
