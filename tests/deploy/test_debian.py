"""The Debian package: its maintainer scripts, and its life in an empty Debian (`make test-deb`)."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork import __version__
from tests.support.commands import ROOT
from tests.support.empty_debian import EmptyDebian, empty_debian, release
from tests.support.programs import find, run
from tests.support.waiting import until
from tools import debian

SCRIPTS = ("postinst", "prerm", "postrm")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_maintainer_script_is_a_script_that_stops_at_an_error(name: str) -> None:
    script = ROOT / "deploy" / "debian" / name
    run(find("sh"), "-n", script)
    assert script.read_text().startswith("#!/bin/sh\nset -e\n")


def test_each_file_of_the_package_exists() -> None:
    for source, to in debian.INSTALLED:
        assert (ROOT / source).is_file(), source
        assert not to.startswith("/")
    conffiles = (ROOT / "deploy" / "debian" / "conffiles").read_text().split()
    installed = {f"/{to}" for _, to in debian.INSTALLED} | {"/etc/prefork/example.toml"}
    assert {name for name in installed if name.startswith("/etc/")} == set(conffiles)


def test_the_copyright_is_that_of_the_licence() -> None:
    text = debian._copyright()
    assert "\nLicense: MIT\n Permission is hereby granted" in text
    assert "\nCopyright: 2026 " in text


def install(machine: EmptyDebian, package: Path) -> str:
    shutil.copy(package, machine.root / "tmp")
    return machine.run("dpkg", "-i", f"/tmp/{package.name}")


def has(machine: EmptyDebian, path: str) -> bool:
    return os.path.lexists(machine.root / path.lstrip("/"))


@pytest.fixture(scope="module")
def packages() -> tuple[Path, Path]:
    """The package, and its next revision."""
    if not debian.PYTHON.exists() or shutil.which("dpkg-deb") is None:
        pytest.skip("this is no Debian")
    return debian.build(1), debian.build(2)


@pytest.fixture(scope="module")
def machine() -> Iterator[EmptyDebian]:
    """The same Debian as this one, with what the package depends on."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a chroot")
    with tempfile.TemporaryDirectory(prefix="debian") as place:
        packages = ("python3", "systemd", "man-db", "logrotate")
        with empty_debian(Path(place) / "root", release(), packages) as made:
            yield made


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_lintian_finds_nothing(packages: tuple[Path, Path]) -> None:
    # It takes 15 s of a processor.
    options = ("--allow-root", "--tag-display-limit", "0")
    done = run(find("lintian"), *options, packages[0], patience=600)
    assert done.stdout == ""


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_it_is_installed_upgraded_removed_and_purged(
    packages: tuple[Path, Path], machine: EmptyDebian
) -> None:
    install(machine, packages[0])
    assert machine.run("prefork", "--version").startswith(f"prefork {__version__}\n")
    assert "prefork:x:" in machine.run("getent", "passwd", "prefork")
    assert machine.run("stat", "-c", "%U %G %a", "/run/prefork") == "prefork prefork 755\n"
    assert machine.run("stat", "-c", "%U %G %a", "/var/log/prefork") == "prefork adm 750\n"
    assert "prefork.1" in machine.run("man", "-w", "prefork")
    assert "prefork.toml.5" in machine.run("man", "-w", "prefork.toml")
    machine.run("systemd-analyze", "verify", "/usr/lib/systemd/system/prefork@.service")
    machine.run("logrotate", "--debug", "/etc/logrotate.d/prefork")
    machine.run("dpkg", "--verify", "prefork")
    assert "workers.threads" in machine.run("prefork", "explain", "workers.threads")

    # A site as the unit runs it: as the user prefork, with its control socket in /run/prefork.
    (machine.root / "srv" / "index.html").write_text("hello")
    site = machine.root / "etc" / "prefork" / "site.toml"
    site.write_text(
        '[server]\nbind = "unix:/run/prefork/http"\n[static]\nroot = "/srv"\n'
        "[workers]\ncount = 1\n[process]\ndaemon = true\n"
        '[log]\nerror = "/var/log/prefork/site.log"\n'
    )
    machine.run("prefork", "check", "/etc/prefork/site.toml")
    as_user = ("setpriv", "--reuid=prefork", "--regid=prefork", "--clear-groups")
    machine.run(*as_user, "prefork", "serve", "/etc/prefork/site.toml")
    url = "http+unix://%2Frun%2Fprefork%2Fhttp/"
    try:
        assert machine.run("prefork", "get", url) == "hello"
        master = machine.run("prefork", "status", "site").split("pid ")[1].split(",")[0]
        with site.open("a") as file:
            file.write("# a comment of the administrator\n")
        example = machine.root / "etc" / "prefork" / "example.toml"
        example.write_text(f"{example.read_text()}\n# mine\n")

        out = install(machine, packages[1])
        assert "restart this server" not in out, out
        status = machine.run("prefork", "status", "site")
        assert f"pid {master}," in status
        assert "generation 2," in status
        assert machine.run("prefork", "get", url) == "hello"
        assert example.read_text().endswith("# mine\n")
        assert machine.run("dpkg-query", "-W", "-f", "${Version}", "prefork").endswith("-2")
    finally:
        machine.run("prefork", "stop", "site")
    until(lambda: not has(machine, f"/proc/{master}"), "the server is gone")

    machine.run("dpkg", "-r", "prefork")
    assert not has(machine, "/usr/bin/prefork")
    assert not has(machine, "/usr/lib/prefork")
    assert has(machine, "/etc/prefork/example.toml")
    assert has(machine, "/var/log/prefork/site.log")

    machine.run("dpkg", "-P", "prefork")
    assert not has(machine, "/etc/prefork/example.toml")
    assert not has(machine, "/etc/logrotate.d/prefork")
    assert not has(machine, "/var/log/prefork")
    assert site.exists()  # not ours
    assert not machine.run("sh", "-c", "dpkg -L prefork 2>/dev/null", check=False)
