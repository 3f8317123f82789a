"""Settings of all tests."""

import compileall
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No timing in an assertion: the machine may be busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Compiles the server once.

    If the environment forbids bytecode, each of the thousand servers that the tests start would
    compile it, which takes half of the time of a start."""
    if not hasattr(config, "workerinput"):
        for part in ("prefork", "tests/apps"):
            compileall.compile_dir(ROOT / part, quiet=1)


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
