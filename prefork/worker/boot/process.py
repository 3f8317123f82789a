"""A worker's birth and farewell.

The master has forked with every signal blocked; here the child takes leave of what it inherited,
loads the application, and goes into its loop.  It never returns into the master's code.  One that
a zygote has forked finds the application loaded.
"""

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

import setproctitle
from msgspec import Struct

import prefork
from prefork import __version__, linux, logs, systemd
from prefork.apps import application_loader
from prefork.apps.application_loader import LoadError, load_target
from prefork.apps.health import Health
from prefork.apps.wsgi import FileWrapper, errors_stream
from prefork.channel import Channel, FailedReport
from prefork.config import Config
from prefork.http.disk_budget import DiskBudget
from prefork.http.head_cache import HeadCache
from prefork.http.memory_budget import MemoryBudget
from prefork.http.request_id import RequestIds
from prefork.http.request_parser import RequestLimits
from prefork.http.response_head import name_server
from prefork.listeners import Listener
from prefork.scoreboard import Scoreboard
from prefork.worker.boot.hooks import Hooks, WorkerInfo
from prefork.worker.boot.resource_limits import bind_to_cpus, limit
from prefork.worker.boot.rights import restrain
from prefork.worker.boot.stack_writer import offer
from prefork.worker.boot.warmup import WarmupError, warm_up
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.accept import WAKE
from prefork.worker.schedule.descriptor_limit import descriptor_limit
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.worker_listener import WorkerListener
from prefork.worker.schedule.worker_loop import Service, WorkerLoop
from prefork.worker.service.admission import Admission
from prefork.worker.service.http_service import HttpService, base_environ
from prefork.worker.transport.client_limits import ClientLimits

FAILED_TO_BOOT = 3
"""Exit status of a worker whose application could not be loaded."""

# A terminal sends INT, HUP and WINCH to its whole foreground group: the master decides on them.
# Not SIG_IGN, which the application's own programs would inherit over exec(2).
_IGNORED = (
    *(signal.SIGINT, signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGTTIN, signal.SIGTTOU, WAKE),
)


class WorkerContext(Struct, frozen=True):
    """What every process of a generation is given."""

    generation: int
    name: str
    master: int
    """Process id of the master."""
    config: Config
    listeners: tuple[Listener, ...]
    tls: Any
    """An ssl.SSLContext, or None."""
    scoreboard: Scoreboard
    logs: logs.Logs


class WorkerArgs(WorkerContext, frozen=True):
    """What a worker is given."""

    slot: int
    channel: Channel
    foreign: tuple[int, ...]
    """Descriptors that are the parent's alone."""


class LoadedApplication(Struct, frozen=True):
    """What a zygote has imported for its workers."""

    hooks: Hooks
    application: Any


def fork(life: Callable[[], NoReturn]) -> int:
    """Forks a process that begins with all signals blocked; returns its id. Raises OSError.

    Blocked until the child has handlers of its own: in between, the parent's would run in it.
    """
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            life()
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def live(birth: WorkerArgs, loaded: LoadedApplication | None = None) -> NoReturn:
    """The whole life of a worker, in the child of a fork with all signals blocked.

    `loaded`: where a zygote has forked it; what was the master's is gone then.
    """
    status = 1
    try:
        if loaded is None:
            leave_master(birth.foreign)
        else:
            _close(birth.foreign)
        _take_place(birth)
        status = _work(birth, loaded)
    except BaseException as problem:
        # Nothing may climb back into the master's stack.
        logs.event("error", "worker failed", traceback=logs.traceback_of(problem))
    finally:
        _exit(status)


def import_parts(config: Config) -> None:
    """As `prefork.apps.application_loader.import_parts`, for all that a worker needs."""
    application_loader.import_parts(config)
    if config.server.protocol == "tcp":
        import prefork.worker.service.tcp_service
    if _is_secured(config):
        import prefork.worker.protocol.secured_connection
    if config.tls.certificate is not None:
        import prefork.worker.transport.tls_transport  # noqa: F401


def _is_secured(config: Config) -> bool:
    """Whether a listener may ask for more than plain HTTP."""
    return config.tls.certificate is not None or bool(config.http.trusted_proxies)


