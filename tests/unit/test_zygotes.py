"""The master's side of zygotes: real channels, and processes that are only made up."""

import os
import random
import selectors
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from prefork import logs
from prefork.channel import (
    BornReport,
    Channel,
    FailedReport,
    ForkOrder,
    InboxStuckReport,
    LeavingReport,
    Order,
    ReadyReport,
    ReopenOrder,
)
from prefork.config import Log, Override, Source, load
from prefork.listeners import Listener
from prefork.master.pool.plan import Abandoned, Plan, SpawnAction, Stopped, Worker
from prefork.master.pool.pool import Pool
from prefork.master.pool.roster import PROBATION
from prefork.master.processes.children import Child, Children
from prefork.master.processes.generation import Generation
from prefork.master.processes.zygotes import Zygotes
from prefork.scoreboard import Scoreboard
from prefork.worker.boot.zygote import ZygoteArgs

FIRST = 100_000_001  # beyond any process id that Linux gives (PID_MAX_LIMIT is 2**22)
WORKER = 200_000_001


class Processes:
    """What `Zygotes` does to processes: forks that make none, and signals that go nowhere."""

    def __init__(self) -> None:
        self.pids = count(FIRST)
        self.problem: OSError | None = None
        self.ends: dict[int, Channel] = {}
        """The zygotes' ends of their channels, by process id."""
        self.conceived: list[ZygoteArgs] = []
        self.killed: list[int] = []

    def fork(self, life: Callable[[], Any]) -> int:
        if self.problem:
            raise self.problem
        pid = next(self.pids)
        life()
        self.ends[pid] = Channel.from_fd(os.dup(self.conceived[-1].channel.fileno()))
        return pid

    def kill(self, pid: int, number: int) -> None:
        assert number == signal.SIGKILL
        self.killed.append(pid)


