"""What /proc shows of a process, beside what psutil reads."""

import os
import time

import psutil
import pytest

from prefork import proc_files


def test_a_process_that_runs() -> None:
    own = psutil.Process()
    ticks = os.sysconf("SC_CLK_TCK")

    def cpu() -> int:
        """In ticks of the kernel: sums of seconds may differ in the last bit."""
        return round(sum(own.cpu_times()[:2]) * ticks)

    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    before = cpu()
    found = proc_files.stat(os.getpid())
    after = cpu()
    assert found.state == "R"
    assert 0 < before <= round(found.cpu * ticks) <= after
    # The kernel counts pages in batches.
    assert 0.5 < proc_files.resident_memory(os.getpid()) / own.memory_info().rss < 2
    assert 0.5 < proc_files.proportional_memory(os.getpid()) / own.memory_full_info().pss < 2


@pytest.mark.parametrize(
    "read", [proc_files.stat, proc_files.resident_memory, proc_files.proportional_memory]
)
def test_a_process_that_is_gone(read: object) -> None:
    assert callable(read)
    with pytest.raises(OSError, match="No such"):
        read(2**22 + 1)  # beyond the largest process id
