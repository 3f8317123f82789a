"""Which loop a worker runs: by the protocol of its application."""

from collections.abc import Sequence
from typing import Protocol

from prefork.capacity import records_of
from prefork.config import Config
from prefork.scoreboard import ThreadRecord
from prefork.worker.boot.leftovers import report_what_is_waited_for
from prefork.worker.boot.worker_args import WorkerArgs
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.service_interface import Service
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.schedule.wakeup import Wakeup
from prefork.worker.schedule.worker_listener import WorkerListener
from prefork.worker.schedule.worker_loop import WorkerLoop


class RunningLoop(Protocol):
    """The loop of a worker."""

    def create_threads(self) -> None:
        """Creates all threads that the worker will ever need.

        Raises RuntimeError if the kernel has no room for another thread.
        """

    def run(self) -> None:
        """Serves until the worker was ordered to stop and has nothing left to do."""

    def quit(self) -> bool:
        """The server stops at once (SIGQUIT, in its handler); returns whether `run` returns soon by
        itself, after what the application does for its end."""


def worker_loop(
    service: Service,
    listeners: Sequence[WorkerListener],
    args: WorkerArgs,
    handover: Handover,
    threads: LeaderFollowers | None,
    records: Sequence[ThreadRecord],
    wakeup: Wakeup,
) -> RunningLoop:
    """The loop for a service; `records`: the worker's."""
    if args.config.server.protocol == "asgi":
        from prefork.worker.schedule.async_worker_loop import AsyncWorkerLoop
        from prefork.worker.service.asgi_service import AsgiService

        assert isinstance(service, AsgiService)
        return AsyncWorkerLoop(
            *(service, service.caller.loop, listeners, args.channel, args.logs.replace, handover),
            *(records[-1], wakeup),
            master=args.master,
            closing=report_what_is_waited_for,
        )
    return WorkerLoop(
        *(service, listeners, args.channel, args.logs.replace, handover, threads),
        *(records[0], wakeup),
        master=args.master,
    )


def shown_calls(config: Config) -> int:
    """The records that are in use once a worker can take no further call.

    With an event loop the last record is the loop's own, and the others are used from the first on.
    """
    workers = config.workers
    count = records_of(config.server.protocol, workers.threads)
    if config.server.protocol != "asgi":
        return count
    return min(count - 1, workers.max_concurrency or count)