class Master:
    """Zygotes and children, in a loop that turns when it is told to."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.selector = selectors.DefaultSelector()
        self.born: list[tuple[int, int]] = []
        self.heard: list[tuple[int, object]] = []
        self.failed: list[tuple[int, list[int], str]] = []
        self.children = Children(
            "site",
            self.selector,
            Scoreboard(),
            logs.configure(Log()),
            forked=self.forked,
            report=self.hear,
            foreign=lambda generation: self.zygotes.descriptors(),
        )
        self.zygotes = Zygotes(self.selector, self.children, self.not_spawned)

    def forked(self, pid: int, slot: int, generation: Generation) -> Worker:
        self.born.append((slot, pid))
        return Worker(slot, pid, generation.number, generation.settings, 0, monotonic(), None)

    def hear(self, child: Child, report: object) -> None:
        self.heard.append((child.slot, report))

    def not_spawned(self, generation: Generation, slots: list[int], why: str) -> None:
        self.failed.append((generation.number, slots, why))

    def turn(self) -> None:
        while events := self.selector.select(0):
            for key, mask in events:
                key.data(mask)

    def orders(self, pid: int = FIRST) -> list[tuple[Order, list[int]]]:
        """What a zygote was told since it was asked last."""
        end, found = self.processes.ends[pid], []
        with suppress(EOFError):
            while order := end.receive_order():
                found.append(order)
        return found

    def forks(self, pid: int = FIRST) -> list[tuple[int, Channel]]:
        """The slots that it is to fork workers for, and their channels."""
        return [
            (order.slot, Channel.from_fd(fds[0]))
            for order, fds in self.orders(pid)
            if isinstance(order, ForkOrder)
        ]

    def say(self, report: Any, pid: int = FIRST) -> None:
        self.processes.ends[pid].send(report)
        self.turn()

    def deliver(self, pid: int, zygote_pid: int = FIRST) -> Channel:
        """The one worker asked for is born; returns its end of its channel."""
        ((_, channel),) = self.forks(zygote_pid)
        channel.send(BornReport(pid))
        self.turn()
        return channel


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    fake = Processes()
    monkeypatch.setattr("prefork.master.processes.zygotes.fork", fake.fork)
    monkeypatch.setattr("prefork.master.processes.zygotes.run_zygote", fake.conceived.append)
    monkeypatch.setattr("prefork.master.processes.zygotes.os.kill", fake.kill)
    monkeypatch.setattr("prefork.master.processes.zygotes.linux.become_subreaper", lambda: None)
    real = os.waitid

    def waitid(kind: int, pid: int, options: int) -> Any:
        return None if pid >= WORKER else real(kind, pid, options)

    monkeypatch.setattr("prefork.master.processes.zygotes.os.waitid", waitid)
    # One process speaks for all: the kernel is not asked who has sent a report.
    monkeypatch.setattr("prefork.linux.name_senders", lambda sock: None)
    return fake


@pytest.fixture
def master(processes: Processes) -> Iterator[Master]:
    master = Master(processes)
    yield master
    master.selector.close()


def generation(number: int = 1, **workers: object) -> Generation:
    overrides = [Override("workers", key, value, "--set") for key, value in workers.items()]
    overrides.append(Override("server", "chdir", str(Path(__file__).parent), "--set"))
    listeners: list[Listener] = []
    return Generation(number, load(Source("site:app", tuple(overrides)), {}), listeners)


def test_the_first_spawn_starts_a_zygote_and_waits_for_it(master: Master) -> None:
    master.zygotes.spawn(0, generation())
    master.turn()
    assert len(master.zygotes) == 1
    assert master.orders() == []
    master.say(ReadyReport())
    ((order, fds),) = master.orders()
    assert order == ForkOrder(0)
    assert len(fds) == 3  # its channel, and two for its stacks


def test_workers_are_asked_for_one_at_a_time(master: Master) -> None:
    here = generation()
    for slot in (0, 1, 2):
        master.zygotes.spawn(slot, here)
    master.say(ReadyReport())
    for slot in (0, 1, 2):
        ((asked, channel),) = master.forks()
        assert asked == slot
        assert master.born == [(n, WORKER + n) for n in range(slot)]
        channel.send(BornReport(WORKER + slot))
        master.turn()
    assert len(master.zygotes) == 1
    assert master.forks() == []
    assert not master.failed


def test_a_worker_speaks_for_itself_once_it_is_born(master: Master) -> None:
    master.zygotes.spawn(3, generation())
    master.say(ReadyReport())
    ((_, channel),) = master.forks()
    channel.send(BornReport(WORKER))
    channel.send(ReadyReport())
    channel.send(LeavingReport())
    master.turn()
    assert master.born == [(3, WORKER)]
    assert master.heard == [(3, ReadyReport()), (3, LeavingReport())]
    assert [child.pid for child in master.children] == [WORKER]


def test_the_end_of_its_channel_names_the_slot_of_a_worker_that_reported_nothing(
    master: Master,
) -> None:
    here = generation()
    master.zygotes.spawn(5, here)
    master.zygotes.spawn(6, here)
    master.say(ReadyReport())
    ((_, channel),) = master.forks()
    channel.close()
    master.turn()
    assert master.failed == [(1, [5], "the worker died before it had reported its process id")]
    assert [slot for slot, _ in master.forks()] == [6]


def test_a_fork_that_fails_is_reported_on_the_worker_s_channel(master: Master) -> None:
    master.zygotes.spawn(5, generation())
    master.say(ReadyReport())
    ((_, channel),) = master.forks()
    channel.send(FailedReport("fork failed: no room"))
    master.turn()
    assert master.failed == [(1, [5], "fork failed: no room")]
    assert not master.processes.killed


@pytest.mark.parametrize(
    "pid", [1, 0, -1, 2**40, FIRST, pytest.param(os.getpid(), id="ours"), WORKER]
)
def test_a_process_id_that_is_no_new_child_s_is_not_believed(master: Master, pid: int) -> None:
    """It would get our signals: the application's code has run in whoever says so."""
    here = generation()
    master.zygotes.spawn(0, here)
    master.say(ReadyReport())
    master.deliver(WORKER)
    master.zygotes.spawn(1, here)
    master.deliver(pid)
    assert master.born == [(0, WORKER)]
    assert master.failed[0][:2] == (1, [1])
    assert str(pid) in master.failed[0][2] or "Expected `int`" in master.failed[0][2]


