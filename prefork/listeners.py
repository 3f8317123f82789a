"""The master's listening sockets: bound or inherited once, then shared by every worker.

There is one socket an address, bound and listening before the first fork; the workers inherit it
and block in accept(2) on it, and the kernel wakes one of them for each connection.  SO_REUSEPORT
would give each worker a queue of its own, and the connections in the queue of one that dies would
die with it: so it is never set.

Descriptors are closed over exec, as Python's are by default.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from prefork import systemd, unix_socket
from prefork.address import UNIX_PATH_MAX, Address
from prefork.unix_socket import Refusal

_SYSCTL = Path("/proc/sys/net")
_ANY = ("0.0.0.0", "::")
_ADVICE = {
    errno.EADDRNOTAVAIL: "this machine has no such address; bind one of its own, or every"
    " interface as :PORT",
    errno.EAFNOSUPPORT: "this system does not have IPv6; bind an IPv4 address",
    errno.EMFILE: "this process has too many open files; raise its limit (ulimit -n, or"
    " LimitNOFILE= in a systemd unit)",
    errno.ENFILE: "the system has too many open files; raise the sysctl fs.file-max",
    errno.ENOENT: "its directory does not exist; create it first",
    errno.ENOTDIR: "a part of its path is not a directory; correct the path",
    errno.EROFS: "its directory is on a read-only file system; choose another one",
}


class ListenError(Exception):
    """An address that cannot be listened on; its text is one line: which, why, what to do."""

    def __init__(self, address: Address, why: str) -> None:
        super().__init__(f"cannot listen on {address}: {why}")
        self.address = address


class ListenOptions(Struct, frozen=True, kw_only=True):
    """How to listen.

    backlog: connections that the kernel queues until a worker accepts them; 0: as many as it
        allows (net.core.somaxconn, to which it also cuts a larger number, listen(2)).
    unix_mode: permission bits of a Unix socket's file; who may write to it may connect, unix(7).
    unix_owner: "user", "user:group" or ":group" of that file, by name or number.
    ipv6_only: an IPv6 socket takes no IPv4 connections (IPV6_V6ONLY, ipv6(7)).
    defer_accept: accept(2) returns when the client's first bytes are there (TCP_DEFER_ACCEPT,
        tcp(7)); for protocols in which the client speaks first.
    nodelay: small segments are sent at once (TCP_NODELAY, tcp(7)).
    """

    backlog: int = 0
    unix_mode: int = 0o666
    unix_owner: str | None = None
    ipv6_only: bool = False
    defer_accept: bool = False
    nodelay: bool = True


class Listener:
    """A listening stream socket.

    address: the one asked for, by which a reload finds it again.
    inherited: somebody else bound it (`fd:N`, systemd) and may hold it too.
    inode: the file of a Unix socket that was bound here.
    name: where it really listens: `127.0.0.1:43211`, `[::]:8000`, `unix:/path`, `unix:@name`.
    """

    __slots__ = ("address", "inherited", "inode", "name", "sock")

    def __init__(
        self,
        address: Address,
        sock: socket.socket,
        inherited: bool = False,
        inode: unix_socket.Inode | None = None,
    ) -> None:
        self.address = address
        self.sock = sock
        self.inherited = inherited
        self.inode = inode
        self.name = _name(sock)

    @property
    def family(self) -> int:
        return self.sock.family

    @property
    def is_tcp(self) -> bool:
        return self.sock.family != socket.AF_UNIX

    @property
    def closed(self) -> bool:
        """Nothing is open here; workers that drain it have their own descriptors."""
        return self.sock.fileno() < 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def adjust(self, options: ListenOptions) -> None:
        """Applies all that can change while it listens, which is all but `ipv6_only`.

        Opening does it; a reload does it again for a listener that it keeps, once the new
        generation is to stay.  Backlog and file of an inherited socket belong to who made it.

        Raises ListenError.
        """
        with _explained(self.address):
            if self.is_tcp:
                # On the listener, once: what accept(2) returns has both from there.
                tcp = {socket.TCP_NODELAY: options.nodelay}
                tcp[socket.TCP_DEFER_ACCEPT] = options.defer_accept
                for option, value in tcp.items():
                    self.sock.setsockopt(socket.IPPROTO_TCP, option, value)
            if self.inode and self.inode == unix_socket.inode(self.address.path):
                if options.unix_owner:
                    unix_socket.chown(self.address.path, options.unix_owner)
                os.chmod(self.address.path, options.unix_mode)
            if not self.inherited:
                self.sock.listen(options.backlog or _sysctl("core/somaxconn", socket.SOMAXCONN))

    def close(self, *, unlink: bool = False) -> None:
        """Closes this process's descriptor; with `unlink`, removes the file that was bound here.

        A file that is no longer ours stays; one that can't be removed is left to the next server
        on this path, which will find it stale.
        """
        if unlink and self.inode:
            # Before the socket is closed: until then no other file can have this inode.
            with contextlib.suppress(OSError):
                unix_socket.unlink(self.address.path, self.inode)
        self.inode = None
        self.sock.close()

    def release(self) -> None:
        """Undoes the opening: what was bound is closed and removed, what was inherited is left
        open for a later attempt (a reload that fails has changed nothing)."""
        if self.inherited:
            os.set_inheritable(self.sock.detach(), True)
        else:
            self.close(unlink=True)


def open_listener(address: Address, options: ListenOptions) -> Listener:
    """Listens on one address.

    Raises ListenError, also where `systemd` stands for several sockets.
    """
    listeners = open_listeners([address], options)
    if len(listeners) == 1:
        return listeners[0]
    for listener in listeners:
        listener.release()
    raise ListenError(
        address, f"it stands for {len(listeners)} sockets where only one fits; name one of them"
    )


def open_listeners(
    addresses: Sequence[Address], options: ListenOptions, kept: Sequence[Listener] = ()
) -> list[Listener]:
    """Listens on all addresses, in their order, or on none that is new.

    Those in `kept` that have one of the addresses are taken as they are (see `Listener.adjust`)
    instead of being opened.  An address given twice counts once; `systemd` may give several
    listeners.

    Raises ListenError; everything opened by this call is then released.
    """
    listeners: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for address in dict.fromkeys(addresses):
            found = [listener for listener in kept if listener.address == address]
            listeners += found
            for listener in () if found else _open(address, options):
                undo.callback(listener.release)
                listeners.append(listener)
        undo.pop_all()
    return listeners


def _open(address: Address, options: ListenOptions) -> Iterator[Listener]:
    with _explained(address):
        match address.kind:
            case "tcp":
                yield _bind_tcp(address, options)
            case "unix":
                yield _bind_path(address, options)
            case "abstract":
                yield _bind_abstract(address, options)
            case "fd":
                yield _inherit(address, address.number, options)
            case "systemd":
                for fd in _passed(address.path):
                    yield _inherit(address, fd, options)


def _bind_tcp(address: Address, options: ListenOptions) -> Listener:
    family, where = _resolve(address)
    with _socket(family) as sock:
        # Lets a restart bind while old connections are in TIME_WAIT, socket(7).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Either way: the default is a sysctl, net.ipv6.bindv6only.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, options.ipv6_only)
        sock.bind(where)
        return _listening(Listener(address, sock), options)


def _resolve(address: Address) -> tuple[int, tuple[Any, ...]]:
    """The family and socket address of a host; the IPv4 one of a name that has both.

    So `localhost` is 127.0.0.1, as with most servers.
    """
    flags = socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise Refusal(f"the host name does not resolve: {error.strerror}; correct it") from None
    except UnicodeError:  # a label that is empty or has more than 63 bytes
        raise Refusal(f"{address.host!r} cannot be a host name; correct it") from None
    family, _, _, _, where = min(found, key=lambda result: result[0] != socket.AF_INET)
    return family, where


def _bind_abstract(address: Address, options: ListenOptions) -> Listener:
    with _socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{address.path}")
        return _listening(Listener(address, sock), options)


def _bind_path(address: Address, options: ListenOptions) -> Listener:
    path = address.path
    _check_length(path)
    unix_socket.is_left_over(path)  # or a lock file is made beside what is not ours
    with unix_socket.locked(path), _socket(socket.AF_UNIX) as sock:
        inode = unix_socket.bind(sock, path)
        return _listening(Listener(address, sock, inode=inode), options)


def _check_length(path: str) -> None:
    # Legal when it was read, a relative path may be too long since it is absolute; Python's own
    # refusal in bind would have no errno.
    length = len(os.fsencode(path))
    if length > UNIX_PATH_MAX:
        raise Refusal(f"its path has {length} bytes, and {UNIX_PATH_MAX} may be; shorten it")


def _passed(name: str) -> list[int]:
    """The descriptors that systemd passed under a name; all, where it is empty."""
    try:
        passed = systemd.listen_fds(os.environ, os.getpid())
    except ValueError as error:
        raise Refusal(f"what systemd passed cannot be read: {error}") from None
    if not passed:
        raise Refusal(
            "systemd passed no sockets to this process; start it by its .socket unit, or bind"
            " HOST:PORT"
        )
    wanted = [fd for fd, given in passed if name in ("", given)]
    if not wanted:
        names = ", ".join(dict.fromkeys(given for _, given in passed))
        raise Refusal(
            f"systemd passed no socket of this name, but {names}; see FileDescriptorName= in"
            " systemd.socket(5)"
        )
    return wanted


def _inherit(address: Address, fd: int, options: ListenOptions) -> Listener:
    try:
        # What came through exec(2) is inheritable; what was opened or adopted here is not.
        if not os.get_inheritable(fd):
            raise Refusal(
                f"descriptor {fd} is one of the server's own, not one that it was started with;"
                " bind each once"
            )
        sock = socket.socket(fileno=fd)
    except OSError as error:
        what = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise Refusal(f"descriptor {fd} {what}; pass a listening socket") from None
    if not _is_stream_listener(sock):
        sock.detach()
        raise Refusal(f"descriptor {fd} is not a listening TCP or Unix stream socket; pass one")
    sock.setblocking(True)
    os.set_inheritable(fd, False)
    return _listening(Listener(address, sock, inherited=True), options)


def _is_stream_listener(sock: socket.socket) -> bool:
    return (
        sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        and sock.type == socket.SOCK_STREAM
        and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


def _listening(listener: Listener, options: ListenOptions) -> Listener:
    try:
        listener.adjust(options)
    except BaseException:
        listener.release()
        raise
    return listener


@contextlib.contextmanager
def _socket(family: int) -> Iterator[socket.socket]:
    """A new stream socket, closed if the block fails."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def _name(sock: socket.socket) -> str:
    where = sock.getsockname()
    if isinstance(where, bytes):
        return str(Address(kind="abstract", path=os.fsdecode(where[1:])))
    if sock.family == socket.AF_UNIX:
        return str(Address(kind="unix", path=where))
    return str(Address(kind="tcp", host=where[0], port=where[1]))


