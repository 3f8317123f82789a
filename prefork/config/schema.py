"""The configuration: every section and key, with its type, bounds and default.

The structs hold *resolved* values, those that the server runs with. The `ValueKind` beside each
type has the reader of the values in a file ("64KiB", "auto", a relative path) and describes them
for problems. Durations are in seconds and sizes in bytes; 0 means no limit. `conf/prefork.toml` is
the manual."""

from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct, field

from prefork.capacity import THREADS_MAX, WORKERS_MAX
from prefork.config import resource_values, values
from prefork.config.values import AUTO, GIB, KIB, MIB, ValueKind

SECONDS_MAX = 2_000_000
"""About 23 days: epoll_wait(2) takes its timeout as milliseconds in a C int."""

INT_MAX = 2**31 - 1


def _one_of(literal: Any) -> ValueKind:
    *first, last = (f'"{choice}"' for choice in get_args(literal))
    return ValueKind(f"{', '.join(first)} or {last}")


_PATH = ValueKind("a path", values.read_path)

Flag = Annotated[bool, ValueKind("true or false")]
Path = Annotated[str, _PATH]
OptionalPath = Annotated[str | None, _PATH]
Count = Annotated[int, Meta(ge=0, le=INT_MAX), ValueKind("an integer of at least 0")]
Seconds = Annotated[
    float, Meta(ge=0, le=SECONDS_MAX), ValueKind(f"seconds from 0 (no limit) to {SECONDS_MAX}")
]
Size = Annotated[
    int,
    Meta(ge=0, le=2**63 - 1),
    ValueKind(
        'a size in bytes or such as "64KiB", 0 for no limit', values.read_size, values.show_size
    ),
]

WorkersOrNone = Annotated[
    int, Meta(ge=0, le=WORKERS_MAX), ValueKind(f"an integer from 0 to {WORKERS_MAX}")
]

Protocol = Literal["auto", "wsgi", "asgi", "static", "tcp"]
Lifespan = Literal["auto", "on", "off"]
StandardInput = Literal["null", "inherit"]
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]
LogWriting = Literal["auto", "direct", "process"]
Sandbox = Literal["off", "best-effort", "require"]
AccessFormat = Literal["common", "combined", "json"]
TlsVersion = Literal["1.2", "1.3"]
ClientAuth = Literal["none", "optional", "required"]


class Server(Struct, frozen=True, kw_only=True):
    """[server]: the application, its addresses and its environment."""

    app: Annotated[
        str | None, ValueKind('"module:callable" or "module:factory()"', values.read_app)
    ] = None
    protocol: Annotated[Protocol, _one_of(Protocol)] = "auto"
    lifespan: Annotated[Lifespan, _one_of(Lifespan)] = "auto"
    bind: Annotated[
        tuple[str, ...], ValueKind("an address or a list of them", values.read_bind)
    ] = ("127.0.0.1:8000",)
    name: Annotated[str, ValueKind("a name", values.read_name)] = (
        ""  # the file's stem, or first address
    )
    chdir: Path = "."  # the file's directory, or the working directory
    pythonpath: Annotated[tuple[str, ...], ValueKind("a list of paths", values.read_paths)] = ()
    # After loading, this includes the variables of env_file.
    env: Annotated[
        dict[str, str], ValueKind("a table of strings", values.read_env, values.show_env)
    ] = field(default_factory=dict)
    env_file: OptionalPath = None
    unix_mode: Annotated[
        int,
        Meta(ge=0, le=0o777),
        ValueKind('an octal mode such as "0666" or 0o666', values.read_mode, values.show_mode),
    ] = 0o666  # connect(2) needs write permission, unix(7)
    unix_owner: Annotated[
        str | None, ValueKind('"user", "user:group" or ":group"', values.read_owner)
    ] = None
    backlog: Count = 0  # the maximum of the kernel
    backlog_warning: Annotated[
        float, Meta(ge=0, le=1), ValueKind("a share of the backlog from 0 (off) to 1")
    ] = 0.5
    ipv6_only: Flag = False