def leave_master(foreign: Iterable[int]) -> None:
    """Drops what is the master's: signals, descriptors, callbacks."""
    signal.set_wakeup_fd(-1)  # an inherited one writes our signals into the master's pipe
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for ignored in _IGNORED:
        signal.signal(ignored, _ignore)
    _close(foreign)
    atexit._clear()
    if "logging" in sys.modules:  # of a program that called prefork.serve()
        atexit.register(sys.modules["logging"].shutdown)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _take_place(birth: WorkerArgs) -> None:
    """Becomes a worker, for all to see, that does not outlive the master."""
    logs.set_role("worker", slot=birth.slot, generation=birth.generation)
    setproctitle.setproctitle(f"prefork: worker {birth.slot} [{birth.name}]")
    linux.set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != birth.master:
        os._exit(0)  # it died before we asked to be told
    birth.scoreboard.confine(birth.slot)
    offer(birth.channel)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _ignore(*_: object) -> None:
    pass


def _work(birth: WorkerArgs, loaded: LoadedApplication | None) -> int:
    listeners = [WorkerListener(inherited.sock) for inherited in birth.listeners]
    protect_children([*(listener.sock for listener in listeners), birth.channel])
    threads = birth.config.workers.threads
    loop = WorkerLoop(
        listeners,
        birth.channel,
        birth.logs.replace,
        Handover(birth.scoreboard, birth.slot, threads),
        [birth.scoreboard.record(birth.slot, thread) for thread in range(threads)],
        birth.scoreboard.accept_flags(birth.slot),
        # A protocol of a handler's own may keep its connections.
        slow=birth.config.server.protocol == "tcp",
    )
    worker = WorkerInfo(birth.slot, birth.generation, os.getpid(), birth.name)
    try:
        bind_to_cpus(birth.config.process.cpu_affinity, birth.slot)
        hooks = prepare(birth) if loaded is None else loaded.hooks
        hooks.call("after_fork", worker)
        application = load_target(birth.config) if loaded is None else loaded.application
        service = _service(birth, application, listeners, loop)
        hooks.call("ready", worker)
    except (LoadError, WarmupError, logs.LogError) as problem:
        birth.channel.send(FailedReport(str(problem)))
        return FAILED_TO_BOOT
    except BaseException:  # an application may call sys.exit when it is imported
        birth.channel.send(FailedReport(application_traceback()))
        return FAILED_TO_BOOT
    os.register_at_fork(after_in_child=service.after_fork_in_child)
    os.register_at_fork(after_in_child=loop.handover.after_fork_in_child)
    signal.signal(signal.SIGQUIT, lambda *_: _leave_now(service))
    # What the import left behind is not looked at again by each collection.
    gc.freeze()
    loop.run(service)
    service.flush()  # a last request may have come after the last wait
    hooks.call_last("before_exit", worker)
    return 0


def prepare(heritage: WorkerContext) -> Hooks:
    """Makes the application's surroundings, and finds its hooks.

    Raises LoadError, LogError, and whatever the hooks' modules raise when they are imported.
    """
    config = heritage.config
    limit(config.process.limits)
    heritage.logs.reconfigure(config.log)
    _settle_in(config, restrain(config.process, heritage.master))
    return Hooks(config.workers.hooks)


def _settle_in(config: Config, user: dict[str, str]) -> None:
    """Environment, directory and module path of the application; `user`: variables of its own."""
    server = config.server
    systemd.forget(os.environ)
    os.environ.update(user | server.env)
    try:
        os.chdir(server.chdir)
    except OSError as problem:
        raise LoadError(f"server.chdir: {server.chdir}: {problem.strerror}") from None
    for path in reversed((server.chdir, *server.pythonpath)):
        if path not in sys.path:
            sys.path.insert(0, path)
    logs.configure_application(config.log.config)


def _keep_freed_memory() -> None:
    """Lets malloc keep what a piece of a body took for the next piece.

    glibc gives what is free at the end of its heap back to the kernel when that is more than twice
    the largest block that it mapped, and that was freed; 128 KiB before there was any (mallopt(3)).
    """
    bytearray(1024 * 1024)


