"""Which new connection a worker takes, without one: members are anything with `idle`."""

import socket
from dataclasses import dataclass
from resource import RLIM_INFINITY
from weakref import WeakSet

import pytest

from prefork.http.head_rules import Reject
from prefork.worker.schedule.descriptor_limit import descriptor_limit
from prefork.worker.service.admission import Admission, holder_of, refuse
from prefork.worker.transport.client_limits import Pace

PLENTY = 1 << 20


@dataclass(eq=False)
class Member:
    idle: bool = True
    free: bool = True
    holder: str = ""
    since: float = 0.0

    def pace(self, now: float) -> Pace | None:
        """One that is not idle is being served."""
        return Pace(0.0, self.since) if self.idle else None


class Worker:
    """What a worker would do with an answer."""

    def __init__(self, limit: int, per_address: int = 0) -> None:
        self.admission: Admission[Member] = Admission(limit, per_address, descriptors=PLENTY)
        self.order: list[Member] = []
        self.ended: list[Member] = []
        self.now = 1000.0

    def end(self, member: Member) -> bool:
        if member.free:
            self.close(member)
            self.ended.append(member)
        return member.free

    def close(self, member: Member) -> None:
        self.order.remove(member)
        self.admission.members.remove(member)

    def comes(self, address: str = "a", member: Member | None = None) -> int:
        self.now += 10.0
        problem = self.admission.refusal(address, self.now, list(self.order), self.end)
        if problem is not None:
            return problem.status
        member = member or Member()
        member.since = self.now
        self.order.append(member)
        self.admission.members.add(member)
        self.admission.note(address, member)
        return 0


def test_the_longest_idle_goes_when_the_worker_is_full() -> None:
    worker = Worker(3)
    busy, first, second = Member(idle=False), Member(), Member()
    assert [worker.comes(member=one) for one in (busy, first, second)] == [0, 0, 0]
    assert worker.ended == []
    assert worker.comes() == 0
    assert worker.ended == [first]
    assert worker.comes() == 0
    assert worker.ended == [first, second]


def test_one_that_another_thread_has_is_passed_over() -> None:
    worker = Worker(2)
    taken, other = Member(free=False), Member()
    assert [worker.comes(member=one) for one in (taken, other)] == [0, 0]
    assert worker.comes() == 0
    assert worker.ended == [other]


def test_503_where_none_is_idle_until_one_ends() -> None:
    worker = Worker(2)
    assert [worker.comes(member=Member(idle=False)) for _ in range(4)] == [0, 0, 503, 503]
    worker.close(worker.order[-1])
    assert worker.comes() == 0


def test_429_for_an_address_that_has_its_share_whatever_the_others_have() -> None:
    worker = Worker(0, per_address=2)
    assert [worker.comes("a") for _ in range(4)] == [0, 0, 429, 429]
    assert [worker.comes("b") for _ in range(3)] == [0, 0, 429]
    worker.close(worker.order[0])
    assert [worker.comes("a") for _ in range(2)] == [0, 429]
    assert [worker.comes("") for _ in range(9)] == [0] * 9  # a Unix socket has no addresses


@pytest.mark.parametrize(
    ("address", "holder"),
    [
        ("", ""),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("nonsense: of a proxy", "nonsense: of a proxy"),
    ],
)
def test_a_client_of_ipv6_is_a_network(address: str, holder: str) -> None:
    assert holder_of(address) == holder


def test_addresses_that_are_gone_are_forgotten() -> None:
    worker = Worker(0, per_address=2)
    remembered = WeakSet[Member]()
    for number in range(1000):
        remembered.add(member := Member())
        assert worker.comes(str(number), member) == 0
        for each in list(worker.order):
            worker.close(each)
        del member, each
    assert len(remembered) < 50


@pytest.mark.parametrize(
    ("limit", "descriptors", "expected"),
    [
        (0, 1024, 992),
        (10_000, 1024, 992),
        (100, 1024, 100),
        (0, 20, 16),
        (7, RLIM_INFINITY, 7),
        (0, RLIM_INFINITY, 0),
    ],
)
def test_there_are_no_more_than_descriptors(
    monkeypatch: pytest.MonkeyPatch, limit: int, descriptors: int, expected: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (descriptors, descriptors))
    assert Admission(limit, 0, descriptors=descriptor_limit()).limit == expected


def test_a_client_that_is_turned_away_gets_a_retry_after() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\n")
        refuse(ours, Reject(503, "full", ("Retry-After", "1")), tls=False)
        answer = theirs.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert b"\r\nConnection: close\r\n" in answer
        assert theirs.recv(1) == b""


def test_a_client_that_wants_tls_or_is_gone_gets_no_answer() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        refuse(ours, Reject(503, "full"), tls=True)
        assert theirs.recv(1) == b""
    ours, theirs = socket.socketpair()
    theirs.close()
    refuse(ours, Reject(503, "full"), tls=False)
    assert ours.fileno() == -1