def _sysctl(name: str, default: int) -> int:
    """A number from /proc/sys/net, or the default where it is not to be seen."""
    try:
        return int((_SYSCTL / name).read_text())
    except (OSError, ValueError):
        return default


@contextlib.contextmanager
def _explained(address: Address) -> Iterator[None]:
    """Turns what goes wrong in the block into a ListenError."""
    try:
        yield
    except Refusal as refusal:
        raise ListenError(address, str(refusal)) from None
    except OSError as error:
        raise ListenError(address, _why(address, error)) from error


def _why(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return unix_socket.in_use(_holder(address))
    if error.errno in (errno.EACCES, errno.EPERM):
        return _forbidden(address, error)
    return _ADVICE.get(error.errno or 0) or str(error)


def _holder(address: Address) -> str:
    """Who has an address, as far as it can be seen: " by nginx (pid 12)", or nothing."""
    import psutil  # a megabyte that only an error needs

    with contextlib.suppress(psutil.Error, OSError):
        if address.kind != "tcp":
            name = address.path if address.kind == "unix" else f"\0{address.path}"
            return unix_socket.peer(name) or ""
        ip = _resolve(address)[1][0]
        for other in psutil.net_connections("tcp"):
            if (
                other.laddr
                and other.pid
                and other.status == psutil.CONN_LISTEN
                and other.laddr.port == address.port
                and (ip in _ANY or other.laddr.ip in (ip, *_ANY))
            ):
                return f" by {psutil.Process(other.pid).name()} (pid {other.pid})"
    return ""


def _forbidden(address: Address, error: OSError) -> str:
    first_free = _sysctl("ipv4/ip_unprivileged_port_start", 1024)
    if address.kind == "tcp" and 0 < address.port < first_free:
        return (
            f"no right to a port below {first_free}; choose a higher one, or start as root or"
            " with CAP_NET_BIND_SERVICE"
        )
    if address.kind == "unix":
        path = error.filename or address.path
        return f"no right to {path}; choose a directory in which this user may write"
    return f"{error.strerror}; a security policy of this system forbids it"
