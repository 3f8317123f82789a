"""gunicorn's settings as ours: complete, and accepted by `prefork check`."""

import grp
import os
import pwd
import ssl
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner

from prefork.cli.migrate import command
from prefork.config import Config, Source, load
from prefork.migrate import gunicorn
from prefork.migrate.gunicorn import migrate
from prefork.migrate.gunicorn_source import KNOWN, SourceError, read_command, read_file

# Every setting that the documentation of gunicorn 27 has.
_DOCUMENTED = """
config wsgi_app bind backlog workers worker_class threads worker_connections max_requests
max_requests_jitter timeout graceful_timeout keepalive limit_request_line limit_request_fields
limit_request_field_size reload reload_engine reload_extra_files spew check_config print_config
preload_app sendfile reuse_port chdir daemon raw_env pidfile worker_tmp_dir user group umask
initgroups tmp_upload_dir secure_scheme_headers forwarded_allow_ips accesslog
disable_redirect_access_to_syslog access_log_format errorlog loglevel capture_output logger_class
logconfig logconfig_dict logconfig_json syslog_addr syslog syslog_prefix syslog_facility
enable_stdio_inheritance statsd_host dogstatsd_tags statsd_prefix enable_backlog_metric proc_name
default_proc_name pythonpath paste on_starting on_reload when_ready pre_fork post_fork
post_worker_init worker_int worker_abort pre_exec pre_request post_request child_exit worker_exit
nworkers_changed on_exit ssl_context proxy_protocol proxy_allow_ips protocol uwsgi_allow_ips keyfile
certfile ssl_version cert_reqs ca_certs suppress_ragged_eofs do_handshake_on_connect ciphers
http_protocols http2_cleartext http2_max_concurrent_streams http2_initial_window_size
http2_max_frame_size http2_max_header_list_size raw_paste_global_conf permit_obsolete_folding
strip_header_spaces permit_unconventional_http_method permit_unconventional_http_version
casefold_http_method forwarder_headers header_map asgi_loop asgi_lifespan
asgi_disconnect_grace_period websocket_max_message_size http_parser root_path dirty_apps
dirty_workers dirty_timeout dirty_threads dirty_graceful_timeout on_dirty_starting dirty_post_fork
dirty_worker_init dirty_worker_exit control_socket control_socket_mode control_socket_disable
"""
DOCUMENTED = _DOCUMENTED.split()

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
root_path = ""
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


def checked(tmp_path: Path, text: str) -> Config:
    """What `prefork check` makes of a result."""
    (tmp_path / "site.toml").write_text(text)
    return load(Source(str(tmp_path / "site.toml")), {}).config


def test_each_documented_setting_is_in_one_table() -> None:
    tables: list[dict[str, Any]] = [
        *(gunicorn.SAME, gunicorn.TRANSLATED, gunicorn.NOT_NEEDED, gunicorn.NO_EQUIVALENT)
    ]
    names = [name for table in tables for name in table]
    assert sorted(names) == sorted(DOCUMENTED)


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
    done = CliRunner().invoke(command, ["gunicorn", str(source)])
    assert done.exit_code == 0, done.output
    config = checked(tmp_path, done.stdout)
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
    workers = config.workers
    assert (workers.count, workers.threads, workers.preload) == (7, 4, True)
    assert (workers.request_timeout, workers.graceful_timeout) == (60, 20)
    assert (workers.max_requests, workers.max_requests_jitter) == (1000, 50)
    assert (config.http.keepalive, config.http.max_request_line) == (3, 8190)
    assert (config.http.max_header_count, config.http.max_header_size) == (200, 131072)
    log = config.log
    assert (log.level, log.access_format) == ("error", "combined")
    assert (log.error, log.access) == (f"{tmp_path}/error.log", f"{tmp_path}/access.log")
    assert (config.process.daemon, config.process.pidfile) == (True, f"{tmp_path}/shop.pid")
    assert (config.process.user, config.process.group) == (user, group)
    assert config.process.umask == 0o027
    assert config.http.trusted_proxies == ("10.0.0.1", "10.0.0.2")
    assert config.http.proxy_protocol
    tls = config.tls
    assert (tls.certificate, tls.key) == (f"{tmp_path}/site.pem", f"{tmp_path}/site.key")
    assert (tls.client_ca, tls.client_auth) == (f"{tmp_path}/ca.pem", "required")
    # Whatever was not taken over is named, with the reason.
    taken = {*gunicorn.SAME, *gunicorn.TRANSLATED}
    told = done.stdout.partition("# Not taken over:")[2]
    for name in set(DOCUMENTED) - taken - {"config"}:
        assert f"# - {name}: " in told, name
    assert "were not taken over; the end of the file says why" in done.stderr


