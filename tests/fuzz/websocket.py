"""Our reader of WebSocket frames against others: random inputs, for as long as wanted.

    python -m tests.fuzz.websocket --seconds 600 --seed 1

Of each input it is checked that websockets and wsproto read the same messages and control frames,
but for what `explained` names, and that it reads the same whole, byte by byte, and in pieces at
random.  What fails is printed; the exit status is 1 then.
"""

import argparse
import sys
from collections import Counter
from random import Random
from time import monotonic

from prefork.websocket.frame_reader import CloseFrame
from tests.fuzz.websocket_inputs import frames, pick
from tests.support.websocket_frames import TAKEOVER, frames_read
from tests.support.websocket_peers import Reading, by_websockets, by_wsproto
from tests.unit.reading import cut, pieces_of

_MOST_FAILURES = 20
_REGISTERED = (1012, 1013, 1014)
_REFUSED = "the other refuses a code that IANA has registered"


def ours(data: bytes, *, deflate: bool = False) -> Reading:
    found = frames_read([data], 1 << 20, TAKEOVER if deflate else None)
    received = [each for each in found if not isinstance(each, int)]
    return Reading(received, len(received) < len(found))


def explained(ours: Reading, theirs: Reading) -> str:
    """Why a difference is none of ours; empty if it has to be looked at."""
    shared = len(ours.received)
    if ours.violated and theirs.received[:shared] == ours.received:
        if not theirs.violated and len(theirs.received) == shared:
            return "we see a violation before its frame is complete"
        return "we refuse what the other takes"
    rest = ours.received[len(theirs.received) :]
    if theirs.violated and theirs.received == ours.received[: len(theirs.received)]:
        if any(isinstance(each, CloseFrame) and each.code in _REGISTERED for each in rest):
            return _REFUSED
        if len(rest) == 1 and isinstance(rest[0], CloseFrame):
            return "the other refuses a close frame within a fragmented message"
        if not rest and ours.received and isinstance(ours.received[-1], CloseFrame):
            return "the other reads beyond a close frame"
    return ""


def compare(data: bytes, report: Counter[str], *, deflate: bool) -> list[str]:
    """What is read in two ways, as texts."""
    found = []
    mine = ours(data, deflate=deflate)
    peers = {"websockets": by_websockets(data, deflate=deflate)}
    if not deflate:
        peers["wsproto"] = by_wsproto(data)
    for name, theirs in peers.items():
        if theirs != mine:
            why = explained(mine, theirs)
            report[f"{name}: {why}"] += 1
            if not why:
                found.append(f"{name}: {theirs}\n    ours: {mine}\n    {data!r}")
    return found


def split_differently(data: bytes, rng: Random, *, deflate: bool) -> list[str]:
    """Ways to cut an input in which it is read in another way than whole."""
    parameters = TAKEOVER if deflate else None
    most = rng.choice((0, 100, 1000))

    def read(pieces: list[bytes]) -> list[object]:
        found = frames_read(pieces, most, parameters)
        # An error of zlib hides what the same bytes inflate to before it, be it no UTF-8 or too
        # much: of a compressed message the code depends on the pieces.
        return [("violated" if deflate and isinstance(each, int) else each) for each in found]

    whole = read([data])
    places = [rng.randint(0, len(data)) for _ in range(rng.randint(1, 4))]
    return [
        f"in pieces of {[len(piece) for piece in pieces][:20]}, bound {most}\n    {data!r}"
        for pieces in (cut(data, places), pieces_of(data, 1 if len(data) < 3000 else 97))
        if read(pieces) != whole
    ]


def checked(rng: Random, report: Counter[str]) -> list[str]:
    """What is wrong with the reading of an input at random."""
    deflate = rng.random() < 0.3
    data = pick(rng, deflate=deflate)
    wrong = split_differently(data, rng, deflate=deflate)
    if deflate:
        # Where changed bytes are no deflate stream any more, each inflater makes something else of
        # them, and websockets reads nothing beyond a final block.
        data = frames(rng, deflate=True)
    return wrong + compare(data, report, deflate=deflate)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = Random(given.seed)
    report: Counter[str] = Counter()
    failures: list[str] = []
    inputs = 0
    until = monotonic() + given.seconds
    while monotonic() < until and len(failures) < _MOST_FAILURES:
        inputs += 1
        failures += checked(rng, report)
    print(f"seed {given.seed}: {inputs} inputs")
    for name, count in report.most_common():
        print(f"explained: {count} x {name}")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
