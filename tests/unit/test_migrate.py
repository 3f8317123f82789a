"""gunicorn's settings as ours: complete, converted as gunicorn does, and accepted by `check`."""

import grp
import os
import pwd
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from prefork.cli.migrate import command
from prefork.config import Config, Source, load
from prefork.config.schema import KEYS
from prefork.migrate.document import check
from prefork.migrate.gunicorn import TRANSLATIONS, migrate
from prefork.migrate.gunicorn_settings import SETTINGS, options
from prefork.migrate.migration_report import Fate
from prefork.migrate.python_file import Opaque, SourceError
from prefork.migrate.secrets import is_secret

EVERYTHING = """
import multiprocessing

wsgi_app = "shop.wsgi"
bind = ["127.0.0.1:8001", "unix:{tmp}/run.sock", "[::1]:8002", "localhost"]
backlog = 512
workers = 2 * 3 + 1
worker_class = "gthread"
threads = 4
worker_connections = 1000
max_requests = 1000
max_requests_jitter = 50
timeout = 60
graceful_timeout = 20
keepalive = 3
limit_request_line = 8190
limit_request_fields = 200
limit_request_field_size = 131072
reload = True
reload_engine = "auto"
reload_extra_files = ["x.html"]
spew = False
check_config = False
print_config = False
preload_app = True
sendfile = True
reuse_port = False
chdir = "{tmp}"
daemon = True
raw_env = ["DJANGO_SETTINGS_MODULE=shop.settings", "EMPTY=", "TWO=a=b"]
pidfile = "{tmp}/shop.pid"
worker_tmp_dir = "/dev/shm"
user = "{user}"
group = "{group}"
umask = 0o027
initgroups = True
tmp_upload_dir = "/tmp"
secure_scheme_headers = {{"X-FORWARDED-PROTO": "https"}}
forwarded_allow_ips = "10.0.0.1,10.0.0.2"
accesslog = "{tmp}/access.log"
disable_redirect_access_to_syslog = True
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
errorlog = "{tmp}/error.log"
loglevel = "critical"
capture_output = True
logger_class = "gunicorn.glogging.Logger"
logconfig = "logging.ini"
logconfig_dict = {{}}
logconfig_json = "{tmp}/logging.json"
syslog_addr = "udp://localhost:514"
syslog = False
syslog_prefix = "shop"
syslog_facility = "user"
enable_stdio_inheritance = True
statsd_host = "localhost:8125"
dogstatsd_tags = "a:b"
statsd_prefix = "shop"
enable_backlog_metric = True
proc_name = "shop"
default_proc_name = "gunicorn"
pythonpath = "{tmp},/tmp"
paste = "shop.ini"
def on_starting(server): pass
def on_reload(server): pass
def when_ready(server): pass
def pre_fork(server, worker): pass
def post_fork(server, worker): pass
def post_worker_init(worker): pass
def worker_int(worker): pass
def worker_abort(worker): pass
def pre_exec(server): pass
def pre_request(worker, req): pass
def post_request(worker, req, environ, resp): pass
def child_exit(server, worker): pass
def worker_exit(server, worker): pass
def nworkers_changed(server, new_value, old_value): pass
def on_exit(server): pass
def ssl_context(config, default_ssl_context_factory): pass
proxy_protocol = True
proxy_allow_ips = "127.0.0.1"
protocol = "http"
uwsgi_allow_ips = "127.0.0.1"
ssl_version = 2
cert_reqs = 2
certfile = "{tmp}/site.pem"
keyfile = "{tmp}/site.key"
ca_certs = "{tmp}/ca.pem"
suppress_ragged_eofs = True
do_handshake_on_connect = False
ciphers = "ECDHE+AESGCM"
http_protocols = "h1,h2"
http2_cleartext = "off"
http2_max_concurrent_streams = 100
http2_initial_window_size = 65535
http2_max_frame_size = 16384
http2_max_header_list_size = 65536
raw_paste_global_conf = []
permit_obsolete_folding = False
strip_header_spaces = False
permit_unconventional_http_method = False
permit_unconventional_http_version = False
casefold_http_method = False
forwarder_headers = "SCRIPT_NAME"
header_map = "drop"
asgi_loop = "auto"
asgi_lifespan = "auto"
asgi_disconnect_grace_period = 3
websocket_max_message_size = 1024
http_parser = "auto"
root_path = "/shop"
dirty_apps = []
dirty_workers = 0
dirty_timeout = 300
dirty_threads = 1
dirty_graceful_timeout = 30
def on_dirty_starting(arbiter): pass
def dirty_post_fork(arbiter, worker): pass
def dirty_worker_init(worker): pass
def dirty_worker_exit(arbiter, worker): pass
control_socket = "{tmp}/control.sock"
control_socket_mode = 0o600
control_socket_disable = False
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory of its own, without variables that gunicorn reads."""
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(command, ["gunicorn", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def checked(text: str) -> Config:
    """What `prefork check` makes of a result."""
    Path("site.toml").write_text(text)
    return load(Source("site.toml"), {}).config


def problems_of(settings: dict[str, Any]) -> list[str]:
    """The problems that `check` finds in a result, without those of this machine.

    Without an application the command writes nothing, so this raises SourceError.
    """
    document = migrate({"wsgi_app": "m:app", **settings}, "a test")
    if not document.holds("server.app"):
        raise SourceError("no application")
    return check(document.render(), machine=False)


def section(settings: dict[str, Any], **environ: str) -> dict[str, Any]:
    """The sections of a result, parsed."""
    return tomllib.loads(migrate(settings, "a test", environ=environ).render())


# The table.


def test_the_table_is_that_of_gunicorn() -> None:
    config = pytest.importorskip("gunicorn.config")
    theirs = {setting.name: setting for setting in config.KNOWN_SETTINGS}
    assert SETTINGS.keys() == theirs.keys()
    machine = {"chdir", "user", "group", "control_socket", "ssl_version"}
    for name, setting in theirs.items():
        assert set(setting.cli or ()) <= set(options(name)), name
        assert bool(setting.cli) == bool(options(name)), name
        flag = setting.action in ("store_true", "store_const")
        assert SETTINGS[name].flag == flag, name
        if SETTINGS[name].kind != "function" and name not in machine:
            assert SETTINGS[name].default == setting.default, name


def test_each_setting_has_one_fate() -> None:
    translated = {name for name, each in SETTINGS.items() if each.fate is Fate.TRANSLATED}
    assert TRANSLATIONS.keys() == translated
    assert all(each.here in KEYS for each in SETTINGS.values() if each.fate is Fate.SAME)


# Everything at once.


def test_a_file_with_every_setting_passes_the_check(tmp_path: Path) -> None:
    (tmp_path / "logging.json").write_text("{}")
    authority = trustme.CA()
    issued = authority.issue_cert("site.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "site.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "site.key"))
    (tmp_path / "site.key").chmod(0o600)
    # Only root may name another one.
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    source = tmp_path / "gunicorn.conf.py"
    source.write_text(EVERYTHING.format(tmp=tmp_path, user=user, group=group))
    done = run(str(source))
    assert done.exit_code == 0, done.output
    config = checked(done.stdout)
    assert config.server.app == "shop.wsgi:application"
    assert config.server.bind == (
        *("127.0.0.1:8001", f"unix:{tmp_path}/run.sock", "[::1]:8002", "localhost:8000"),
    )
    assert config.server.env == {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "EMPTY": "",
        "TWO": "a=b",
    }
    assert config.server.pythonpath == (str(tmp_path), "/tmp")
    assert (config.server.name, config.server.backlog) == ("shop", 512)
    assert (config.server.unix_mode, config.server.unix_owner) == (0o750, f"{user}:{group}")
    workers = config.workers
    assert (workers.count, workers.threads, workers.preload) == (7, 4, True)
    assert (workers.request_timeout, workers.graceful_timeout) == (0, 20)
    assert (workers.max_requests, workers.max_requests_jitter) == (1000, 50)
    assert (config.http.keepalive, config.http.max_request_line) == (3, 8190)
    assert (config.http.max_header_count, config.http.max_header_size) == (200, 196608)
    log = config.log
    assert (log.level, log.access_format) == ("error", "combined")
    assert (log.error, log.access) == (f"{tmp_path}/error.log", f"{tmp_path}/access.log")
    assert (config.process.daemon, config.process.pidfile) == (True, f"{tmp_path}/shop.pid")
    assert (config.process.user, config.process.group) == (user, group)
    assert config.http.trusted_proxies == (*("10.0.0.1", "10.0.0.2", "unix", "127.0.0.1"),)
    assert config.http.proxy_protocol
    tls = config.tls
    assert (tls.certificate, tls.key) == (f"{tmp_path}/site.pem", f"{tmp_path}/site.key")
    assert (tls.client_ca, tls.client_auth) == (f"{tmp_path}/ca.pem", "required")
    titles = ("Lost, and to be replaced:", "Changed:", "Not needed:")
    places = [done.stderr.index(title) for title in titles]
    assert places == sorted(places)
    for name, setting in SETTINGS.items():
        if setting.fate is Fate.LOST and setting.kind == "string" and name != "header_map":
            assert f"- {name} = " in done.stderr, name


# One thing at a time.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"bind": "fd://3"}, {"server": {"bind": ["fd:3"]}}),
        ({"bind": "unix:///run/x,1.2.3.4"}, {"server": {"bind": ["unix:/run/x", "1.2.3.4:8000"]}}),
        ({"bind": "unix:@x"}, {"server": {"bind": ["unix:./@x"]}}),
        ({"bind": ["127.0.0.1", "127.0.0.1:8000"]}, {"server": {"bind": ["127.0.0.1:8000"]}}),
        ({"errorlog": "-"}, {"log": {"error": "stderr"}}),
        ({"daemon": True, "errorlog": "-"}, {"log": {"error": "syslog"}}),
        ({"daemon": True, "accesslog": "-"}, {"process": {"daemon": True, "umask": "0022"}}),
        ({"syslog": True, "syslog_addr": "unix:///s#dgram"}, {"log": {"error": "syslog:/s"}}),
        ({"accesslog": "-", "access_log_format": '{"a": 1}'}, {"log": {"access_format": "json"}}),
        ({"accesslog": "/dev/stdout"}, {"log": {"access": "stdout"}}),
        (
            {"certfile": "/c.pem", "cert_reqs": 1, "ca_certs": "/ca.pem"},
            {"tls": {"client_auth": "optional"}},
        ),
        ({"workers": "4"}, {"workers": {"count": 4}}),
        ({"workers": 0}, {"workers": {"count": 1}}),
        ({"workers": 5000}, {"workers": {"count": 1023}}),
        ({"threads": 300}, {"workers": {"threads": 255, "request_timeout": 0}}),
        ({"threads": 2, "timeout": 90}, {"workers": {"threads": 2, "request_timeout": 0}}),
        ({"timeout": "90"}, {"workers": {"request_timeout": 90}}),
        ({"graceful_timeout": 0}, {"workers": {"graceful_timeout": 0.1}}),
        ({"keepalive": 0, "threads": 2}, {"http": {"keepalive_requests": 1}}),
        ({"keepalive": 9}, {"http": {"keepalive": 9, "keepalive_requests": 1}}),
        ({"threads": 2}, {"http": {"keepalive": 2}}),
        ({"umask": "007", "bind": "unix:/s"}, {"server": {"unix_mode": "0770"}}),
        ({"bind": "unix:/s"}, {"server": {"unix_mode": "0777"}}),
        ({"bind": "unix:/s", "group": "w"}, {"server": {"unix_owner": ":w"}}),
        ({"loglevel": "warn"}, {"log": {"level": "info"}}),
        ({"loglevel": "WARNING"}, {"log": {"level": "warning"}}),
        ({"raw_env": "A=1"}, {"server": {"env": {"A": "1"}}}),
        ({"preload_app": "true"}, {"workers": {"preload": True}}),
        ({"worker_class": "gevent"}, {"workers": {"threads": 64, "request_timeout": 0}}),
        ({"worker_class": "eventlet", "worker_connections": 9}, {"workers": {"threads": 9}}),
        ({"chdir": "src", "pidfile": "p"}, {"process": {"pidfile": "src/p"}}),
        ({"chdir": "/srv", "bind": "unix:s"}, {"server": {"bind": ["unix:/srv/s"]}}),
        ({"proxy_protocol": True}, {"http": {"proxy_protocol": True}}),
        ({"limit_request_fields": 0}, {"http": {"max_header_count": 32768}}),
    ],
)  # fmt: skip
def test_translations(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    result = section(settings)
    for name, table in expected.items():
        assert result[name].items() >= table.items()
    assert not problems_of(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"accesslog": None},
        {"accesslog": ""},
        {"preload_app": False, "spew": False, "dirty_apps": [], "statsd_prefix": ""},
        {"worker_connections": 1000, "header_map": "drop", "reload_engine": "auto"},
    ],
)
def test_false_empty_and_default_values_are_no_lines(settings: dict[str, Any]) -> None:
    plain, found = migrate({}, "a test"), migrate(settings, "a test")
    assert found.render() == plain.render()


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"reload": True}, "changed", "prefork serve FILE --reload"),
        ({"worker_class": "gevent"}, "lost", "WebSockets"),
        ({"raw_env": ["SCRIPT_NAME=/shop"]}, "lost", "X-Forwarded-Prefix: /shop"),
        ({"secure_scheme_headers": {"X-SSL": "on"}}, "lost", "X-Forwarded-Proto"),
        ({"bind": "0.0.0.0:None"}, "lost", "not set here"),
        ({"wsgi_app": "a:create('x')"}, "lost", "called without arguments"),
        ({"cert_reqs": 2, "certfile": "/c"}, "lost", "tls.client_ca"),
        ({"protocol": "uwsgi"}, "lost", "proxy_pass"),
        ({"bind": "0.0.0.0:80"}, "lost", "on another machine"),
        ({"forwarded_allow_ips": ""}, "lost", "nothing") ,
        ({"max_requests_jitter": 5}, "unneeded", "there is no max_requests"),
        ({"umask": 0o22}, "unneeded", "Unix sockets"),
        ({"statsd_host": "h:1"}, "lost", "Prometheus"),
    ],
)  # fmt: skip
def test_what_is_not_the_same_is_said(settings: dict[str, Any], kind: str, said: str) -> None:
    entries = getattr(migrate(settings, "a test").report, kind)
    assert (said == "nothing" and not entries) or any(said in entry for entry in entries)


