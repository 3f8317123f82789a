"""HTTP in a worker: connections to conversations, conversations to the application and back."""

from time import monotonic, time
from typing import Any, Protocol

from prefork import logs
from prefork.apps.wsgi import Application, answer
from prefork.http.connection import Environ, Request
from prefork.scoreboard import Record
from prefork.worker import forked
from prefork.worker.accept import Arrival, Door
from prefork.worker.conversation import Conversation, Rules, Wish
from prefork.worker.handover import Handover, Parcel
from prefork.worker.parking import EPOLLIN, EPOLLOUT, Parking, SharedParking
from prefork.worker.sockets import adopt
from prefork.worker.threads import Crew

# An enum's member is looked up by a descriptor, at 80 ns each time in CPython 3.11.
_READ, _WRITE, _SERVE = Wish.READ, Wish.WRITE, Wish.SERVE

_LAST_CHANCE = 5.0
"""Seconds that an idle connection gets at the end where no limit is configured."""


class AccessLog(Protocol):
    def add(
        self, environ: Environ, status: int, size: int, started: float, elapsed: float
    ) -> None: ...

    def flush(self) -> None: ...


class HttpService:
    """All HTTP conversations of one worker."""

    def __init__(
        self,
        application: Application,
        rules: Rules,
        crew: Crew | None,
        handover: Handover,
        *,
        request_timeout: float,
        graceful_timeout: float,
        access: AccessLog | None,
    ) -> None:
        self.parking: Parking[Conversation] = Parking() if crew is None else SharedParking()
        self._application = application
        self._rules = rules
        self._crew = crew
        self._handover = handover
        self._request_timeout = request_timeout
        limits = [limit for limit in (rules.keepalive, graceful_timeout) if limit]
        self._last_chance = min(limits, default=_LAST_CHANCE)
        self._access = access
        self._open: set[Conversation] = set()
        self._running: dict[Conversation, float] = {}
        self._forked = False
        self._last = False
        self._until = 0.0

    # prefork.worker.loop.Service

    def welcome(self, arrival: Arrival, door: Door, record: Record) -> None:
        fd, peer = arrival
        base = door.base.copy()
        sock, base["REMOTE_ADDR"], base["REMOTE_PORT"] = adopt(fd, peer, door.sock)
        conversation = Conversation(sock, base, self._rules, monotonic(), door)
        self._open.add(conversation)
        conversation.closing = self._last
        conversation.read(monotonic())
        self._proceed(conversation, record)

    def adopt(self, parcel: Parcel, fd: int, door: Door, record: Record) -> None:
        if parcel.peer is not None:  # nothing was read yet
            self.welcome((fd, parcel.peer), door, record)
            return
        now = monotonic()
        base = {**door.base, **parcel.environ}
        sock, _, _ = adopt(fd, None, door.sock)
        conversation = Conversation(sock, base, self._rules, now, door)
        self._open.add(conversation)
        conversation.closing = self._last
        conversation.resume(parcel, now)
        complete = conversation.read(now)
        waits = conversation.idle and not (complete or conversation.broken or self._until)
        if waits and parcel.deadline:
            # A reload after the other must not keep it for ever.
            conversation.deadline = parcel.deadline
            self.parking.park(conversation, EPOLLIN)
        else:
            self._proceed(conversation, record)

    def ready(self, fd: int, events: int, record: Record) -> None:
        conversation = self.parking.claim(fd)
        if conversation is None:
            return
        if events & EPOLLOUT:
            conversation.flush()
        elif conversation.read(monotonic()):
            self._call(conversation, record)
        self._proceed(conversation, record)

    def overdue(self, now: float, record: Record) -> None:
        for conversation in self.parking.expired(now):
            conversation.overdue()
            self._proceed(conversation, record)

    def offer(self, fd: int) -> bool:
        conversation = self.parking.parked.get(fd)
        return conversation is not None and self._move(conversation, only_idle=True)

    def hand_over_all(self) -> None:
        for conversation in list(self.parking.parked.values()):
            self._move(conversation, only_idle=False)

    def _move(self, conversation: Conversation, *, only_idle: bool) -> bool:
        """Hands a parked conversation over; False where it stays, or is somebody else's."""
        if conversation.parcel() is None:  # only a look: it is not ours yet
            return False
        claimed = self.parking.claim(conversation.fd)
        if claimed is not conversation:
            if claimed is not None:  # its descriptor has got this number meanwhile
                self.parking.park(claimed, claimed.events)
            return False
        events = conversation.events
        if self._sent(conversation, only_idle=only_idle):
            return True
        self.parking.park(conversation, events)
        return False

    def _sent(self, conversation: Conversation, *, only_idle: bool) -> bool:
        """Hands over a conversation that this thread owns; False where it stays."""
        parcel = conversation.parcel()
        if parcel is None:
            return False
        self.parking.mute(conversation)
        if not self._handover.send(parcel, conversation.fd, only_idle=only_idle):
            return False
        self._open.discard(conversation)
        conversation.close()
        return True

    def last(self) -> None:
        if self._handover.wanted:
            return  # what runs now may go on elsewhere
        self._last = True
        for conversation in list(self._running):
            conversation.closing = True

    def leave(self) -> None:
        now = monotonic()
        self._until = now + self._last_chance
        if self._handover.wanted:
            self.hand_over_all()
        for conversation in list(self.parking.parked.values()):
            if self.parking.claim(conversation.fd) is conversation:
                if conversation.idle:
                    conversation.settle(now, self._until)
                else:
                    conversation.closing = True
                self.parking.park(conversation, conversation.events)

    def expire(self, now: float) -> None:
        for conversation, started in list(self._running.items()):
            if now - started >= self._request_timeout:
                conversation.expire()

    def flush(self) -> None:
        if self._access is not None:
            self._access.flush()

    def in_child(self) -> None:
        self._forked = True
        for conversation in self._open:
            conversation.abandon()

    # One conversation.

    def _proceed(self, conversation: Conversation, record: Record) -> None:
        """Does what can be done now, then parks the conversation, hands it over or ends it."""
        while True:
            wish = conversation.settle(monotonic(), self._until)
            if wish is _READ:
                if self._until and self._sent(conversation, only_idle=False):
                    return
                self.parking.park(conversation, EPOLLIN)
            elif wish is _SERVE:
                self._call(conversation, record)
                continue
            elif wish is _WRITE:
                self.parking.park(conversation, EPOLLOUT)
            else:
                self.parking.forget(conversation)
                conversation.close()
                self._open.discard(conversation)
            return

    def _call(self, conversation: Conversation, record: Record) -> None:
        request = conversation.take()
        if request is None:
            return
        crew = self._crew
        now = monotonic()
        record.start(now, request.line)
        if crew is not None:
            crew.enter(record)
        conversation.begin(request)
        self._running[conversation] = now
        conversation.closing = conversation.closing or self._last
        keep_alive, response = answer(self._application, request, conversation, self._failed)
        if self._forked:
            forked.leave(None)
        del self._running[conversation]
        conversation.done(keep_alive)
        record.end()
        if crew is not None:
            crew.leave(monotonic() - now)
        if self._access is not None:
            elapsed = monotonic() - now
            code = response.head.code if response.head is not None else 500
            self._access.add(request.environ, code, response.sent, time() - elapsed, elapsed)

    def _failed(self, request: Request, problem: BaseException) -> None:
        if self._forked and isinstance(problem, SystemExit):
            forked.leave(problem)
        logs.event(
            "error",
            "application failed",
            request=request.line.decode("latin-1"),
            peer=request.environ["REMOTE_ADDR"],
            traceback=logs.traceback_of(problem),
        )
        if self._forked:
            forked.leave(problem)


def base_environ(server: tuple[str, str], **more: Any) -> Environ:
    """What the environ of every request at one listener begins with."""
    name, port = server
    return {
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        **more,
    }
