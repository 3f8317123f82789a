"""[process] limits and cpu_affinity, and shares of the memory."""

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from prefork.config import memory
from prefork.config.schema import KEYS
from prefork.config.values import Invalid, read, show
from tests.support.config_site import APP, Write, loaded, problems, site_in

site = pytest.fixture(site_in)


def taken(name: str, raw: Any) -> Any:
    return read(KEYS[name].kind, KEYS[name].hint, raw, "/base")


def refused(name: str, raw: Any) -> str:
    with pytest.raises(Invalid) as caught:
        taken(name, raw)
    return "; ".join(caught.value.reasons)


def test_limits() -> None:
    value = taken("process.limits", {"nofile": 1024, "core": "unlimited", "cpu": 0})
    assert value == {"nofile": 1024, "core": resource.RLIM_INFINITY, "cpu": 0}
    assert show(KEYS["process.limits"].kind, value) == (
        '{ "nofile" = 1024, "core" = "unlimited", "cpu" = 0 }'
    )


def test_limits_name_every_problem() -> None:
    text = refused("process.limits", {"nofiles": 1, "core": -1, "cpu": True, "as": 2**63})
    assert 'unknown limit "nofiles"; did you mean nofile?' in text
    for name in ("core", "cpu", "as"):
        assert f'{name}: expected an integer of at least 0 or "unlimited"' in text
    assert refused("process.limits", 3).startswith("expected a table such as")


@pytest.mark.parametrize(
    ("raw", "sets"),
    [
        ([], ()),
        ([0, 1], ((0,), (1,))),
        (["0-3,8", "5"], ((0, 1, 2, 3, 8), (5,))),
        (["1, 0", "0-0"], ((0, 1), (0,))),
    ],
)
def test_cpus(raw: object, sets: object) -> None:
    assert taken("process.cpu_affinity", raw) == sets


def test_auto_is_each_cpu_that_may_be_used() -> None:
    expected = tuple((cpu,) for cpu in sorted(os.sched_getaffinity(0)))
    assert taken("process.cpu_affinity", "auto") == expected
    shown = show(KEYS["process.cpu_affinity"].kind, ((0, 1), (2,)))
    assert shown == '["0,1", 2]'


@pytest.mark.parametrize("raw", [["x"], [-1], ["3-1"], ["1-"], [""], [True], [1.0], ["0--1"]])
def test_not_cpus(raw: object) -> None:
    assert refused("process.cpu_affinity", raw)
    assert refused("process.cpu_affinity", "all").startswith("expected a list of CPUs")


def test_a_cpu_that_cannot_be_used_is_a_problem(site: Write) -> None:
    (line,) = problems(site(APP + "[process]\ncpu_affinity = [0, 9999]\n"))
    assert "process.cpu_affinity: this process may not use CPU 9999; it may use" in line


def test_a_pidfile_needs_its_directory(site: Write) -> None:
    (line,) = problems(site(APP + '[process]\npidfile = "no/x.pid"\n'))
    assert line.endswith('/no": no such directory')


def test_a_daemon_says_nothing_to_a_terminal(site: Write) -> None:
    text = APP + '[log]\naccess = "stdout"\n[process]\ndaemon = true\n'
    assert problems(site(text)) == [
        'site.toml: log.error: a daemon has no stderr; set it to a file, or to "syslog"',
        'site.toml: log.access: a daemon has no stdout; set it to a file, or to "syslog"',
    ]
    assert loaded(site(APP + '[log]\nerror = "syslog"\n[process]\ndaemon = true\n'))


def test_a_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)
    assert taken("workers.max_memory", "25%") == 250
    assert taken("workers.max_memory", "64KiB") == 65536
    for raw in ("0%", "101%"):
        assert refused("workers.max_memory", raw).startswith("expected a share from 1% to 100%")
    for raw in ("-5%", "%", "5.5%"):
        assert 'or a share such as "25%"' in refused("workers.max_memory", raw)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_memory_of_a_group_of_version_2(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path, "sys/fs/cgroup/a/b/memory.max", "max\n")
    assert memory.available(tmp_path, machine=900) == 900
    write(tmp_path, "sys/fs/cgroup/a/memory.max", "500\n")
    assert memory.available(tmp_path, machine=900) == 500
    write(tmp_path, "sys/fs/cgroup/a/b/memory.max", "400\n")
    assert memory.available(tmp_path, machine=900) == 400


def test_the_memory_of_a_group_of_version_1(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "9:memory:/docker/x\n8:cpu:/docker/x\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory.available(tmp_path, machine=900) == 900
    write(tmp_path, "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "300\n")
    assert memory.available(tmp_path, machine=900) == 300


def test_without_a_group_there_is_the_machine(tmp_path: Path) -> None:
    assert memory.available(tmp_path, machine=900) == 900
    assert memory.available() > 0
