"""A generation: one loaded configuration and its listeners; its workers hold the application."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from prefork import address
from prefork.config import Config, ConfigError, LoadedConfig, Problem, Source, cpus, load
from prefork.listeners import Listener, ListenOptions, open_listeners
from prefork.master.pool.plan import GenerationSettings
from prefork.pool_bounds import PoolBounds
from prefork.worker.boot.service_factory import import_parts

if TYPE_CHECKING:
    import ssl  # by hand below: it costs each process three megabytes


class Generation(Struct, eq=False):
    number: int
    loaded: LoadedConfig
    listeners: list[Listener]
    tls: "ssl.SSLContext | None" = None
    """Loaded by the master, since its workers may not have the right to read the key."""
    metrics: Listener | None = None
    """The listener on which the master serves metrics."""

    @property
    def config(self) -> Config:
        return self.loaded.config

    def import_asgi_parts(self) -> None:
        """A worker has found that the application is one of ASGI (protocol "auto").

        Workers that are forked later share these modules, and do not mix them with those of
        another version that is installed meanwhile.
        """
        server = self.config.server
        if server.protocol == "auto":
            import_parts(replace(self.config, server=replace(server, protocol="asgi")))

    @property
    def held(self) -> list[Listener]:
        """All listeners: those of the workers, and the master's own."""
        return [*self.listeners, *([self.metrics] if self.metrics is not None else [])]

    @property
    def settings(self) -> GenerationSettings:
        workers = self.config.workers
        return GenerationSettings(
            count=workers.count,
            boot_timeout=workers.boot_timeout,
            graceful_timeout=workers.graceful_timeout,
            bounds=PoolBounds(workers.min, workers.max, workers.spare) if workers.spare else None,
            # What a zygote forks has nothing left to import.
            at_once=0 if workers.preload else cpus.available(),
            drain_timeout=workers.drain_timeout,
        )

    @property
    def options(self) -> ListenOptions:
        return listen_options(self.config)


def listen_options(config: Config) -> ListenOptions:
    server = config.server
    return ListenOptions(
        backlog=server.backlog,
        unix_mode=server.unix_mode,
        unix_owner=server.unix_owner,
        ipv6_only=server.ipv6_only,
        # In HTTP the client sends first; in a handler's own protocol the server may.
        defer_accept=server.protocol != "tcp",
    )


def prepare(source: Source, number: int, kept: Sequence[Listener] = ()) -> Generation:
    """Reads the configuration anew and opens the listeners that it adds to `kept`.

    Raises ConfigError or ListenError, and then nothing has changed.
    """
    loaded = load(source)
    import_parts(loaded.config)
    return _open(loaded, tls_context(loaded), number, kept)


def renew(serving: Generation, number: int, kept: Sequence[Listener]) -> Generation:
    """A generation of the same configuration, with new listeners for those that lost their file.

    Raises ListenError, and then nothing has changed.
    """
    return _open(serving.loaded, serving.tls, number, kept)


def _open(
    loaded: LoadedConfig, context: "ssl.SSLContext | None", number: int, kept: Sequence[Listener]
) -> Generation:
    config = loaded.config
    own = [config.metrics.bind] if config.metrics.bind is not None else []
    addresses = [address.parse(text) for text in (*config.server.bind, *own)]
    listeners = open_listeners(addresses, listen_options(config), kept)
    metrics = listeners.pop() if own else None
    return Generation(number, loaded, listeners, context, metrics)


def tls_context(loaded: LoadedConfig) -> "ssl.SSLContext | None":
    """The context for the certificate in [tls], None if there is none.  Raises ConfigError."""
    if loaded.config.tls.certificate is None:
        return None
    from prefork import certificates

    try:
        return certificates.server_context(loaded.config.tls)
    except certificates.TlsError as error:
        where = loaded.origins.get(error.key, "")
        raise ConfigError([Problem(where, error.key, str(error))]) from None
