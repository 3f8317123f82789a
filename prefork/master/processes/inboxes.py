"""The master's side of the inboxes of the slots (prefork.worker.schedule.handover).

Each slot that ever had a worker has an inbox, and the slot's next worker gets the same.  Workers
pass connections to each other, and the master only makes sure that none is lost: while no worker
serves in a slot, or its worker is out of descriptors, the master watches the inbox itself and
forwards the connections in it.  It takes back, too, what lies in the inbox of a worker that does
not answer, as soon as a sibling is idle.

A worker knows the inboxes of its neighbourhood only, the slots near its own: it holds a descriptor
for each of them, and in a pool of hundreds these would be more than a process may have.
"""

import contextlib
import os
import select
import selectors
import socket
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from weakref import WeakKeyDictionary

from prefork import linux, logs
from prefork.channel import InboxesOrder
from prefork.master.periodic import Periodic
from prefork.master.processes.children import Child, Children
from prefork.master.processes.generation import Generation
from prefork.master.snapshot import InboxSnapshot
from prefork.scoreboard import Scoreboard
from prefork.worker.schedule.accept import WAKE
from prefork.worker.schedule.handover import (
    ANSWER,
    is_answered,
    is_read,
    kind_of,
    receive,
    report_lost,
    send,
    send_probe,
)

NEIGHBOURHOOD = 64
"""Slots; fewer than descriptors fit beside one message."""

_ANY_SIBLING = 1.0
"""Seconds for which what a silent worker was sent waits for an idle sibling, before a busy one gets
it: the worker may only be short of CPU."""

_BATCH = 64
"""Connections that are forwarded at once."""

Pair = tuple[socket.socket, socket.socket]
"""The end that connections come out of, and the end that they go into."""


