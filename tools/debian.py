"""`make deb`: a Debian package in dist/, by dpkg-deb, for the Debian of this machine.

The package brings its libraries in an environment of its own, /usr/lib/prefork, as dh-virtualenv
makes it, and does not depend on python3-click and the like: Debian 12 has no msgspec, and the
versions are those that the release was tested with. The price is that it is for one version of
Python, the one of /usr/bin/python3. The environment sees the system's packages, so that an
application may be one of Debian's.
"""

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from prefork import __version__
from prefork.config import reference
from tools.release import DIST, ReleaseError, run
from tools.site_documents import ROOT, source_url

PYTHON = Path("/usr/bin/python3")
FILES = ROOT / "deploy" / "debian"
HOME = "usr/lib/prefork"
"""The environment, relative to the root of the machine."""

ENTRY = """\
#!/{home}/bin/python
import sys

from prefork.cli import main

sys.exit(main())
"""

INSTALLED = (
    ("deploy/systemd/prefork@.service", "usr/lib/systemd/system/prefork@.service"),
    ("deploy/systemd/prefork@.socket", "usr/lib/systemd/system/prefork@.socket"),
    ("deploy/sysusers/prefork.conf", "usr/lib/sysusers.d/prefork.conf"),
    ("deploy/tmpfiles/prefork.conf", "usr/lib/tmpfiles.d/prefork.conf"),
    ("deploy/logrotate/prefork", "etc/logrotate.d/prefork"),
    ("share/bash-completion/completions/prefork", "usr/share/bash-completion/completions/prefork"),
    ("share/zsh/site-functions/_prefork", "usr/share/zsh/vendor-completions/_prefork"),
    (
        "share/fish/vendor_completions.d/prefork.fish",
        "usr/share/fish/vendor_completions.d/prefork.fish",
    ),
    ("deploy/sysctl/60-prefork.conf", "usr/share/doc/prefork/examples/60-prefork.conf"),
    ("deploy/nginx/prefork.conf", "usr/share/doc/prefork/examples/nginx.conf"),
    ("deploy/debian/README.Debian", "usr/share/doc/prefork/README.Debian"),
    ("deploy/debian/lintian-overrides", "usr/share/lintian/overrides/prefork"),
)
"""Files of the repository, and where they go. /opt/prefork in them becomes this package's path."""

PAGES = (("share/man/man1/prefork.1", "man1"), ("share/man/man5/prefork.toml.5", "man5"))


def build(revision: int = 1) -> Path:
    """The package, in dist/. Raises ReleaseError with the output of what failed."""
    DIST.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        stage = Path(temporary) / "prefork"
        python = _environment(stage)
        _files(stage, f"{__version__}-{revision}")
        architecture = run("dpkg", "--print-architecture").strip()
        _control(stage, f"{__version__}-{revision}", architecture, python)
        package = DIST / f"prefork_{__version__}-{revision}_{architecture}.deb"
        run("dpkg-deb", "--build", "--root-owner-group", "-Zxz", stage, package)
    return package