def _service(
    birth: WorkerArgs, application: Any, listeners: list[WorkerListener], loop: WorkerLoop
) -> Service:
    config = birth.config
    workers = config.workers
    http = config.http
    stats = birth.scoreboard.stats_writer(birth.slot)
    if config.server.protocol == "tcp":
        from prefork.http.forwarded import trust
        from prefork.worker.service.tcp_service import TcpService

        return TcpService(
            *(application, loop.threads, loop.handover, stats),
            request_timeout=workers.request_timeout,
            header_timeout=http.header_timeout,
            proxies=trust(http.trusted_proxies) if http.proxy_protocol else None,
        )
    _keep_freed_memory()
    budget, disk = MemoryBudget(http.buffer_memory), DiskBudget(http.buffer_disk)
    rules = ClientLimits(
        limits=RequestLimits(
            request_line=http.max_request_line,
            header_count=http.max_header_count,
            header_size=http.max_header_size,
            body=http.max_body,
            body_memory=http.body_memory,
            budget=budget,
            disk=disk,
            stream=http.stream_body,
        ),
        keepalive=http.keepalive,
        keepalive_requests=http.keepalive_requests,
        header_timeout=http.header_timeout,
        body_timeout=http.body_timeout,
        min_body_rate=http.min_body_rate,
        write_timeout=http.write_timeout,
        min_write_rate=http.min_write_rate,
        response_memory=http.response_memory,
        response_spill=http.response_spill,
        budget=budget,
        disk=disk,
    )
    if config.tls.certificate is not None and birth.tls is None:
        raise LoadError("the certificate could not be read again at the upgrade: reload")
    name_server(http.server_header)
    for listener, inherited in zip(listeners, birth.listeners, strict=True):
        secured = None
        if _is_secured(config):
            from prefork.worker.protocol.secured_connection import security

            secured = security(config, str(inherited.address), birth.tls)
        listener.converse = HttpConnection if secured is None else secured.converse
        listener.recall = HeadCache() if secured is None else None
        listener.trusts = secured.trusts if secured is not None else None
        listener.base = base_environ(
            _server_address(inherited),
            tls=secured is not None and secured.seal is not None,
            **{
                "SERVER_SOFTWARE": f"prefork/{__version__}",
                "wsgi.errors": errors_stream(),
                "wsgi.multithread": workers.threads > 1,
                "wsgi.multiprocess": True,
                "wsgi.file_wrapper": FileWrapper,
                "prefork.slot": birth.slot,
                "prefork.generation": birth.generation,
            },
        )
    warm_up(application, workers.warmup, listeners[0].base if listeners else {})
    scoreboard = birth.scoreboard

    def draining() -> bool:
        return scoreboard.draining

    if http.health_path is not None:
        application = Health(application, http.health_path, draining)
    service = HttpService(
        application,
        rules,
        loop.threads,
        loop.handover,
        stats,
        admission=Admission(
            http.max_connections,
            http.max_connections_per_address,
            descriptors=descriptor_limit(),
        ),
        request_timeout=workers.request_timeout,
        graceful_timeout=workers.graceful_timeout,
        access=birth.logs.access_log(),
        ids=RequestIds(http.request_id_header) if http.request_id_header is not None else None,
        proxies=bool(http.trusted_proxies),
        draining=draining if workers.drain_delay else None,
    )
    if http.proxy_protocol:
        for listener in listeners:
            listener.admit = service.admit
    return service


def _server_address(listener: Listener) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT, which CGI wants even where there is no port (RFC 3875)."""
    if not listener.is_tcp:
        return "localhost", "80"
    host, port = listener.sock.getsockname()[:2]
    return host, str(port)


class _Closable(Protocol):
    def close(self) -> None: ...


def protect_children(ours: Iterable[_Closable], applies: Callable[[], bool] = lambda: True) -> None:
    """An application's own forks get default signals, and hold none of our sockets open.

    With a listener in a forgotten child, a stopped server would go on accepting for nobody; with
    the channel in it, the master would not see the worker's end.  `applies` is asked in the child.
    """

    def in_child() -> None:
        if not applies():
            return
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGQUIT, *_IGNORED):
            signal.signal(number, signal.SIG_DFL)
        for each in ours:
            with contextlib.suppress(OSError):
                each.close()

    os.register_at_fork(after_in_child=in_child)


def application_traceback() -> str:
    """The exception under way, without our own frames above the application's."""
    problem = sys.exc_info()[1]
    assert problem is not None
    import traceback

    frames = traceback.extract_tb(problem.__traceback__)
    here = os.path.dirname(prefork.__file__)
    ours = 0
    while ours < len(frames) and _is_ours(frames[ours].filename, here):
        ours += 1
    shown = traceback.TracebackException.from_exception(problem)
    shown.stack = traceback.StackSummary.from_list(frames[ours:] or frames)
    return "".join(shown.format()).rstrip()


def _is_ours(filename: str, here: str) -> bool:
    return filename.startswith((here, "<frozen importlib")) or "/importlib/" in filename


def _leave_now(service: Service) -> None:
    """SIGQUIT: the server stops now."""
    service.flush()
    os._exit(0)


def _exit(status: int) -> NoReturn:
    """Ends as an interpreter would, with the callbacks that the application registered."""
    try:
        if status == 0:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(status)