class Workers(Struct, frozen=True, kw_only=True):
    """[workers]: the number of workers, their time limits and their lifetime."""

    count: Annotated[int, ValueKind('an integer of at least 1 or "auto"', values.read_count)] = AUTO
    min: Annotated[
        int, Meta(ge=1, le=WORKERS_MAX), ValueKind(f"an integer from 1 to {WORKERS_MAX}")
    ] = 1
    max: WorkersOrNone = 0  # as many as count; resolved for a dynamic pool
    spare: WorkersOrNone = 0  # a fixed pool
    threads: Annotated[
        int, Meta(ge=1, le=THREADS_MAX), ValueKind(f"an integer from 1 to {THREADS_MAX}")
    ] = 1
    loop: Annotated[
        str, ValueKind('"auto", "asyncio", "uvloop" or "module:factory"', values.read_loop)
    ] = "auto"
    max_concurrency: Count = 0
    preload: Flag = False
    warmup: Annotated[
        tuple[str, ...],
        ValueKind(
            'a list of paths and URLs such as "/" or "http://example.org/"', values.read_warmup
        ),
    ] = ()
    hooks: Annotated[
        dict[str, str],
        ValueKind('a table such as { ready = "module:function" }', values.read_hooks),
    ] = field(default_factory=dict)
    boot_timeout: Seconds = 30.0
    request_timeout: Seconds = 30.0  # 0 for tcp if it is not given
    slow_request: Annotated[
        float, Meta(ge=0, le=SECONDS_MAX), ValueKind(f"seconds from 0 (off) to {SECONDS_MAX}")
    ] = 0.0
    graceful_timeout: Seconds = 30.0
    drain_timeout: Seconds = 3600.0
    drain_delay: Annotated[
        float, Meta(ge=0, le=SECONDS_MAX), ValueKind(f"seconds from 0 to {SECONDS_MAX}")
    ] = 0.0
    max_requests: Count = 0
    max_requests_jitter: Count = 0
    max_age: Seconds = 0.0
    max_memory: Annotated[
        int,
        Meta(ge=0, le=2**63 - 1),
        ValueKind(
            'a size such as "512MiB" or a share such as "25%", 0 for no limit',
            resource_values.read_memory,
            values.show_size,
        ),
    ] = 0
    handover: Flag = True


class Http(Struct, frozen=True, kw_only=True):
    """[http]: limits of time and size, and features of HTTP."""

    max_connections: Count = 10_000
    max_connections_per_address: Count = 0
    address_share: Annotated[
        float, Meta(ge=0, le=1), ValueKind("a share of max_connections from 0 to 1 (off)")
    ] = 0.25
    keepalive: Seconds = 5.0
    keepalive_requests: Count = 0
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 30.0
    write_timeout: Seconds = 30.0
    min_body_rate: Count = 500
    min_write_rate: Count = 500
    body_memory: Size = 16 * MIB
    max_body: Size = 64 * MIB
    stream_body: Flag = False
    max_request_line: Size = 8 * KIB
    max_header_count: Count = 100
    max_header_size: Size = 64 * KIB
    response_memory: Size = 256 * KIB
    response_spill: Size = 64 * MIB
    buffer_memory: Size = 256 * MIB
    buffer_disk: Size = 4 * GIB
    compress: Annotated[
        tuple[str, ...], ValueKind('a list of "zstd" and "gzip"', values.read_codings)
    ] = ()
    compress_min_size: Size = KIB
    server_header: Flag = True
    request_id_header: Annotated[
        str | None, ValueKind('the name of a header such as "X-Request-ID"', values.read_id_header)
    ] = None
    health_path: Annotated[
        str | None, ValueKind('a path such as "/health"', values.read_url_path)
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        ValueKind(
            'a list of addresses, networks such as "10.0.0.0/8", or "unix"', values.read_networks
        ),
    ] = ()
    trusted_headers: Annotated[
        tuple[str, ...], ValueKind("a list of header names", values.read_forwarding_headers)
    ] = values.USUAL_FORWARDING_HEADERS
    proxy_protocol: Flag = False


class Websocket(Struct, frozen=True, kw_only=True):
    """[websocket]: limits of WebSockets of ASGI applications, and their compression."""

    max_message: Size = MIB
    receive_queue: Annotated[
        int,
        Meta(ge=1, le=2**63 - 1),
        ValueKind('a size in bytes or such as "64KiB"', values.read_size, values.show_size),
    ] = 64 * KIB
    ping_interval: Seconds = 20.0
    ping_timeout: Seconds = 20.0
    max_age: Seconds = 0.0
    compression: Flag = True


class Tls(Struct, frozen=True, kw_only=True):
    """[tls]: HTTPS."""

    certificate: OptionalPath = None
    key: OptionalPath = None  # in the file of the certificate
    sni: Annotated[
        dict[str, dict[str, str]],
        ValueKind('a table such as { "example.org" = { certificate = "a.pem" } }', values.read_sni),
    ] = field(default_factory=dict)
    bind: Annotated[
        tuple[str, ...], ValueKind("an address or a list of them", values.read_bind_or_none)
    ] = ()
    min_version: Annotated[TlsVersion, ValueKind('"1.2" or "1.3"', values.read_tls_version)] = "1.2"
    client_ca: OptionalPath = None
    client_auth: Annotated[ClientAuth, _one_of(ClientAuth)] = "none"
    handshake_timeout: Seconds = 10.0

    def is_spoken_at(self, address: str) -> bool:
        """Whether this address of `server.bind` uses TLS."""
        return self.certificate is not None and (not self.bind or address in self.bind)