class Inboxes(Periodic):
    """All inboxes, and the workers that know them."""

    due: float | None = None

    def __init__(
        self,
        selector: selectors.BaseSelector,
        scoreboard: Scoreboard,
        children: Children,
        silent: Callable[[Child], None],
    ) -> None:
        """`silent`: is called for a worker that does not take what is in its inbox."""
        self._silent = silent
        self._unread: dict[int, float] = {}  # slots, and since when their workers are silent
        self._selector = selector
        self._scoreboard = scoreboard
        self._children = children
        self._pairs: dict[int, Pair] = {}
        self._kinds: dict[int, int] = {}  # of connection in the inbox of a slot
        self._known: WeakKeyDictionary[Child, set[int]] = WeakKeyDictionary()
        self._watched: set[int] = set()

    def register(self, child: Child) -> None:
        """A worker is about to serve: it gets its inbox and those of its neighbours, and they get
        its own."""
        if not child.generation.config.workers.handover:
            return
        slot = child.slot
        kind = _kind(child.generation)
        if self._kinds.get(slot, kind) != kind:
            self._forward(slot)  # these were sent to a worker with other listeners
        if slot in self._pairs and _is_shut_down(self._pairs[slot][0]):
            self._discard(slot)
        try:
            pair = self._pairs.get(slot) or self._make(slot)
        except OSError as error:
            logs.event("warning", "no hand-over", slot=slot, reason=error.strerror)
            return
        self._unwatch(slot)
        self._kinds[slot] = kind
        slots = tuple(each for each in self._pairs if each != slot and _near(each, slot))
        fds = (pair[0].fileno(), *(self._pairs[each][1].fileno() for each in slots))
        if child.channel.send(InboxesOrder(slots, own=True, kind=kind), fds):
            self._known[child] = {slot, *slots}
        for other in self._children:
            known = self._known.get(other)
            if (
                known is not None
                and slot not in known
                and _near(other.slot, slot)
                and other.channel.send(InboxesOrder((slot,)), (pair[1].fileno(),))
            ):
                self._known[other] = {*known, slot}
                self._children.signal(other, WAKE)  # it may need it just because it is busy
        for vacant in self._pairs.keys() - self._served():
            self._watch(vacant)

    def reroute(self, child: Child) -> None:
        """A worker is out of descriptors: its connections go to others until it accepts again."""
        if child.slot in self._pairs:
            self._watch(child.slot)

    def worker_gone(self, child: Child) -> None:
        """A worker is dead: no other sends to it any more, and its connections go to others."""
        self._scoreboard.stop_receiving(child.slot)
        self._unread.pop(child.slot, None)
        if child.slot in self._pairs:
            self._watch(child.slot)
            self._look_soon()  # it can't say any more that what it sent was not taken

    # Inboxes of workers that do not answer.

    def unanswered(self, slot: int) -> None:
        """According to a sibling, the worker of a slot does not take what is in its inbox."""
        child = next((child for child in self._children if child.slot == slot), None)
        if child is None or child not in self._known or self._is_answered(slot):
            return
        self._unread.setdefault(slot, monotonic())
        self._take_back(slot)
        self._silent(child)

    def mark_silent(self, child: Child) -> None:
        """A worker does not run: siblings send nothing to it before it runs again."""
        if child in self._known and self._is_answered(child.slot):
            send_probe(self._pairs[child.slot][1])

    def run(self, now: float) -> None:
        """Looks into the inboxes of workers that may not run, if a look is due."""
        if self.due is None or now < self.due:
            return
        self.due = None
        for slot in self._served() - self._unread.keys():
            if now - self._scoreboard.inbox_read_at(slot) >= ANSWER:
                self.unanswered(slot)
        for slot in list(self._unread):
            self._take_back(slot)

    def _look_soon(self) -> None:
        self.due = self.due or monotonic() + ANSWER

    def _is_answered(self, slot: int) -> bool:
        return is_answered(self._pairs[slot][1])

    def _take_back(self, slot: int) -> None:
        """Forwards what a silent worker was sent: to idle siblings, and after a while to any."""
        only_idle = monotonic() - self._unread[slot] < _ANY_SIBLING
        targets = self._running_targets(slot, only_idle=only_idle)
        if self._is_answered(slot):
            del self._unread[slot]  # it runs again
        elif self._forward_to(targets, slot):
            del self._unread[slot]
            send_probe(self._pairs[slot][1])
        else:
            self._look_soon()

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        return [sock.fileno() for pair in self._pairs.values() for sock in pair]

    def _make(self, slot: int) -> Pair:
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pairs[slot] = pair
        return pair

    def _served(self) -> set[int]:
        return {child.slot for child in self._children if child in self._known}

    # Inboxes without a worker that serves.

    def _watch(self, slot: int) -> None:
        if slot not in self._watched:
            self._watched.add(slot)
            self._selector.register(
                self._pairs[slot][0], selectors.EVENT_READ, partial(self._forward, slot)
            )

    def _unwatch(self, slot: int) -> None:
        if slot in self._watched:
            self._watched.remove(slot)
            self._selector.unregister(self._pairs[slot][0])

    def _forward(self, slot: int, _: int = 0) -> None:
        """Forwards all connections; those that no worker takes stay until one is registered."""
        if self._scoreboard.handover_kind(slot) and slot in self._served():
            self._unwatch(slot)  # its worker takes connections again
            return
        if not self._forward_to(self._targets(slot), slot):
            self._unwatch(slot)
        elif _is_shut_down(self._pairs[slot][0]):
            self._discard(slot)

    def _forward_to(self, targets: Iterable[int], slot: int) -> bool:
        """Forwards what is in the inbox of a slot; returns whether all of it found room."""
        source = self._pairs[slot][0]
        left = _BATCH  # then the master looks at all else; the inbox stays readable
        for each in targets:
            target = self._pairs[each][1]
            # Only while the target has room: a connection that was taken out can't be put back.
            while _has_room(target):
                packet = receive(source) if left else None
                left -= 1
                if packet is None:
                    return True
                self._look_soon()
                data, fd = packet
                is_socket = linux.is_stream_socket(fd)
                sent = is_socket and send(target, data, fd)
                linux.close_received(fd)
                if not sent:
                    report_lost(
                        "not passed on" if is_socket else "the descriptor is no stream socket"
                    )
        return False

    def _discard(self, slot: int) -> None:
        """A worker has shut the inbox down, and it would be readable for ever.

        The slot's next worker gets a new one; workers that know the old one only can't reach it.
        """
        logs.event("warning", "no hand-over", slot=slot, reason="a worker has shut the inbox down")
        self._unwatch(slot)
        reader, writer = self._pairs.pop(slot)
        self._kinds.pop(slot, None)
        for known in self._known.values():
            known.discard(slot)
        while (packet := receive(reader)) is not None:  # what is in it is bounded: it is shut down
            linux.close_received(packet[1])
        reader.close()
        writer.close()

    def _targets(self, slot: int) -> list[int]:
        """The slots of other workers that serve this kind of connection: those that are shown to
        run before the others, and idle ones before busy ones."""
        board, kind = self._scoreboard, self._kinds.get(slot, 0)
        slots = [
            each
            for each in self._pairs
            if kind and each != slot and board.handover_kind(each) == kind
        ]
        slots.sort(key=lambda each: (not self._runs(each), not board.is_idle(each, kind)))
        return slots

    def _running_targets(self, slot: int, *, only_idle: bool) -> list[int]:
        board, kind = self._scoreboard, self._kinds.get(slot, 0)
        return [
            each
            for each in self._targets(slot)
            if self._runs(each) and (board.is_idle(each, kind) or not only_idle)
        ]

    def _runs(self, slot: int) -> bool:
        return is_read(self._scoreboard, slot, self._pairs[slot][1])

    # From one master to the next.

    def snapshot(self) -> tuple[InboxSnapshot, ...]:
        """All inboxes, for the next master."""
        return tuple(
            InboxSnapshot(
                slot=slot, reader=reader.fileno(), writer=writer.fileno(), kind=self._kinds[slot]
            )
            for slot, (reader, writer) in self._pairs.items()
        )

    def restore(self, states: Iterable[InboxSnapshot]) -> None:
        """The inboxes of the master before, once its workers are restored."""
        for state in states:
            for fd in (state.reader, state.writer):
                os.set_inheritable(fd, False)
            reader, writer = socket.socket(fileno=state.reader), socket.socket(fileno=state.writer)
            self._pairs[state.slot] = (reader, writer)
            self._kinds[state.slot] = state.kind
        slots = set(self._pairs)
        for child in self._children:
            if child.slot in self._pairs and child.generation.config.workers.handover:
                self._known[child] = {slot for slot in slots if _near(slot, child.slot)}
        for vacant in self._pairs.keys() - self._served():
            self._watch(vacant)


def _near(one: int, other: int) -> bool:
    return one // NEIGHBOURHOOD == other // NEIGHBOURHOOD


def _kind(generation: Generation) -> int:
    socks = [listener.sock for listener in generation.listeners if not listener.closed]
    config = generation.config
    # A connection that began in one of these ways can't go on in another.
    began = (config.tls.certificate is not None, config.tls.bind, config.http.proxy_protocol)
    return kind_of(repr((config.server.protocol, began)), socks)


def _is_shut_down(inbox: socket.socket) -> bool:
    poll = select.poll()
    poll.register(inbox, select.POLLRDHUP)
    return bool(poll.poll(0))


def _has_room(inbox: socket.socket) -> bool:
    poll = selectors.PollSelector()
    with contextlib.closing(poll):
        poll.register(inbox, selectors.EVENT_WRITE)
        return bool(poll.select(0))