def _environment(stage: Path) -> tuple[int, int]:
    """The environment with prefork, for the paths of the machine; returns the version of Python."""
    home = stage / HOME
    run(PYTHON, "-m", "venv", "--without-pip", "--system-site-packages", home)
    pip = (
        *(sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet"),
        *("--ignore-installed", "--no-compile", "--disable-pip-version-check"),
    )
    run(*pip, "--require-hashes", "-r", ROOT / "requirements" / "serve.txt")
    with tempfile.TemporaryDirectory() as wheels:
        run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", wheels)
        run(*pip, "--no-deps", *Path(wheels).iterdir())

    shutil.rmtree(home / "share")  # installed below usr/share
    for unneeded in (*home.glob("bin/[Aa]ctivate*"), *home.glob("bin/*.exe")):
        unneeded.unlink()
    (site,) = home.glob("lib/python3.*/site-packages")
    for unneeded in (
        *site.glob("setuptools*"),
        *site.glob("pkg_resources"),
        *site.glob("_distutils*"),
    ):
        shutil.rmtree(unneeded) if unneeded.is_dir() else unneeded.unlink()
    for unneeded in (
        *site.glob("*.dist-info/direct_url.json"),
        *site.glob("distutils-precedence.pth"),
    ):
        unneeded.unlink()
    python3 = home / "bin" / "python3"
    python3.unlink()
    python3.symlink_to("../../../bin/python3")
    # What was written with the path of the stage.
    (home / "bin" / "prefork").write_text(ENTRY.format(home=HOME))
    config = home / "pyvenv.cfg"
    config.write_text(re.sub(r"^command = .*\n", "", config.read_text(), flags=re.MULTILINE))
    # By hash, never checked: root alone changes these files, with the package.
    run(
        *(PYTHON, "-m", "compileall", "-q", "-s", stage, "-p", "/"),
        *("--invalidation-mode", "unchecked-hash", site),
    )
    major, minor = site.parent.name.removeprefix("python").split(".")
    return int(major), int(minor)


def _files(stage: Path, version: str) -> None:
    for source, to in INSTALLED:
        text = (ROOT / source).read_text(encoding="utf-8")
        _write(stage / to, text.replace("/opt/prefork/bin/", "/usr/bin/"))
    for source, section in PAGES:
        name = Path(source).name
        _compressed(
            stage / "usr/share/man" / section / f"{name}.gz",
            (ROOT / source).read_text(encoding="utf-8"),
        )
    _write(stage / "etc/prefork/example.toml", reference.starter("example.toml"))
    documents = stage / "usr/share/doc/prefork"
    _write(documents / "copyright", _copyright())
    _compressed(documents / "changelog.gz", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    when = format_datetime(datetime.fromtimestamp(_epoch(), UTC))
    _compressed(
        documents / "changelog.Debian.gz",
        f"prefork ({version}) unstable; urgency=medium\n\n"
        f"  * prefork {__version__}; see changelog.gz.\n\n"
        f" -- prefork maintainers <maintainers@prefork.invalid>  {when}\n",
    )
    (stage / "usr/bin").mkdir()
    (stage / "usr/bin/prefork").symlink_to("../lib/prefork/bin/prefork")


def _copyright() -> str:
    """The licence, in the format that Debian's tools read."""
    title, _, text = (ROOT / "LICENSE").read_text(encoding="utf-8").partition("\n")
    paragraphs = [line.strip() or "." for line in text.strip().splitlines()]
    holder = next(line for line in paragraphs if line.startswith("Copyright"))
    body = "\n ".join(paragraphs[paragraphs.index(holder) + 2 :])
    return (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        f"Upstream-Name: prefork\nSource: {source_url()}\n\n"
        f"Files: *\nCopyright: {holder.removeprefix('Copyright').lstrip(' (c)')}\n"
        f"License: {title.split()[0]}\n {body}\n"
    )


def _control(stage: Path, version: str, architecture: str, python: tuple[int, int]) -> None:
    size = sum(path.lstat().st_size for path in stage.rglob("*")) // 1024
    control = stage / "DEBIAN"
    control.mkdir()
    text = (FILES / "control").read_text(encoding="utf-8")
    _write(
        control / "control",
        text.format(
            version=version,
            architecture=architecture,
            size=size,
            homepage=source_url(),
            python=f"{python[0]}.{python[1]}",
            next_python=f"{python[0]}.{python[1] + 1}",
        ),
    )
    shutil.copyfile(FILES / "conffiles", control / "conffiles")
    for script in ("postinst", "prerm", "postrm"):
        shutil.copyfile(FILES / script, control / script)
    sums = "".join(
        f"{run('md5sum', path).split()[0]}  {path.relative_to(stage)}\n"
        for path in sorted(stage.rglob("*"))
        if path.is_file() and not path.is_symlink() and control not in path.parents
    )
    _write(control / "md5sums", sums)
    for path in stage.rglob("*"):
        if not path.is_symlink():
            is_program = path.parent.name == "bin" or path.name in ("postinst", "prerm", "postrm")
            path.chmod(0o755 if path.is_dir() or is_program else 0o644)
    stage.chmod(0o755)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _compressed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def _epoch() -> int:
    """The time of the package: SOURCE_DATE_EPOCH, as dpkg-deb takes it, or that of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct")
    return int(given)


def main() -> None:
    """Prints the path of the package; exits with 1 and the reason if there is none."""
    parser = argparse.ArgumentParser(prog="make deb", description=__doc__)
    parser.add_argument("--revision", type=int, default=1, help="of the package; by default 1")
    try:
        print(build(parser.parse_args().revision))
    except (ReleaseError, subprocess.SubprocessError, OSError) as error:
        sys.exit(f"no package: {error}")


if __name__ == "__main__":
    main()
