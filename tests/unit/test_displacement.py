"""Which connection gives way, without one, and with an invented clock."""

from dataclasses import dataclass
from math import inf

import pytest

from prefork.worker.service.displacement import Displacement
from prefork.worker.transport.client_limits import Pace

NOW = 1000.0


@dataclass(eq=False)
class Member:
    name: str
    holder: str
    rate: float | None = 0.0
    """None while it is served."""
    since: float = NOW - 10.0
    idle: bool = False
    free: bool = True
    looked_at: int = 0

    def pace(self, now: float) -> Pace | None:
        self.looked_at += 1
        return None if self.rate is None else Pace(self.rate, self.since)


class Full:
    """A worker that is full, with room for as many as it has."""

    def __init__(self, *members: Member, share: float = 0.25) -> None:
        self.members = list(members)
        self.displacement: Displacement[Member] = Displacement(share, len(members))
        self.ended: list[str] = []
        self.now = NOW

    def comes(self, holder: str) -> bool:
        return self.displacement.make_room(
            holder, self.now, self.members, list(self.members), self._end
        )

    def _end(self, member: Member) -> bool:
        if not member.free or member not in self.members:
            return False
        self.members.remove(member)
        self.members.append(Member("new", "new", None))
        self.ended.append(member.name)
        return True


def several(count: int, holder: str, **facts: float) -> list[Member]:
    return [Member(f"{holder}{number}", holder, **facts) for number in range(count)]  # type: ignore[arg-type]


def test_what_an_address_has_beyond_its_share_goes_first_the_least_first() -> None:
    many = several(28, "many", rate=900.0)
    many[3].rate, many[4].rate = 1.0, 2.0
    idle = Member("idle", "other", idle=True)
    full = Full(*many, idle, *several(3, "another", rate=5.0))
    assert [full.comes("new") for _ in range(3)] == [True] * 3
    assert full.ended == ["many3", "many4", "many0"]


def test_a_request_of_such_an_address_gets_no_time_to_show_what_it_gives() -> None:
    full = Full(*several(20, "many", since=NOW))
    assert full.comes("new")


def test_an_address_with_its_share_displaces_its_own_alone() -> None:
    full = Full(Member("idle", "other", idle=True), *several(20, "many", rate=10.0))
    assert full.comes("many")
    assert full.ended == ["many0"]
    full = Full(Member("idle", "other", idle=True), *several(20, "many", rate=None))  # type: ignore[arg-type]
    assert not full.comes("many")
    assert full.comes("new")


def test_idle_ones_go_before_requests_and_the_longest_idle_first() -> None:
    idle = [Member(f"idle{age}", f"i{age}", since=NOW - age, idle=True) for age in (3, 9, 1)]
    full = Full(*idle, Member("slow", "s", rate=1.0))
    assert [full.comes("new") for _ in range(4)] == [True] * 4
    assert full.ended == ["idle9", "idle3", "idle1", "slow"]


def test_of_requests_the_one_that_gives_least_goes_and_the_oldest_without_a_byte() -> None:
    full = Full(
        Member("fast", "a", rate=50_000.0),
        Member("least", "b", rate=500.0),
        Member("mute", "c", since=NOW - 3),
        Member("older", "d", since=NOW - 4),
        Member("young", "e", since=NOW - 0.5),
        Member("served", "f", rate=None),
    )
    assert [full.comes("new") for _ in range(4)] == [True] * 4
    assert full.ended == ["older", "mute", "least", "fast"]
    assert not full.comes("new")


def test_a_request_that_waits_for_its_turn_goes_only_if_its_address_has_too_many() -> None:
    full = Full(*several(6, "few", rate=inf))
    assert not full.comes("new")
    full = Full(Member("slow", "other", rate=1.0), *several(8, "many", rate=inf))
    assert full.comes("new")
    assert full.ended == ["many0"]


def test_a_share_of_one_is_none() -> None:
    idle = Member("idle", "other", idle=True)
    full = Full(idle, *several(20, "many"), share=1.0)
    assert full.comes("new")
    assert full.ended == ["idle"]


@pytest.mark.parametrize("holder", ["", "few"])
def test_a_proxy_and_a_browser_have_no_share(holder: str) -> None:
    idle = Member("idle", "other", idle=True)
    full = Full(idle, *several(6 if holder else 20, holder, rate=10.0))
    assert full.comes("new")
    assert full.ended == ["idle"]


def test_one_that_has_begun_a_request_since_or_that_another_thread_has_stays() -> None:
    begun, taken, other = (Member(name, name, idle=True) for name in ("begun", "taken", "other"))
    last = Member("last", "last", idle=True)
    full = Full(begun, taken, other, last)
    begun.since, taken.since, other.since = NOW - 30, NOW - 40, NOW - 50
    assert full.comes("new")
    begun.idle = taken.free = False
    assert full.comes("new")
    assert full.ended == ["other", "last"]


def test_a_ranking_serves_many_and_is_not_kept_for_long() -> None:
    members = several(800, "many", rate=10.0)
    full = Full(*members)
    for _ in range(90):
        assert full.comes("new")
    assert sum(member.looked_at for member in members) == 800
    full.now += 1.1
    assert full.comes("new")
    assert sum(member.looked_at for member in members) > 1400
    full.now += 1.1
    full.displacement.forget(full.now)
    assert not full.displacement.ranked


def test_a_ranking_of_connections_that_have_ended_keeps_nobody_out() -> None:
    """One attack is over, and another one fills the worker within the second."""
    full = Full(*several(20, "first"))
    assert full.comes("new")
    full.members = several(20, "second")
    assert full.comes("new")
    assert full.ended == ["first0", "second0"]


def test_a_worker_in_which_all_are_served_is_not_ranked_again_and_again() -> None:
    members = several(50, "many", rate=None)  # type: ignore[arg-type]
    full = Full(*members)
    assert not any(full.comes("new") for _ in range(100))
    assert sum(member.looked_at for member in members) == 50