class Static(Struct, frozen=True, kw_only=True):
    """[static]: directories that are served as files."""

    root: OptionalPath = None
    mounts: Annotated[
        dict[str, str],
        ValueKind('a table such as { "/static/" = "directory" }', values.read_mounts),
    ] = field(default_factory=dict)
    listing: Flag = False
    listing_max: Count = 1_000
    index: Annotated[
        str, ValueKind('a file\'s name without "/" or a leading "."', values.read_index)
    ] = "index.html"
    follow_symlinks: Flag = False
    precompressed: Flag = False


class Log(Struct, frozen=True, kw_only=True):
    """[log]: destinations and formats of the logs."""

    level: Annotated[Level, _one_of(Level)] = "info"
    format: Annotated[Format, _one_of(Format)] = "text"
    error: Annotated[str, ValueKind('"stderr", "syslog" or a path', values.read_error_log)] = (
        "stderr"
    )
    access: Annotated[
        str | None, ValueKind('"stdout", "stderr", "syslog" or a path', values.read_access_log)
    ] = None
    access_format: Annotated[AccessFormat, _one_of(AccessFormat)] = "combined"
    writer: Annotated[LogWriting, _one_of(LogWriting)] = "auto"
    config: OptionalPath = None


class Process(Struct, frozen=True, kw_only=True):
    """[process]: user, limits and other attributes of the processes."""

    user: Annotated[str | None, ValueKind("the name or number of a user", values.read_account)] = (
        None
    )
    group: Annotated[
        str | None, ValueKind("the name or number of a group", values.read_account)
    ] = None
    no_new_privs: Flag = True
    dumpable: Annotated[bool | None, ValueKind("true or false")] = None  # the kernel decides
    landlock: Annotated[Sandbox, _one_of(Sandbox)] = "off"
    writable: Annotated[tuple[str, ...], ValueKind("a list of paths", values.read_paths)] = ()
    seccomp: Annotated[Sandbox, _one_of(Sandbox)] = "off"
    seccomp_allow: Annotated[
        tuple[str, ...], ValueKind("a list of system calls", values.read_system_calls)
    ] = ()
    umask: Annotated[
        Annotated[int, Meta(ge=0, le=0o777)] | None,
        ValueKind('an octal mask such as "0027" or 0o027', values.read_mode, values.show_mode),
    ] = None  # as it was inherited
    stdin: Annotated[StandardInput, _one_of(StandardInput)] = "null"
    daemon: Flag = False
    pidfile: OptionalPath = None
    limits: Annotated[
        dict[str, int],
        ValueKind(
            "a table such as { nofile = 65536 }",
            resource_values.read_limits,
            resource_values.show_limits,
        ),
    ] = field(default_factory=dict)
    cpu_affinity: Annotated[
        tuple[tuple[int, ...], ...],
        ValueKind(
            'a list of CPUs such as [0, 1], or "auto"',
            resource_values.read_affinity,
            resource_values.show_affinity,
        ),
    ] = ()


class Control(Struct, frozen=True, kw_only=True):
    """[control]: the socket for the commands."""

    path: Annotated[str | None, ValueKind("a path", values.read_control_path)] = None


class Metrics(Struct, frozen=True, kw_only=True):
    """[metrics]: the address at which the master serves metrics for Prometheus."""

    bind: Annotated[str | None, ValueKind("an address", values.read_one_address)] = None


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration, made by `load`.

    If it is not made by `load`, set what `load` resolves: `workers.count`, `server.name`,
    `server.chdir` and `server.protocol`.
    """

    server: Server = field(default_factory=Server)
    workers: Workers = field(default_factory=Workers)
    http: Http = field(default_factory=Http)
    websocket: Websocket = field(default_factory=Websocket)
    tls: Tls = field(default_factory=Tls)
    static: Static = field(default_factory=Static)
    log: Log = field(default_factory=Log)
    process: Process = field(default_factory=Process)
    control: Control = field(default_factory=Control)
    metrics: Metrics = field(default_factory=Metrics)


class Key(Struct, frozen=True):
    """One key of the schema."""

    section: str
    key: str
    hint: Any
    kind: ValueKind
    default: Any

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"


def _keys() -> dict[str, Key]:
    keys = {}
    for section, struct in SECTIONS.items():
        defaults = struct()
        for key, hint in struct.__annotations__.items():
            kind = next(extra for extra in get_args(hint) if isinstance(extra, ValueKind))
            entry = Key(section, key, hint, kind, getattr(defaults, key))
            keys[entry.name] = entry
    return keys


SECTIONS: dict[str, type[Struct]] = Config.__annotations__

KEYS: dict[str, Key] = _keys()
"""Every key by its full name, "workers.count", in the schema's order."""