def test_a_worker_that_sends_another_report_before_it_is_born_is_none(master: Master) -> None:
    """The master does not wait for the right one: there may be no end of the others."""
    master.zygotes.spawn(0, generation())
    master.say(ReadyReport())
    ((_, channel),) = master.forks()
    channel.send(ReadyReport())
    master.turn()
    assert master.born == []
    assert master.failed == [
        (1, [0], "the worker sent another report before its process id"),
    ]


def test_a_zygote_whose_reports_have_no_end_is_killed(master: Master) -> None:
    master.zygotes.spawn(0, generation())
    end = master.processes.ends[FIRST]
    for _ in range(100):
        assert end.send(ReadyReport())
    master.turn()
    assert master.processes.killed == [FIRST]


def test_a_flood_of_reports_is_read_at_leisure(master: Master) -> None:
    """64 of them, and then nothing for a tenth of a second: whatever a worker sends."""
    master.zygotes.spawn(0, generation())
    master.say(ReadyReport())
    channel = master.deliver(WORKER)
    sent = 0
    while channel.send(InboxStuckReport(1)):
        sent += 1
    assert sent > 128
    master.turn()
    assert len(master.heard) == 64
    due = master.children.due
    assert due is not None
    assert due > monotonic()
    master.children.run(due - 0.01)
    master.turn()
    assert len(master.heard) == 64
    master.children.run(due)
    master.turn()
    assert len(master.heard) == 128


def test_a_failed_import_fails_all_that_wait_and_the_next_spawn_tries_again(
    master: Master,
) -> None:
    here = generation()
    master.zygotes.spawn(0, here)
    master.zygotes.spawn(1, here)
    master.say(FailedReport("Traceback: no luck"))
    assert master.failed == [(1, [0, 1], "Traceback: no luck")]
    assert master.processes.killed == [FIRST]
    master.zygotes.died(FIRST, "exit status 3", sigkill=False)
    assert len(master.zygotes) == 0

    master.zygotes.spawn(0, here)
    master.say(ReadyReport(), FIRST + 1)
    assert [slot for slot, _ in master.forks(FIRST + 1)] == [0]


def test_a_spawn_does_not_wait_for_the_burial_of_a_failed_zygote(master: Master) -> None:
    here = generation()
    master.zygotes.spawn(0, here)
    master.say(FailedReport("no luck"))
    master.zygotes.spawn(0, here)
    assert len(master.zygotes) == 2
    master.zygotes.died(FIRST, "exit status 3", sigkill=False)
    master.say(ReadyReport(), FIRST + 1)
    assert [slot for slot, _ in master.forks(FIRST + 1)] == [0]


def test_each_generation_has_its_own_and_only_those_kept_live(master: Master) -> None:
    old, new = generation(1), generation(2)
    master.zygotes.spawn(0, old)
    master.say(ReadyReport())
    master.deliver(WORKER)
    master.zygotes.spawn(1, new)
    master.say(ReadyReport(), FIRST + 1)
    master.deliver(WORKER + 1, FIRST + 1)
    assert [each.context.generation for each in master.processes.conceived] == [1, 2]

    master.zygotes.keep_only({1, 2})
    assert master.processes.killed == []
    master.zygotes.keep_only({2})
    assert master.processes.killed == [FIRST]
    master.zygotes.keep_only(set())
    assert master.processes.killed == [FIRST, FIRST + 1]
    assert len(master.zygotes) == 2
    for pid in (FIRST, FIRST + 1):
        master.zygotes.died(pid, "killed by SIGKILL", sigkill=True)
    assert len(master.zygotes) == 0
    assert not master.failed[0][1]


def test_what_waits_for_a_zygote_that_is_not_kept_waits_in_vain(master: Master) -> None:
    master.zygotes.spawn(4, generation())
    master.zygotes.keep_only(set())
    assert master.failed == [(1, [4], "it is no longer wanted")]


def test_a_worker_under_way_is_born_though_its_zygote_is_gone(master: Master) -> None:
    master.zygotes.spawn(4, generation())
    master.say(ReadyReport())
    ((_, channel),) = master.forks()
    master.zygotes.keep_only(set())
    master.zygotes.died(FIRST, "killed by SIGKILL", sigkill=True)
    channel.send(BornReport(WORKER))
    master.turn()
    assert master.born == [(4, WORKER)]


