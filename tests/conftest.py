"""Settings of all tests."""

import compileall
import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def bytecode_kept() -> Iterator[None]:
    """Keeps what pytest compiles, also if the environment forbids bytecode.

    For its `assert`, pytest compiles the modules of tests and of plugins for itself: seconds, in
    each of its processes."""
    forbidden, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        yield
    finally:
        sys.dont_write_bytecode = forbidden


with bytecode_kept():
    from hypothesis import HealthCheck, settings

# No timing in an assertion: the machine may be busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

ROOT = Path(__file__).resolve().parents[1]

# Users do not have it, and it hides output that is lost or shown twice.
os.environ.pop("PYTHONUNBUFFERED", None)

# A shell lets what it runs in the background ignore them (POSIX, Shell Command Language, 2.11), and
# servers would inherit that.
for number, action in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, action)


def pytest_configure(config: pytest.Config) -> None:
    """Compiles the server once.

    If the environment forbids bytecode, each of the thousand servers that the tests start would
    compile it, which takes half of the time of a start."""
    if not hasattr(config, "workerinput"):
        for part in ("prefork", "tests/apps"):
            compileall.compile_dir(ROOT / part, quiet=2)  # the compiled build has no sources


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Nothing of the thousands of tests is garbage, and no later collection has to look at it."""
    gc.disable()
    try:
        with bytecode_kept():
            if hasattr(session.config, "workerinput"):
                _import_share(session.config)
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_share(config: pytest.Config) -> None:
    """Imports every n-th file of tests first, if there are n workers.

    They all collect the same files in the same order. So that not each of them compiles each file,
    each begins with others, and finds later what its siblings have compiled."""
    worker = config.workerinput  # type: ignore[attr-defined]
    places = [config.invocation_params.dir / place.partition("::")[0] for place in config.args]
    files = {file for place in places for file in [place, *place.rglob("test_*.py")]}
    tests = sorted(file for file in files if file.suffix == ".py" and file.is_relative_to(ROOT))
    for file in tests[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        # What cannot be imported is reported when it is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one: all that tests need has to be installed there.

    But for one that does not apply, to a kind of application or to this release of Python, or whose
    library cannot be installed beside the others.
    """
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if "Skipped: does not apply: " not in str(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}"
    return report
