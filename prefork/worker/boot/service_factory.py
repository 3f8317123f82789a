"""From the configuration to the service that answers: HTTP or TCP."""

from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from prefork import __version__
from prefork.apps import application_loader
from prefork.apps.application_loader import LoadError, load
from prefork.apps.health import Health
from prefork.apps.wsgi import Application, FileWrapper, errors_stream
from prefork.config import Config
from prefork.config.values import FORWARDING_HEADERS
from prefork.http.request_id import RequestIds
from prefork.http.response_head import name_server
from prefork.http.untrusted_proxy import disbelieved, untrusted_proxies
from prefork.scoreboard import ThreadRecord
from prefork.worker.boot import untrusted_proxy_warning
from prefork.worker.boot.warmup import warm_up
from prefork.worker.boot.worker_args import WorkerArgs
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.descriptor_limit import descriptor_limit
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.service_interface import Service
from prefork.worker.schedule.threads import LeaderFollowers
from prefork.worker.service.admission import Admission
from prefork.worker.service.http_service import HttpService
from prefork.worker.service.listener_profile import listener_profile
from prefork.worker.service.refusals import Refusals
from prefork.worker.service.wsgi_caller import WsgiCaller, report_unreadable
from prefork.worker.transport.client_limits import ClientLimits


class ServiceParts(Struct, frozen=True):
    """What a service works with."""

    args: WorkerArgs
    threads: LeaderFollowers | None
    handover: Handover
    records: Sequence[ThreadRecord]
    """Of the worker, on the scoreboard; for each this one object, which knows what it counted."""


ServiceFactory = Callable[[ServiceParts], Service]
"""Creates the service in a worker, when the application is loaded."""


def import_parts(config: Config) -> None:
    """As `prefork.apps.application_loader.import_parts`, for all that a worker needs."""
    application_loader.import_parts(config)
    if config.server.protocol == "tcp":
        import prefork.worker.service.tcp_service
    if config.server.protocol == "asgi":
        import prefork.worker.boot.asgi_factory
        from prefork.worker.schedule.event_loop import import_loop

        import_loop(config.workers.loop)
    if config.server.protocol in ("auto", "wsgi") and config.workers.threads > 1:
        import prefork.worker.service.wsgi_websockets
    if config.tls.certificate is not None or config.http.trusted_proxies:
        import prefork.worker.protocol.connection_opening
    if config.tls.certificate is not None:
        import prefork.worker.transport.tls_transport  # noqa: F401


class LoadedService(Struct, frozen=True):
    """An application that is imported."""

    config: Config
    """The worker's, with the protocol of the application."""
    create: ServiceFactory


def load_service(config: Config) -> LoadedService:
    """Imports the application, and returns what creates its service.

    Raises LoadError, and whatever the application's own code raises when it is imported.
    """
    config, application = load(config)
    if config.server.protocol == "tcp":
        return LoadedService(config, partial(_tcp_service, application))
    if config.server.protocol == "asgi":
        from prefork.worker.boot.asgi_factory import asgi_service

        return LoadedService(config, partial(asgi_service, application))
    return LoadedService(config, partial(_http_service, application))


def _tcp_service(handler: Callable[..., object], parts: ServiceParts) -> Service:
    from prefork.http.forwarded import trust
    from prefork.worker.service.tcp_service import TcpService

    args = parts.args
    http = args.config.http
    return TcpService(
        *(handler, parts.threads, parts.handover, args.scoreboard.stats_writer(args.slot)),
        request_timeout=args.config.workers.request_timeout,
        graceful_timeout=args.config.workers.graceful_timeout,
        header_timeout=http.header_timeout,
        proxies=trust(http.trusted_proxies) if http.proxy_protocol else None,
    )


def _http_service(application: Application, parts: ServiceParts) -> Service:
    args = parts.args
    config, scoreboard = args.config, args.scoreboard
    workers, http = config.workers, config.http
    surroundings = http_surroundings(args, multithread=workers.threads > 1)
    profiles = [
        listener_profile(
            *(listener, config, args.tls, surroundings.environ),
            surroundings.admission.admit_proxied,
        )
        for listener in args.listeners
    ]
    warm_up(application, workers.warmup, profiles[0].environ if profiles else {})
    if http.health_path is not None:
        application = Health(application, http.health_path, surroundings.draining)
    stats = scoreboard.stats_writer(args.slot)
    access = args.logs.access_log(report_unreadable)
    websockets = None
    if workers.threads > 1:
        from prefork.worker.service.wsgi_websockets import WsgiWebsockets

        websockets = WsgiWebsockets(workers.graceful_timeout)
    caller = WsgiCaller(
        *(application, parts.threads, stats),
        access=access,
        ids=surroundings.ids,
        proxies=bool(http.trusted_proxies),
        draining=surroundings.draining if workers.drain_delay else None,
        websockets=websockets,
    )
    return HttpService(
        *(caller, ClientLimits.of(http), parts.threads, parts.handover, stats, profiles),
        admission=surroundings.admission,
        refusals=Refusals(access),
        request_timeout=workers.request_timeout,
        graceful_timeout=workers.graceful_timeout,
        websockets=websockets,
    )


class HttpSurroundings(Struct, frozen=True):
    """What services of HTTP have in common, whatever the kind of the application."""

    admission: Admission[HttpConnection]
    ids: RequestIds | None
    environ: dict[str, object]
    """What the environ of each request begins with, whichever the listener."""
    draining: Callable[[], bool]
    """The server is about to stop, though it serves on."""


def http_surroundings(args: WorkerArgs, *, multithread: bool) -> HttpSurroundings:
    """Sets what holds for the process, and makes what a service needs.

    Raises LoadError if the certificate is missing.
    """
    config, scoreboard = args.config, args.scoreboard
    http = config.http
    if config.tls.certificate is not None and args.tls is None:
        raise LoadError("the certificate could not be read again at the upgrade: reload")
    _keep_freed_memory()
    name_server(http.server_header)
    untrusted_proxies.report = untrusted_proxy_warning.warn
    untrusted_proxies.report_header = untrusted_proxy_warning.warn_of_header
    untrusted_proxies.disbelieved = disbelieved(FORWARDING_HEADERS, http.trusted_headers)
    admission: Admission[HttpConnection] = Admission(
        http.max_connections,
        http.max_connections_per_address,
        descriptors=descriptor_limit(),
        share=http.address_share,
    )
    environ = {
        "SERVER_SOFTWARE": f"prefork/{__version__}",
        "wsgi.errors": errors_stream(),
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": True,
        "wsgi.file_wrapper": FileWrapper,
        "prefork.slot": args.slot,
        "prefork.generation": args.generation,
    }
    ids = RequestIds(http.request_id_header) if http.request_id_header is not None else None
    return HttpSurroundings(admission, ids, environ, lambda: scoreboard.draining)


def _keep_freed_memory() -> None:
    """Lets malloc keep what bodies took for the next ones, up to 62 MiB.

    glibc gives what is free at the end of its heap back to the kernel when that is more than twice
    the largest block that it mapped, and that was freed; 128 KiB before there was any (mallopt(3)).
    To get it back takes longer than to receive the body.
    """
    bytes(31 * 1024 * 1024)
