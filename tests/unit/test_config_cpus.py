"""How many CPUs a control group leaves, on a tree of files that only looks like the kernel's."""

import os
from pathlib import Path

import pytest

from prefork.config.cpus import available


def tree(root: Path, groups: str, **files: str) -> Path:
    """Files below /sys/fs/cgroup, their names with "__" for "/" and "_dot_" for "."."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert available(tmp_path, 6) == 6
    assert available(tree(tmp_path, "0::/\n", cpu_dot_max="max 100000\n"), 6) == 6


def test_the_affinity_is_our_own_by_default(tmp_path: Path) -> None:
    assert available(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("1000 100000", 1)],
)
def test_a_quota_of_version_2_is_rounded_up(tmp_path: Path, quota: str, cpus: int) -> None:
    assert available(tree(tmp_path, "0::/a\n", a__cpu_dot_max=quota), 8) == cpus


def test_the_affinity_may_be_less_than_the_quota(tmp_path: Path) -> None:
    assert available(tree(tmp_path, "0::/a\n", a__cpu_dot_max="400000 100000"), 3) == 3


def test_the_least_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "cpu_dot_max": "700000 100000",
        "a__cpu_dot_max": "200000 100000",
        "a__b__cpu_dot_max": "max 100000",
        "a__b__c__cpu_dot_max": "500000 100000",
    }
    assert available(tree(tmp_path, "0::/a/b/c\n", **files), 8) == 2


def test_a_container_sees_its_group_as_the_mount(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/docker/0123\n", cpu_dot_max="300000 100000")
    assert available(root, 8) == 3


def test_a_group_above_the_mount_is_not_looked_for_outside(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/../x\n", cpu_dot_max="300000 100000")
    (root / "sys/fs/x").mkdir()
    (root / "sys/fs/x/cpu.max").write_text("100000 100000")
    assert available(root, 8) == 3


def version_1(root: Path, quota: str) -> Path:
    groups = "5:memory:/a\n4:cpu,cpuacct:/a\n"
    (root / "sys/fs/cgroup/cpu,cpuacct/a").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us").write_text(quota)
    (root / "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us").write_text("50000\n")
    return tree(root, groups)


def test_a_quota_of_version_1(tmp_path: Path) -> None:
    assert available(version_1(tmp_path, "150000\n"), 8) == 3


def test_no_quota_of_version_1(tmp_path: Path) -> None:
    assert available(version_1(tmp_path, "-1\n"), 8) == 8


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "100000 0", "nan 1", "inf 1"])
def test_what_cannot_be_read_is_no_quota(tmp_path: Path, text: str) -> None:
    assert available(tree(tmp_path, "0::/\n", cpu_dot_max=text), 8) == 8


@pytest.mark.parametrize("text", ["", "nonsense\n", "0:\n"])
def test_an_unknown_list_of_groups_is_none(tmp_path: Path, text: str) -> None:
    assert available(tree(tmp_path, text, cpu_dot_max="100000 100000"), 8) == 8
