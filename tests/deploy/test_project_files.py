"""The files for those who carry on: workflows, templates, hooks of git, targets of make."""

import re
import runpy
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

from prefork import __version__
from tests.support.commands import ROOT
from tests.support.programs import run

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_is_valid_and_may_only_read(file: Path) -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", file)
    assert yaml.safe_load(file.read_text())["permissions"] == {"contents": "read"}


def test_each_target_and_session_of_a_workflow_exists() -> None:
    texts = "".join(file.read_text() for file in WORKFLOWS)
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"make ([a-z-]+)", texts)
    assert {"test", "release"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    test = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    sessions = test["jobs"]["versions"]["strategy"]["matrix"]["session"]
    found = runpy.run_path(str(ROOT / "noxfile.py"))
    for session in sessions:
        assert session.partition("-")[0] in found


@pytest.mark.parametrize("selected", ["", "3.11.7"])
def test_nox_finds_each_interpreter_of_pyenv(tmp_path: Path, selected: str) -> None:
    for version in ("3.11.7", "3.12.1", "3.14.0t"):
        (tmp_path / "versions" / version).mkdir(parents=True)
    # In a process of its own: nox registers a session once.
    program = "import os, noxfile; print(os.environ['PYENV_VERSION'])"
    environ = {"PYENV_ROOT": str(tmp_path), "PYENV_VERSION": selected, "PYTHONPATH": str(ROOT)}
    told = run(sys.executable, "-c", program, environ=environ).stdout
    assert told.strip() == (selected or "3.11.7:3.12.1:3.14.0t")


def test_only_the_upload_may_ask_for_an_identity() -> None:
    """Trusted publishing: an identity token in place of a password, and attestations."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert "permissions" not in jobs["build"]
    assert jobs["publish"]["permissions"] == {"id-token": "write", "attestations": "write"}
    assert jobs["publish"]["environment"] == "release"
    upload = jobs["publish"]["steps"][-1]
    assert upload["uses"].startswith("pypa/gh-action-pypi-publish@")
    assert upload["with"] == {"attestations": True}


def test_what_is_uploaded_has_compiled_wheels_each_of_which_has_served() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert jobs["publish"]["needs"] == ["build", "compiled"]
    names = [
        step["with"]["name"]
        for job in ("build", "compiled")
        for step in jobs[job]["steps"]
        if step.get("uses", "").startswith("actions/upload-artifact@")
    ]
    download = jobs["publish"]["steps"][0]["with"]
    assert all(name.startswith(download["pattern"].removesuffix("*")) for name in names)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    assert settings["environment"] == {"PREFORK_COMPILE": "1"}
    program, option = settings["test-command"].removeprefix("python -P {project}/").split()
    assert option in run(sys.executable, "-P", ROOT / program, "--help").stdout


def test_each_python_of_the_classifiers_has_compiled_wheels() -> None:
    """For glibc and musl (`*`), not for free-threaded CPython (cp314t), on both processors."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = "\n".join(settings["project"]["classifiers"])
    minors = re.findall(r"^Programming Language :: Python :: 3\.(\d+)$", lines, re.MULTILINE)
    wheels = settings["tool"]["cibuildwheel"]
    assert wheels["build"] == [f"cp3{minor}-*" for minor in minors]
    assert wheels["linux"] == {"archs": ["native"]}
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    runners = jobs["compiled"]["strategy"]["matrix"]["runner"]
    assert runners == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert re.search(r"'pypa/cibuildwheel@v\d+\.\d+\.\d+'", str(jobs["compiled"]["steps"]))
    for page in ("README.md", "docs/performance.md", "docs/versions.md"):
        told = (ROOT / page).read_text(encoding="utf-8")
        assert f"CPython 3.{minors[0]} to 3.{minors[-1]} on x86_64 and aarch64" in told


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml", "config.yml"])
def test_a_template_of_issues_is_valid(name: str) -> None:
    schema = "issue-config" if name == "config.yml" else "issue-forms"
    file = ROOT / ".github" / "ISSUE_TEMPLATE" / name
    if schema not in run("check-jsonschema", "--help").stdout:
        pytest.skip("does not apply: a check-jsonschema before 0.34 has no such schema")
    run("check-jsonschema", "--builtin-schema", f"vendor.github-{schema}", file)


def test_the_compiler_is_there_before_a_package_is_built(tmp_path: Path) -> None:
    """On an empty machine; the target is one whose recipe calls no make, which -n would run."""
    fresh = f"VENV={tmp_path / 'venv'}"
    lines = run("make", "-n", "-C", ROOT, "test-newest", fresh).stdout
    assert 0 < lines.index("install-system-packages.sh") < lines.index("requirements/compiled.txt")


def test_tests_in_the_background_of_a_shell_ignore_no_signal() -> None:
    """As with `make test &`: what they start would inherit that, and not end at ^C."""
    script = (
        "import signal; both = signal.SIGINT, signal.SIGQUIT\n"
        "for number in both: signal.signal(number, signal.SIG_IGN)\n"
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.conftest\n"
        "print(*(signal.getsignal(number) is signal.SIG_IGN for number in both))"
    )
    assert run(sys.executable, "-c", script).stdout == "False False\n"


def test_help_lists_each_target_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    done = run("make", "--no-print-directory", "-C", ROOT, "help")
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == sorted(phony[1].split())


@pytest.mark.parametrize(
    ("message", "good"),
    [
        ("Refuse a port above 65535\n\nThe kernel would wrap it.\n", True),
        ("Refuse a port above 65535\n", True),
        ("Refuse a port above 65535\nThe kernel would wrap it.\n", False),
        ("x" * 71 + "\n", True),
        ("x" * 72 + "\n", False),
    ],
)
def test_the_hook_for_messages_wants_a_short_subject(message: str, good: bool) -> None:
    """pygrep with --negate --multiline: a message that the pattern does not match is refused."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (hook,) = [hook for hook in config["repos"][0]["hooks"] if hook["id"] == "subject"]
    assert hook["args"] == ["--multiline", "--negate"]
    assert bool(re.search(hook["entry"], message, re.MULTILINE)) == good


def test_the_changelog_has_a_section_for_each_version() -> None:
    """What is not released yet, then each version with its day, newest first."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    if titles[0] == "Unreleased":
        del titles[0]
    found = [re.fullmatch(r"(\d+\.\d+\.\d+) \((.+)\)", title) for title in titles]
    sections = [(each[1], date.fromisoformat(each[2])) for each in found if each]
    assert len(sections) == len(titles), titles
    assert sections[0][0] == __version__
    assert [day for _, day in sections] == sorted((day for _, day in sections), reverse=True)
    numbers = [tuple(map(int, version.split("."))) for version, _ in sections]
    assert numbers == sorted(set(numbers), reverse=True)


def test_the_package_names_its_addresses() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert set(urls) == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert all(url.startswith("https://") for url in urls.values())
    assert urls["Issues"] == f"{urls['Source']}/issues"
    assert urls["Changelog"] == f"{urls['Source']}/blob/main/CHANGELOG.md"