# What gunicorn does by default.


def test_the_proxies_that_gunicorn_believes_are_written() -> None:
    assert section({})["http"]["trusted_proxies"] == ["127.0.0.1", "::1"]
    assert section({"bind": "unix:/s"})["http"]["trusted_proxies"] == ["127.0.0.1", "::1", "unix"]
    everybody = section({"forwarded_allow_ips": "*"})["http"]["trusted_proxies"]
    assert everybody == ["0.0.0.0/0", "::/0", "unix"]
    said = section({}, FORWARDED_ALLOW_IPS="10.0.0.0/8")
    assert said["http"]["trusted_proxies"] == ["10.0.0.0/8"]
    assert "trusted_proxies" not in section({"forwarded_allow_ips": ""})["http"]


def test_bodies_have_no_limit() -> None:
    assert section({})["http"]["max_body"] == 0


def test_a_count_that_is_not_set_is_left_to_the_environment() -> None:
    document = migrate({}, "a test")
    assert "# count = 1" in document.render()
    assert tomllib.loads(document.render())["workers"] == {}
    assert any("WEB_CONCURRENCY" in entry for entry in document.report.changed)


# Values with which gunicorn does not start.


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"workers": "many"}, "workers: expected an integer"),
        ({"workers": 1.5}, "workers: expected an integer"),
        ({"timeout": -1}, "timeout: expected an integer of at least 0"),
        ({"daemon": "yes"}, "daemon: expected True or False"),
        ({"bind": 8000}, "bind: expected a list of strings"),
        ({"forwarded_allow_ips": "nginx"}, "forwarded_allow_ips: 'nginx'"),
        ({"workers": Opaque("stand-in", "consul.count")}, "comes from consul.count"),
        ({"worker_class": "aiohttp.GunicornWebWorker"}, "neither a WSGI nor an ASGI application"),
    ],
)
def test_refused_values(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(SourceError) as caught:
        migrate(settings, "a test")
    assert problem in str(caught.value)


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [
            *("*", "-", "0", "unix:/s", "unix:", ":", "[::1]", "x:y:z", "gevent", "sync", "a:b()"),
            *("127.0.0.1", "fd://x", "0o17", "9" * 30, "\0", "A=1", "=", "uwsgi", "h2", "warn"),
        ]
    ),
    st.builds(Opaque, st.sampled_from(["class", "function", "other", "stand-in"]), st.just("x.Y")),
)
VALUES = st.one_of(
    PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(st.text(), PLAIN, max_size=3)
)


@given(settings=st.dictionaries(st.sampled_from(sorted(SETTINGS)), VALUES, max_size=8))
def test_any_value_is_refused_or_makes_a_file_that_check_takes(settings: dict[str, Any]) -> None:
    try:
        problems = problems_of(settings)
    except SourceError:
        return
    # Names that the user chose may still be refused: the command writes nothing then.
    named = ("server.app: ", "process.user: ", "process.group: ")
    rest = [each for each in problems if not each.startswith(named) and "unprintable" not in each]
    assert rest == []


def test_a_result_that_check_would_refuse_is_not_written() -> None:
    done = run("-u", "a user", "m:app")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "process.user: expected the name or number of a user" in done.stderr


def test_secrets_are_not_written() -> None:
    Path("conf.py").write_text('raw_env = ["SECRET_KEY=abcdef", "DB=pg://u:pw@h/d", "KEY_FILE=/k"]')
    done = run("conf.py", "m:app")
    assert checked(done.stdout).server.env == {"KEY_FILE": "/k"}
    assert "abcdef" not in done.output
    assert "pw@" not in done.output
    assert "- SECRET_KEY: it looks like a secret" in done.stderr
    assert not is_secret("SECRET_KEY", "")