def test_a_killed_zygote_is_replaced_and_its_replacement_takes_over(master: Master) -> None:
    here = generation()
    master.zygotes.spawn(0, here)
    master.say(ReadyReport())
    master.zygotes.spawn(1, here)
    ((_, channel),) = master.forks()
    master.zygotes.died(FIRST, "killed by SIGKILL", sigkill=True)
    assert len(master.processes.ends) == 2
    channel.send(BornReport(WORKER))  # forked just before
    master.turn()
    master.say(ReadyReport(), FIRST + 1)
    assert [slot for slot, _ in master.forks(FIRST + 1)] == [1]
    assert master.born == [(0, WORKER)]
    assert not master.failed


def test_a_zygote_that_crashes_young_waits_for_the_next_spawn(master: Master) -> None:
    here = generation()
    master.zygotes.spawn(0, here)
    master.say(ReadyReport())
    master.deliver(WORKER)
    master.zygotes.died(FIRST, "killed by SIGSEGV", sigkill=False)
    assert master.failed == [(1, [], "the zygote died: killed by SIGSEGV")]
    assert len(master.zygotes) == 0
    master.zygotes.spawn(1, here)
    assert len(master.zygotes) == 1


def test_a_zygote_that_crashes_after_a_while_is_replaced_at_once(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.zygotes.spawn(0, generation())
    master.say(ReadyReport())
    master.deliver(WORKER)
    later = monotonic() + PROBATION + 1
    monkeypatch.setattr("prefork.master.processes.zygotes.monotonic", lambda: later)
    master.zygotes.died(FIRST, "killed by SIGSEGV", sigkill=False)
    assert len(master.zygotes) == 1
    assert not master.failed


def test_a_zygote_that_dies_in_its_import_fails_what_waits(master: Master) -> None:
    master.zygotes.spawn(0, generation())
    master.zygotes.died(FIRST, "killed by SIGKILL", sigkill=True)
    why = "the zygote died before it was ready: killed by SIGKILL"
    assert master.failed == [(1, [0], why)]
    assert len(master.zygotes) == 0


@pytest.mark.parametrize("ready", [True, False])
def test_one_that_closes_its_channel_is_of_no_use(master: Master, ready: bool) -> None:
    master.zygotes.spawn(0, generation())
    if ready:
        master.processes.ends[FIRST].send(ReadyReport())
        master.turn()
    master.processes.ends[FIRST].close()
    master.turn()
    if not ready:  # it has yet to log why it can't boot
        assert not master.processes.killed
        deadline = master.zygotes.due
        assert deadline is not None
        master.zygotes.run(deadline)
    assert set(master.processes.killed) == {FIRST}
    master.zygotes.read_reports()  # may be called at any time


def test_an_import_has_the_boot_timeout(master: Master) -> None:
    master.zygotes.spawn(0, generation(boot_timeout=7))
    deadline = master.zygotes.due
    assert deadline is not None
    master.zygotes.run(deadline - 1)
    assert not master.failed
    master.zygotes.run(deadline)
    assert master.failed == [(1, [0], "not ready within 7 s")]
    assert FIRST in master.processes.killed
    assert master.zygotes.due is None


def test_a_fork_has_the_boot_timeout_and_an_idle_zygote_has_none(master: Master) -> None:
    here = generation(boot_timeout=7)
    master.zygotes.spawn(0, here)
    master.say(ReadyReport())
    deadline = master.zygotes.due
    assert deadline is not None
    ((_, channel),) = master.forks()
    master.zygotes.run(deadline)
    assert master.failed == [(1, [0], "not ready within 7 s")]
    assert master.processes.killed == [FIRST]
    assert not channel.send(
        BornReport(WORKER)
    )  # whoever holds it learns that nobody waits any more
    assert master.zygotes.due is None


def test_without_a_boot_timeout_nothing_is_ever_due(master: Master) -> None:
    master.zygotes.spawn(0, generation(boot_timeout=0))
    assert master.zygotes.due is None
    master.say(ReadyReport())
    assert master.zygotes.due is None


def test_oversleeping_moves_what_is_due(master: Master) -> None:
    master.zygotes.spawn(0, generation())
    before = master.zygotes.due
    master.zygotes.overslept(100.0)
    assert before is not None
    assert master.zygotes.due == pytest.approx(before + 100)


def test_new_log_files_reach_the_zygote_and_what_it_has_just_forked(master: Master) -> None:
    master.zygotes.spawn(0, generation())
    master.say(ReadyReport())
    ((_, channel),) = master.forks()
    null = os.open(os.devnull, os.O_WRONLY)
    for process in master.zygotes.all():
        process.channel.send(ReopenOrder(("/var/log/x",)), (null,))
    os.close(null)
    for found in (master.orders()[0], channel.receive_order()):
        assert found is not None
        assert found[0] == ReopenOrder(("/var/log/x",))
        assert len(found[1]) == 1


def test_all_channels_are_closed_in_other_children(master: Master) -> None:
    master.zygotes.spawn(0, generation(1))
    master.say(ReadyReport())
    first = set(master.zygotes.descriptors())
    assert len(first) == 4  # the zygote's channel, and of the unborn worker three
    master.zygotes.spawn(1, generation(2))
    assert first < set(master.processes.conceived[1].foreign)


def test_a_fork_of_the_zygote_that_fails_leaves_nothing(master: Master) -> None:
    master.processes.problem = BlockingIOError(11, "no room")
    with pytest.raises(BlockingIOError):
        master.zygotes.spawn(0, generation())
    assert len(master.zygotes) == 0
    assert not master.selector.get_map()


def test_a_replacement_that_can_t_be_forked_is_left_to_the_next_spawn(master: Master) -> None:
    here = generation()
    master.zygotes.spawn(0, here)
    master.say(ReadyReport())
    master.deliver(WORKER)
    master.processes.problem = BlockingIOError(11, "no room")
    master.zygotes.died(FIRST, "killed by SIGKILL", sigkill=True)
    assert master.failed == [(1, [], "fork failed: no room")]
    master.processes.problem = None
    master.zygotes.spawn(1, here)
    assert len(master.zygotes) == 1


def test_the_death_of_an_unknown_process_is_ignored(master: Master) -> None:
    master.zygotes.spawn(0, generation())
    master.zygotes.died(4711, "exit status 0", sigkill=False)
    assert len(master.zygotes) == 1
    assert not master.failed


# The pool, where spawns are answered later.


def pool(workers: int) -> tuple[Pool, Callable[[int], None]]:
    pool = Pool(random.Random(1))

    def start(number: int) -> None:
        pool.start(number, generation(number, count=workers).settings)

    start(1)
    return pool, start


def slots(plan: Plan) -> list[int]:
    return [action.slot for action in plan.actions if isinstance(action, SpawnAction)]


def test_the_pool_asks_once_and_counts_what_is_coming() -> None:
    here, _ = pool(2)
    assert slots(here.advance(0.0)) == [0, 1]
    assert slots(here.advance(1.0)) == []
    here.spawned(0, 1, 1001, 2.0)
    here.ready(1001, 2.5)
    assert slots(here.advance(3.0)) == []
    here.spawned(1, 1, 1002, 4.0)
    worker = here.find(1002)
    assert worker is not None
    assert worker.deadline == 4.0 + worker.settings.boot_timeout  # from its birth on


def test_a_stop_waits_for_the_answer() -> None:
    here, _ = pool(1)
    here.advance(0.0)
    here.stop(1.0, graceful=True)
    assert here.advance(1.0).outcomes == [Abandoned(1, "the server is stopping")]
    here.spawn_failed(0, 1, "it is no longer wanted", 2.0)
    assert here.advance(2.0).outcomes == [Stopped()]


def test_the_pool_says_which_generations_may_still_be_asked_for_workers() -> None:
    here, start = pool(1)
    assert here.spawning == {1}
    here.advance(0.0)
    here.spawned(0, 1, 1001, 0.0)
    here.ready(1001, 1.0)
    assert here.spawning == {1}
    start(2)
    assert here.spawning == {1, 2}
    here.advance(2.0)
    here.spawn_failed(1, 2, "no luck", 3.0)
    assert here.spawning == {1}
    start(3)
    here.advance(4.0)
    here.spawned(1, 3, 1003, 4.0)
    here.ready(1003, 5.0)
    assert here.spawning == {3}
    here.withdraw()
    assert here.spawning == set()
    start(4)
    assert here.spawning == {4}
    here.stop(7.0, graceful=True)
    assert here.spawning == set()