def test_a_command_line_passes_the_check(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text("workers = 9\ntimeout = 5\nimport os\n")
    arguments = ["-w", "3", "-b", ":80", "-b", "unix:/s", "--timeout=7", "-k", "gevent"]
    arguments += ["-c", str(tmp_path / "conf.py"), "--access-logfile", "-", "a.b:create('x')"]
    done = CliRunner().invoke(command, ["gunicorn", *arguments])
    assert done.exit_code == 0, done.output
    config = checked(tmp_path, done.stdout)
    assert config.workers.count == 3
    assert config.workers.request_timeout == 7
    assert config.server.bind == ("0.0.0.0:80", "unix:/s")
    assert config.server.app == "a.b:create()"
    assert config.log.access == "stdout"
    assert "# - worker_class gevent: workers run threads" in done.stdout
    assert "a factory is called without arguments" in done.stdout


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"workers": {"count": 1}}),
        ({"bind": "fd://3"}, {"server": {"bind": ["fd:3"]}}),
        ({"bind": "unix:///run/x,1.2.3.4"}, {"server": {"bind": ["unix:/run/x", "1.2.3.4:8000"]}}),
        ({"errorlog": "-"}, {"log": {"error": "stderr"}}),
        ({"daemon": True, "errorlog": "-"}, {"log": {"error": "syslog"}}),
        ({"syslog": True, "syslog_addr": "unix:///s#dgram"}, {"log": {"error": "syslog:/s"}}),
        ({"accesslog": None}, {}),
        ({"preload_app": False}, {}),
        ({"access_log_format": '{"a": 1}'}, {"log": {"access_format": "json"}}),
        (
            {"cert_reqs": ssl.CERT_OPTIONAL, "ca_certs": "/ca.pem"},
            {"tls": {"client_auth": "optional", "client_ca": "/ca.pem"}},
        ),
        ({"cert_reqs": 2}, {"tls": {"client_auth": "required"}}),
        ({"cert_reqs": 0, "ca_certs": "/ca.pem"}, {}),
    ],
)
def test_translations(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    document = tomllib.loads(migrate(settings, "a test").render())
    for section, table in expected.items():
        assert document[section].items() >= table.items()
    if not expected:
        assert document == {"workers": {"count": 1}}


def test_each_option_of_the_command_line_is_read() -> None:
    assert read_command(["-D", "-R", "--preload", "-p", "x", "-e", "A=1", "a:b"]) == {
        "daemon": True,
        "enable_stdio_inheritance": True,
        "preload_app": True,
        "pidfile": "x",
        "raw_env": ["A=1"],
        "wsgi_app": "a:b",
    }
    assert set(DOCUMENTED) == KNOWN


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = (\n", ":1: it cannot be run: SyntaxError"),
        ("\nimport no_such_module\n", ":2: it cannot be run: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", ":1: it cannot be run: SystemExit(3)"),
    ],
)
def test_a_file_that_cannot_be_run(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "gunicorn.conf.py"
    path.write_text(text)
    with pytest.raises(SourceError, match="it cannot be run") as caught:
        read_file(str(path))
    assert str(caught.value).startswith(f"{path}{problem}")


@pytest.mark.parametrize("arguments", [["nowhere.py"], ["--no-such-option", "a:b"], ["-w", "x"]])
def test_what_is_neither_a_file_nor_a_command_line(arguments: list[str]) -> None:
    done = CliRunner().invoke(command, ["gunicorn", *arguments])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert "Traceback" not in done.output
