"""The CPU time of a request is linear in its bytes, and no byte is much dearer than others.

Instructions are counted (valgrind), not time: see tests/support/request_costs.py.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prefork.compiled import COMPILED
from tests.support.commands import ROOT
from tests.support.request_costs import BYTEWISE, CASES, inputs
from tests.support.waiting import PATIENCE

VALGRIND = shutil.which("valgrind")
ORDINARY = "ordinary requests, one after the other"

pytestmark = [
    pytest.mark.skipif(VALGRIND is None, reason="needs valgrind"),
    pytest.mark.skipif(COMPILED, reason="does not apply: the bounds compare parts of pure Python"),
    pytest.mark.timeout(PATIENCE * 10),  # of the first test, which measures
]

Costs = dict[str, dict[int, float]]
"""Instructions for each byte, by the input's name and size."""


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> Costs:
    place = tmp_path_factory.mktemp("costs")
    command = [
        *(str(VALGRIND), "-q", "--tool=callgrind", "--dump-before=getppid"),
        *(f"--callgrind-out-file={place}/costs", sys.executable),
        *("-m", "tests.support.request_costs"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE * 9
    )
    assert done.returncode == 0, done.stderr
    found: Costs = {}
    # The first part is the start of Python.
    for number, (name, size, _) in enumerate(inputs(), 2):
        counted = _counted(place / f"costs.{number}")
        found.setdefault(name, {})[size] = counted / size
    for name, cost in found.items():
        print(" ".join(f"{each:8.0f}" for each in cost.values()), name)
    return found


def _counted(part: Path) -> int:
    (count,) = re.findall(r"^summary: (\d+)", part.read_text(), re.MULTILINE)
    return int(count)


@pytest.mark.parametrize("name", [*CASES, *BYTEWISE])
def test_four_times_the_bytes_take_four_times_as_long(costs: Costs, name: str) -> None:
    (small, little), (large, much) = costs[name].items()
    # Of what is beyond the small input. If the cost were quadratic, this would be five times.
    marginal = (much * large - little * small) / (large - small)
    assert marginal < max(1.6 * little, min(costs[ORDINARY].values()))


@pytest.mark.parametrize("name", CASES)
def test_no_byte_is_much_dearer_than_one_of_an_ordinary_request(costs: Costs, name: str) -> None:
    assert max(costs[name].values()) < 10 * max(costs[ORDINARY].values())


@pytest.mark.parametrize("name", BYTEWISE)
def test_a_packet_of_one_byte_costs_less_than_an_ordinary_request(costs: Costs, name: str) -> None:
    request = 360  # bytes
    assert max(costs[name].values()) < request * max(costs[ORDINARY].values())
