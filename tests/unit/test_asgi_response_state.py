"""The table of a response's states, and responses that are driven through all of them."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from prefork.apps.asgi_response import MisusedProtocol
from prefork.apps.asgi_response_state import DISCONNECTED, OVER, TABLE, UNANSWERED, ResponseState
from prefork.http.request import Request
from prefork.worker.service.asgi_call import AsgiCall, ClientDisconnectedError
from prefork.worker.service.asgi_messages import send
from tests.unit.test_asgi_call import START, call_of, owner_of_calls, piece, take

Message = dict[str, Any]
S = ResponseState

LENGTH = {**START, "headers": [(b"content-length", b"3")]}

MESSAGES: dict[str, Message] = {
    "s": START,
    "a": {**START, "trailers": True},
    "h": {"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]},
    "m": piece(b"some"),
    "b": piece(b"all", more=False),
    "p": {"type": "http.response.pathsend", "path": __file__},
    "t": {"type": "http.response.trailers", "headers": [(b"x-a", b"1")], "more_trailers": True},
    "T": {"type": "http.response.trailers", "headers": [(b"x-b", b"1")]},
    "x": {"type": "http.response.push"},
}

# What may be sent by the specification: the beginnings of "h*s[hm]*[bp]" and, with trailers that
# are announced, of "h*a[hm]*[bp][ht]*T".
ALLOWED = re.compile("h*(s[hm]*[bp]?|a[hm]*([bp]([ht]*T?))?)?")


def give(call: AsgiCall, name: str) -> str:
    """Sends a message, and returns what the error says; empty if there is none."""
    try:
        send(call, MESSAGES[name]).send(None)
    except StopIteration:
        return ""
    except (ClientDisconnectedError, MisusedProtocol) as problem:
        return str(problem)
    raise AssertionError("it waits for the client")


@pytest.mark.parametrize(("method", "http11"), [("GET", True), ("GET", False), ("HEAD", True)])
def test_what_may_be_sent_is_what_the_specification_says(method: str, http11: bool) -> None:
    """Also of clients that no trailers reach."""
    todo = [""]
    for before in todo:
        for name in MESSAGES:
            with call_of(owner_of_calls()) as (call, _):
                call.request = Request({}, method.encode(), http11, http11, None, None)
                assert not any(give(call, each) for each in before)
                allowed = ALLOWED.fullmatch(before + name) is not None
                said = give(call, name)
                assert (not said) == allowed, (before, name, said)
                if allowed and len(before) < 4:
                    todo.append(before + name)


def complete(call: AsgiCall) -> None:
    """The client has yet to take it."""
    call.start(START)
    call.body(b"", more=False, closing=False)


WAYS: dict[ResponseState, Callable[[AsgiCall], object]] = {
    S.NOT_STARTED: lambda call: None,
    S.STARTED: lambda call: give(call, "s"),
    S.BODY: lambda call: (give(call, "s"), give(call, "m")),
    S.TRAILERS: lambda call: (give(call, "a"), give(call, "b")),
    S.COMPLETE: complete,
    S.CUT: lambda call: setattr(call, "response_state", S.CUT),
    S.ENDED: lambda call: (give(call, "s"), give(call, "b")),
    S.GIVEN_UP: lambda call: call.expire(),
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("state", S)
def test_each_message_in_each_state(state: ResponseState, name: str) -> None:
    """A message has the error of the table, and one without an error the effect of a successor."""
    row = TABLE[state]
    kind = MESSAGES[name]["type"]
    wanted = row.refusals.get(kind, row.other).format(kind)
    with call_of(owner_of_calls()) as (call, _):
        WAYS[state](call)
        assert call.response_state is state
        assert give(call, name) == wanted
        if wanted:
            assert call.response_state is state


@pytest.mark.parametrize("kind", ["x", "{}", 7, ["http.response.body"], None])
@pytest.mark.parametrize("state", S)
def test_no_state_takes_what_is_no_message(state: ResponseState, kind: Any) -> None:
    with call_of(owner_of_calls()) as (call, _):
        WAYS[state](call)
        with pytest.raises(MisusedProtocol):
            call.must_take(kind)


def cut(call: AsgiCall, message: Message) -> ResponseState:
    """Cancels a message of which the client has a part; returns the state until then."""

    async def cancelled() -> ResponseState:
        call.owner.loop = asyncio.get_running_loop()
        sending = asyncio.create_task(send(call, message))
        while not call.drained:
            await asyncio.sleep(0)
        before = call.response_state
        sending.cancel()
        await asyncio.wait([sending])
        return before

    return asyncio.run(cancelled())


def test_the_successors_are_those_that_happen() -> None:
    found: dict[ResponseState, set[ResponseState]] = {state: set() for state in S}
    actions: list[Callable[[AsgiCall], object]] = [
        lambda call: call.start(START),
        lambda call: call.body(b"x", more=True, closing=False),
        lambda call: call.body(b"x", more=False, closing=False),
        lambda call: call.trailers(MESSAGES["T"]),
        lambda call: call.finish() if call.complete else None,
        lambda call: None if call.over else call.fail(RuntimeError()),
        lambda call: None if call.over else call.expire(),
    ]
    for state in S:
        for announced in (False, True):
            for action in actions:
                with call_of(owner_of_calls()) as (call, _):
                    WAYS[state](call)
                    if announced:
                        call.after_body = S.TRAILERS
                    try:
                        action(call)
                    except MisusedProtocol:
                        continue
                    found[state].add(call.response_state)
    for start in ("s", "a"):
        for more in (False, True):
            with call_of(owner_of_calls()) as (call, _):
                give(call, start)
                found[cut(call, piece(b"x" * 300_000, more=more))].add(call.response_state)
    for state in S:
        assert found[state] - {state} == TABLE[state].successors, state


def test_the_states_that_have_a_name_together() -> None:
    assert {state for state in S if "http.response.start" in TABLE[state].refusals} == set(S) - (
        DISCONNECTED | OVER | {S.COMPLETE}
    )
    assert {S.NOT_STARTED, S.STARTED} == UNANSWERED
    assert {S.ENDED, S.GIVEN_UP} == OVER


@pytest.mark.parametrize(
    "wrong", [piece(b"long"), piece(b"long", more=False), piece(b"x", more=False)]
)
def test_a_message_that_is_refused_leaves_the_response_as_it_is(wrong: Message) -> None:
    """An application that sends a better one is served, with the head."""
    with call_of(owner_of_calls()) as (call, client):
        call.start(LENGTH)
        for body in (b"a", b"bc"):
            with pytest.raises(MisusedProtocol, match="Content-Length of 3"):
                asyncio.run(send(call, wrong))
            asyncio.run(send(call, piece(body, more=body == b"a")))
        sent = take(call, client)
    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\n\r\nabc")
