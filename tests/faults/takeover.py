"""Attacks of a worker that was taken over, on its master and on its siblings.

    python -m tests.faults.takeover --seconds 20 --seed 7 --preload

A server of three workers runs an application that does what an attacker would who controls a worker
(tests.apps.hostile).  One attack follows the other, in a random order.  After each the master has
to be the same process and to answer `status`, and a good client has to get its page.  The exit
status is 1 at the first attack after which that is not so; the seed repeats it.
"""

import argparse
import http.client
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic

import psutil

from tests.support.server import Server
from tests.support.waiting import until

WORKERS = 3

EXPECTED = {
    *("worker killed", "worker died", "connection lost", "no hand-over", "listener shut down"),
    *("worker failed to boot", "application failed", "accept failed", "spawn failed"),
}
"""Events of level error that an attack may cause."""


def attack(generator: random.Random) -> str:
    """The query of one attack."""
    inboxes = ("empty", "files", "deep", "shutdown", "path", "strange", "kinds")
    return generator.choice(
        [
            f"packet={generator.choice(['deep', 'nested', 'pid', 'bytes', 'unknown'])}",
            *[f"packet={generator.randrange(1 << 30)}"] * 4,
            f"report={generator.choice(['ready', 'failed', 'crowded'])}&count=200",
            *[f"inboxes={generator.choice(inboxes)}"] * 2,
            "descriptors=1",
            "stacks=1",
            "listeners=1",
        ]
    )


def get(server: Server, path: str) -> int:
    """The status of a request; 0 if its worker was ended, or the listener is away."""
    try:
        return server.get(path)[0]
    except (OSError, http.client.HTTPException):
        return 0


def holds(server: Server) -> bool:
    """Whether the master lives and a good client is served, in a while."""
    try:
        until(lambda: get(server, "/") == 200, "a good client is served")
    except AssertionError:
        return False
    return server.process.poll() is None and len(server.status()["workers"]) > 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--preload", action="store_true", help="with a zygote")
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.randrange(1 << 30)
    generator = random.Random(seed)
    options = ["--workers", str(WORKERS), "--set", f"workers.preload={str(given.preload).lower()}"]
    with tempfile.TemporaryDirectory() as place:
        server = Server("tests.apps.hostile:app", *options, tmp=Path(place))
        server.expected_errors = EXPECTED
        try:
            server.wait_ready(WORKERS)
            return _attack(server, generator, given.seconds, seed)
        finally:
            server.kill()


def _attack(server: Server, generator: random.Random, seconds: float, seed: int) -> int:
    master = psutil.Process(server.pid)
    descriptors, began, spent = master.num_fds(), monotonic(), sum(master.cpu_times()[:2])
    done: Counter[str] = Counter()
    while not done or monotonic() - began < seconds:
        query = attack(generator)
        get(server, f"/?{query}")
        done[query.partition("=")[0]] += 1
        if not holds(server):
            print(f"seed {seed}: the server has not withstood {query}\n{server.log()}")
            return 1
    share = (sum(master.cpu_times()[:2]) - spent) / (monotonic() - began)
    print(
        f"seed {seed}: {sum(done.values())} attacks withstood ({dict(done)}); the master used"
        f" {share:.0%} of a CPU, and has {master.num_fds()} descriptors after {descriptors}"
    )
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
