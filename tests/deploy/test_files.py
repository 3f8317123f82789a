"""The files in deploy/, each read by the program that it is for, and held against each other."""

import gzip
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefork.config import Config, Override, Source, load
from prefork.config.values import FORWARDING_HEADERS
from tests.support.commands import ROOT
from tests.support.passable import passable
from tests.support.programs import DEPLOY, find, run
from tests.support.server import Start
from tests.support.waiting import until


def test_nginx_takes_its_files(tmp_path: Path) -> None:
    for name in ("prefork.conf", "tcp.conf"):
        text = (DEPLOY / "nginx" / name).read_text()
        text = text.replace("listen 80;", f"listen unix:{tmp_path}/{name};")
        whole = tmp_path / f"{name}.whole"
        whole.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{text}\n}}\n")
        run("nginx", "-t", "-p", tmp_path, "-e", "stderr", "-c", whole)
    text = (DEPLOY / "container" / "nginx.conf").read_text()
    # The name that compose gives; -t looks it up.
    whole.write_text(f"pid {tmp_path}/pid;\n" + text.replace("app:8000", "127.0.0.1:8000"))
    run("nginx", "-t", "-p", tmp_path, "-e", "stderr", "-c", whole)


def test_haproxy_takes_its_file() -> None:
    done = run("haproxy", "-c", "-f", DEPLOY / "haproxy" / "haproxy.cfg")
    assert "WARNING" not in done.stderr


def test_logrotate_takes_its_file(tmp_path: Path) -> None:
    (tmp_path / "prefork").write_text((DEPLOY / "logrotate" / "prefork").read_text())
    done = run("logrotate", "-d", "-s", tmp_path / "state", tmp_path / "prefork")
    assert "error" not in done.stderr.lower()


@pytest.mark.parametrize("owner", ["service", "root"])
def test_logs_are_rotated_three_times(start: Start, tmp_path: Path, owner: str) -> None:
    """By the real logrotate, with two servers, of which one is killed after the first time."""
    logs, sockets = tmp_path / "log", tmp_path / "run"
    for directory in (logs, sockets):
        directory.mkdir(mode=0o755)
    user: tuple[str, ...] = ()
    if owner == "root":
        if os.geteuid() != 0:
            pytest.skip("needs root")
        user = ("--set", "process.user=nobody")
    elif os.geteuid() == 0:
        # As systemd's LogsDirectory=: the directory is not root's.
        os.chown(logs, 65534, 65534)
    program = tmp_path / "prefork"
    program.write_text(f'#!/bin/sh\nexec {find("python")} -m prefork "$@"\n')
    program.chmod(0o755)
    text = (DEPLOY / "logrotate" / "prefork").read_text()
    for old, new in (
        ("/var/log/prefork", str(logs)),
        ("/opt/prefork/bin/prefork", str(program)),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "rotate").write_text(text)
    (tmp_path / "rotate").chmod(0o644)
    environ = {"PYTHONPATH": str(ROOT), "PREFORK_RUN_DIR": str(sockets)}
    # In the order of the alphabet, in which the sockets are looked at, the dead one is first.
    dead, site = (
        start(
            "tests.apps.rights:app",
            *("--workers", "1", "--set", f"log.access={logs}/{name}.log"),
            *("--set", f"server.name={name}", *user),
            env=environ,
            default_control=True,
            wrapper=passable() if user else (),
        ).wait_ready(1)
        for name in ("dead", "site")
    )
    for number in (1, 2, 3):
        site.get(f"/before-{number}")
        # An empty file is not rotated, and the worker writes a moment after it has answered.
        until((logs / "site.log").read_text, "a line in the access log")
        run(
            "logrotate",
            *("-f", "-s", tmp_path / "state", tmp_path / "rotate"),
            environ=environ,
        )
        site.wait("log files reopened", number)
        assert f"/before-{number}" in unpacked(logs / "site.log.1.gz")
        if number == 1:
            dead.wait("log files reopened")
            dead.kill()
            assert (sockets / "dead.sock").exists()
    site.get("/after")
    until(lambda: "/after" in (logs / "site.log").read_text(), "a line in the new file")
    assert sorted(path.name for path in logs.glob("site.log*")) == [
        "site.log",
        "site.log.1.gz",
        "site.log.2.gz",
        "site.log.3.gz",
    ]
    assert "/before-1" in unpacked(logs / "site.log.3.gz")


def unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def test_systemd_takes_user_and_directories(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "group").write_text("root:x:0:\nadm:x:4:\n")
    run("systemd-sysusers", f"--root={root}", DEPLOY / "sysusers" / "prefork.conf")
    assert "\nprefork:x:" in "\n" + (root / "etc" / "passwd").read_text()
    if os.geteuid() == 0:
        run("systemd-tmpfiles", "--create", f"--root={root}", DEPLOY / "tmpfiles" / "prefork.conf")
        assert (root / "run" / "prefork").stat().st_mode & 0o777 == 0o755
        assert (root / "var" / "log" / "prefork").stat().st_mode & 0o777 == 0o750


def test_sysctl_names_what_the_kernel_has() -> None:
    """Each is there, but for what only the first network namespace has."""
    lines = (DEPLOY / "sysctl" / "60-prefork.conf").read_text().splitlines()
    settings = dict(line.split(" = ") for line in lines if line and not line.startswith("#"))
    assert len(settings) == 6
    for name in settings:
        assert Path("/proc/sys", *name.split(".")).exists(), name


def test_hadolint_takes_the_dockerfile() -> None:
    run("hadolint", DEPLOY / "container" / "Dockerfile")


