"""The master's side of the inboxes of the slots (prefork.worker.schedule.handover).

Each slot that ever had a worker has an inbox, and the slot's next worker gets the same.  Workers
pass connections to each other, and the master only makes sure that none is lost: while no worker
serves in a slot, or its worker is out of descriptors, the master watches the inbox itself and
forwards the connections in it.

A worker knows the inboxes of its neighbourhood only, the slots near its own: it holds a descriptor
for each of them, and in a pool of hundreds these would be more than a process may have.
"""

import contextlib
import os
import selectors
import socket
from collections.abc import Iterable
from functools import partial
from weakref import WeakKeyDictionary

from prefork import logs
from prefork.channel import InboxesOrder
from prefork.master.periodic import Periodic
from prefork.master.processes.children import Child, Children
from prefork.master.processes.generation import Generation
from prefork.master.snapshot import InboxSnapshot
from prefork.scoreboard import Scoreboard
from prefork.worker.schedule.accept import WAKE
from prefork.worker.schedule.handover import kind_of, receive, send

NEIGHBOURHOOD = 64
"""Slots; fewer than descriptors fit beside one message."""

Pair = tuple[socket.socket, socket.socket]
"""The end that connections come out of, and the end that they go into."""


class Inboxes(Periodic):
    """All inboxes, and the workers that know them."""

    def __init__(
        self, selector: selectors.BaseSelector, scoreboard: Scoreboard, children: Children
    ) -> None:
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
        try:
            pair = self._pairs.get(slot) or self._make(slot)
        except OSError as error:
            logs.event("warning", "no hand-over", slot=slot, reason=error.strerror)
            return
        kind = _kind(child.generation)
        if self._kinds.get(slot, kind) != kind:
            self._forward(slot)  # these were sent to a worker with other listeners
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
        if child.slot in self._pairs:
            self._watch(child.slot)

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
        source = self._pairs[slot][0]
        for target in self._targets(slot):
            # Only while the target has room: a connection that was taken out can't be put back.
            while _has_room(target):
                packet = receive(source)
                if packet is None:
                    return
                data, fd = packet
                sent = send(target, data, fd)
                os.close(fd)
                if not sent:
                    logs.event("error", "connection lost", slot=slot, reason="not passed on")
        self._unwatch(slot)

    def _targets(self, slot: int) -> list[socket.socket]:
        """Inboxes of the workers that serve this kind of connection, the idle ones first."""
        board, kind = self._scoreboard, self._kinds.get(slot, 0)
        slots = [each for each in self._pairs if kind and board.handover_kind(each) == kind]
        slots.sort(key=lambda each: not board.is_idle(each, kind))
        return [self._pairs[each][1] for each in slots]

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


def _has_room(inbox: socket.socket) -> bool:
    poll = selectors.PollSelector()
    with contextlib.closing(poll):
        poll.register(inbox, selectors.EVENT_WRITE)
        return bool(poll.select(0))
