"""A generation: one loaded configuration and its listeners; its workers hold the application."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefork import address
from prefork.config import Config, Loaded, Source, load
from prefork.listeners import Listener, ListenOptions, open_listeners
from prefork.master.plan import Settings
from prefork.master.sizing import Bounds


@dataclass(eq=False)
class Generation:
    number: int
    loaded: Loaded
    listeners: list[Listener]

    @property
    def config(self) -> Config:
        return self.loaded.config

    @property
    def settings(self) -> Settings:
        workers = self.config.workers
        return Settings(
            count=workers.count,
            boot_timeout=workers.boot_timeout,
            graceful_timeout=workers.graceful_timeout,
            bounds=Bounds(workers.min, workers.max, workers.spare) if workers.spare else None,
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
        # In HTTP the client speaks first; in a protocol of a handler's own, who knows.
        defer_accept=server.protocol != "tcp",
    )


def prepare(source: Source, number: int, kept: Sequence[Listener] = ()) -> Generation:
    """Reads the configuration anew and opens what listeners it adds to `kept`.

    Raises ConfigError or ListenError, and then nothing has changed.
    """
    loaded = load(source)
    addresses = [address.parse(text) for text in loaded.config.server.bind]
    return Generation(
        number, loaded, open_listeners(addresses, listen_options(loaded.config), kept)
    )
