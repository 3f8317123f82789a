"""From the configuration to the service that answers with an ASGI application, and its loop."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from prefork.apps.application_loader import compressed, load_mounts
from prefork.apps.health import Health
from prefork.apps.wsgi import Application, StartResponse
from prefork.http.request import Environ
from prefork.scoreboard import CallRecords
from prefork.worker.boot.asgi_warmup import warm_up_asgi
from prefork.worker.boot.service_factory import ServiceParts, http_surroundings
from prefork.worker.boot.stack_writer import also_write
from prefork.worker.boot.worker_args import WorkerArgs
from prefork.worker.protocol.asgi_connection import AsgiConnection
from prefork.worker.schedule.event_loop import create_loop
from prefork.worker.service.asgi_caller import AsgiCaller
from prefork.worker.service.asgi_service import AsgiService
from prefork.worker.service.lifespan import Lifespan
from prefork.worker.service.listener_profile import listener_profile
from prefork.worker.service.refusals import Refusals
from prefork.worker.service.task_stack import stacks_of_tasks
from prefork.worker.service.wsgi_caller import WsgiCaller, report_unreadable
from prefork.worker.transport.client_limits import ClientLimits


def asgi_service(application: Callable[..., Any], parts: ServiceParts) -> AsgiService:
    """The service of a worker with an event loop, which is made here, after the fork.

    The application has started when this returns (prefork.worker.service.lifespan).

    Raises LoadError, WarmupError, and whatever a factory of the user's raises.
    """
    args = parts.args
    config, scoreboard = args.config, args.scoreboard
    workers, http = config.workers, config.http
    surroundings = http_surroundings(args, multithread=False)
    profiles = [
        listener_profile(
            *(listener, config, args.tls, surroundings.environ),
            *(surroundings.admission.admit_proxied, AsgiConnection),
        )
        for listener in args.listeners
    ]
    stats = scoreboard.stats_writer(args.slot)
    access = args.logs.access_log(report_unreadable)
    draining = surroundings.draining if workers.drain_delay else None
    beside = _beside(args, surroundings.draining)
    *records, own = parts.records
    loop = create_loop(workers.loop)
    also_write(partial(stacks_of_tasks, loop, {}))  # where a start hangs
    lifespan = Lifespan(application, loop, config.server.lifespan)
    caller = AsgiCaller(
        *(application, loop, CallRecords(records), stats),
        access=access,
        ids=surroundings.ids,
        draining=draining,
        beside=None
        if beside is None
        else WsgiCaller(
            *(beside[0], None, stats),
            access=access,
            ids=surroundings.ids,
            proxies=bool(http.trusted_proxies),
            draining=draining,
        ),
        served_beside=None if beside is None else beside[1],
        proxies=bool(http.trusted_proxies),
        codings=http.compress,
        compress_min_size=http.compress_min_size,
        unix={
            os.fstat(listener.sock.fileno()).st_ino: _path(listener.sock.getsockname())
            for listener in args.listeners
            if not listener.is_tcp
        },
        websocket=config.websocket,
    )
    rules = ClientLimits.of(http, stream=True)

    async def start() -> None:
        await lifespan.start()
        caller.state = lifespan.state
        if workers.warmup and profiles:
            base = profiles[0].environ
            await warm_up_asgi(application, workers.warmup, base, lifespan.state)

    loop.run_until_complete(start())
    service = AsgiService(
        *(caller, lifespan, rules, parts.handover, stats, profiles, own),
        admission=surroundings.admission,
        refusals=Refusals(access),
        request_timeout=workers.request_timeout,
        graceful_timeout=workers.graceful_timeout,
        max_concurrency=workers.max_concurrency,
    )
    also_write(service.stacks)
    return service


def _path(name: str | bytes) -> str:
    """The path of a Unix socket, "" if it has none (unix(7))."""
    return "" if isinstance(name, bytes) else name


def _beside(
    args: WorkerArgs, draining: Callable[[], bool]
) -> tuple[Application, Callable[[str], bool]] | None:
    """What is answered without the ASGI application, and the question whether a path is."""
    config = args.config
    health = config.http.health_path
    if health is None and not config.static.mounts:
        return None
    application: Application = _nothing
    find: Callable[[str], object] | None = None
    if config.static.mounts:
        mounts = load_mounts(config, _nothing)
        find = mounts.find
        application = compressed(config, mounts)
    if health is not None:
        application = Health(application, health, draining)

    def served(path: str) -> bool:
        return path == health or (find is not None and find(path) is not None)

    return application, served


def _nothing(environ: Environ, start_response: StartResponse) -> list[bytes]:
    raise AssertionError("a path of the ASGI application")