def test_the_dockerfile_copies_what_there_is() -> None:
    text = (DEPLOY / "container" / "Dockerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, flags=re.MULTILINE):
        for source in sources.split():
            # The wheel is there after `make release`.
            assert source.startswith("dist/prefork-*") or (ROOT / source).exists(), source
    # `exec` form: no shell stands between the runtime's signals and the master.
    assert 'ENTRYPOINT ["prefork", "serve"]' in text
    assert re.search(r"^USER \d+$", text, flags=re.MULTILINE)


def test_compose_is_of_its_schema() -> None:
    run(
        "check-jsonschema",
        *("--builtin-schema", "vendor.compose-spec", DEPLOY / "container" / "compose.yaml"),
    )


def test_the_cluster_is_of_its_schemas() -> None:
    run("kubernetes-validate", "--strict", DEPLOY / "kubernetes" / "site.yaml")


def cluster() -> dict[str, Any]:
    text = (DEPLOY / "kubernetes" / "site.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def loaded(text: str, place: Path) -> Config:
    """A configuration as it is in an image, where the checkout's examples are in /srv/site."""
    (place / "site.toml").write_text(text)
    here = Override("server", "chdir", str(ROOT), "--set")
    return load(Source(str(place / "site.toml"), (here,)), {}).config


def test_the_times_in_the_cluster_agree(tmp_path: Path) -> None:
    found = cluster()
    config = loaded(found["ConfigMap"]["data"]["site.toml"], tmp_path)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    workers = config.workers
    assert workers.graceful_timeout
    assert workers.drain_delay
    ends = pause + workers.drain_delay + workers.graceful_timeout
    assert pod["terminationGracePeriodSeconds"] > ends
    ready = container["readinessProbe"]
    assert ready["httpGet"]["path"] == config.http.health_path
    assert workers.drain_delay > ready["periodSeconds"] * ready["failureThreshold"]
    assert config.server.bind == (f"0.0.0.0:{container['ports'][0]['containerPort']}",)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert (
        found["PodDisruptionBudget"]["spec"]["minAvailable"]
        < found["Deployment"]["spec"]["replicas"]
    )


def test_the_times_in_the_container_agree(tmp_path: Path) -> None:
    text = (DEPLOY / "container" / "site.toml").read_text()
    config = loaded(text, tmp_path)
    compose = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())
    grace = int(compose["services"]["app"]["stop_grace_period"].removesuffix("s"))
    assert grace > config.workers.drain_delay + config.workers.graceful_timeout
    nginx = (DEPLOY / "container" / "nginx.conf").read_text()
    assert config.http.keepalive > seconds(nginx, "keepalive_timeout")
    assert seconds(nginx, "proxy_read_timeout") > config.workers.request_timeout


@pytest.mark.parametrize("name", ["prefork.conf", "tcp.conf"])
def test_the_times_of_nginx_agree_with_ours(name: str) -> None:
    text = (DEPLOY / "nginx" / name).read_text()
    ours = in_comments(text)
    assert ours["http"]["keepalive"] > seconds(text, "keepalive_timeout")
    assert seconds(text, "proxy_read_timeout") > Config().workers.request_timeout
    assert set(ours["http"]["trusted_headers"]) <= {*FORWARDING_HEADERS}


ENDING_AT_A_PROXY = {*FORWARDING_HEADERS, "X-Real-IP", "X-Request-ID", "X-Request-Start"}
"""Headers that no client may send through a proxy."""


@pytest.mark.parametrize("name", ["nginx/prefork.conf", "nginx/tcp.conf", "container/nginx.conf"])
def test_nginx_sets_or_removes_what_a_client_could_forge(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert headers_set_by_nginx(text) >= ENDING_AT_A_PROXY
    # One in a location would replace all that are inherited.
    assert not re.search(r"^ +location [^}]*proxy_set_header", text, re.MULTILINE)


def test_haproxy_sets_or_removes_what_a_client_could_forge() -> None:
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    found = re.findall(r"^ +http-request (?:set|del)-header (\S+)", text, flags=re.MULTILINE)
    assert {*found} >= ENDING_AT_A_PROXY


def test_the_times_of_haproxy_agree_with_ours() -> None:
    text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    ours = in_comments(text)
    # prefork closes what is idle, so nothing that cannot be repeated may be sent there first.
    assert "http-reuse safe" in text
    assert ours["http"]["keepalive"] < Config().workers.graceful_timeout
    assert seconds(text, "timeout server") > Config().workers.request_timeout
    checks = seconds(text, "check inter") * int(re.findall(r"\bfall (\d+)", text)[0])
    assert ours["workers"]["drain_delay"] > checks


def seconds(text: str, name: str) -> int:
    (found,) = set(re.findall(rf"^[^#\n]*\b{name} (\d+)s\b", text, flags=re.MULTILINE))
    return int(found)


def in_comments(text: str) -> dict[str, Any]:
    """The TOML for our side that a proxy's file has in its first comment."""
    lines = re.findall(r"^#   (\S.*)$", text, flags=re.MULTILINE)
    found = tomllib.loads("\n".join(lines))
    found["server"].pop("unix_owner", None)  # this machine need not have nginx's group
    overrides = (
        Override(section, key, value, "--set")
        for section, table in found.items()
        for key, value in table.items()
    )
    load(Source("a:b", tuple(overrides)), {})
    return found


def headers_set_by_nginx(text: str) -> set[str]:
    return set(re.findall(r"^ +proxy_set_header (\S+) ", text, flags=re.MULTILINE))
