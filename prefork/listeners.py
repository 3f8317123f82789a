"""The master's listening sockets: bound or inherited once, then shared by all workers.

There is one socket for each address.  It is bound and listens before the first fork.  The workers
inherit it and block in accept(2) on it, and the kernel wakes one of them for each connection.
SO_REUSEPORT is never set: it would give each worker a queue of its own, and the connections in the
queue of a worker that dies would be lost.

Descriptors are closed by exec(2), as those of Python are by default.
"""

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from prefork import systemd, unix_socket
from prefork.address import UNIX_PATH_MAX, Address
from prefork.address_holder import listener_of_port, reason_in_use
from prefork.unix_socket import Refusal

_SYSCTL = Path("/proc/sys/net")
_ADVICE = {
    errno.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or :PORT for"
    " every interface",
    errno.EAFNOSUPPORT: "this system has no IPv6; use an IPv4 address",
    errno.EMFILE: "this process has too many open files; raise its limit (ulimit -n, or"
    " LimitNOFILE= in a systemd unit)",
    errno.ENFILE: "the system has too many open files; raise the sysctl fs.file-max",
    errno.ENOENT: "its directory does not exist; create it first",
    errno.ENOTDIR: "a part of its path is not a directory; correct the path",
    errno.EROFS: "its directory is on a read-only file system; choose another one",
}


class ListenError(Exception):
    """The server cannot listen on an address; the text is one line: address, reason, what to do."""

    def __init__(self, address: Address, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address


class ListenOptions(Struct, frozen=True, kw_only=True):
    """The options of a listener.

    backlog: the number of connections that the kernel queues until a worker accepts them; 0: the
        maximum (net.core.somaxconn, to which the kernel also reduces a larger number, listen(2)).
    unix_mode: permission bits of the file of a Unix socket; a client needs write permission to
        connect, unix(7).
    unix_owner: "user", "user:group" or ":group" of that file, by name or number.
    ipv6_only: an IPv6 socket accepts no IPv4 connections (IPV6_V6ONLY, ipv6(7)).
    defer_accept: accept(2) returns when the first bytes of the client have arrived
        (TCP_DEFER_ACCEPT, tcp(7)); for protocols in which the client sends first.
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

    address: the configured address, by which a reload finds it again.
    inherited: another process bound it (`fd:N`, systemd) and may have it open, too.
    inode: the file of a Unix socket that was bound here.
    nonblocking: whether an inherited one was non-blocking, and will be again at the end: the
        process that passed it on has the same open file description.
    name: the real address: `127.0.0.1:43211`, `[::]:8000`, `unix:/path`, `unix:@name`.
    """

    __slots__ = ("address", "inherited", "inode", "name", "nonblocking", "sock")

    def __init__(
        self,
        address: Address,
        sock: socket.socket,
        inherited: bool = False,
        inode: unix_socket.Inode | None = None,
        nonblocking: bool = False,
    ) -> None:
        self.address = address
        self.sock = sock
        self.inherited = inherited
        self.inode = inode
        self.nonblocking = nonblocking
        self.name = _name(sock)

    @property
    def family(self) -> int:
        return self.sock.family

    @property
    def is_tcp(self) -> bool:
        return self.sock.family != socket.AF_UNIX

    @property
    def closed(self) -> bool:
        """Whether it is closed here; workers that drain it have descriptors of their own."""
        return self.sock.fileno() < 0

    @property
    def owns_file(self) -> bool:
        """Whether it is a Unix socket that was bound here to a path."""
        return self.address.kind == "unix" and not self.inherited

    def fileno(self) -> int:
        return self.sock.fileno()

    def apply(self, options: ListenOptions) -> None:
        """Applies the options that can change while it listens: all but `ipv6_only`.

        Called when it is opened, and by a reload for a listener that is kept, once the new
        generation is committed.  Backlog and file of an inherited socket are left to the process
        that created it.

        Raises ListenError.
        """
        with _as_listen_error(self.address):
            if self.is_tcp:
                # Set once, on the listener: the sockets of accept(2) inherit both.
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

    @property
    def listens(self) -> bool:
        """Whether connections can come.  shutdown(2) of any process that has it open ends that."""
        if not self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return self.is_tcp or not poll.poll(0)

    def listen_again(self, options: ListenOptions) -> None:
        """Listens on the same address after a shutdown.  Raises ListenError.

        The kernel takes a port away that it has chosen itself, and keeps one that was given: then
        bind(2) fails with EINVAL, since the socket has its address.  A Unix socket that was shut
        down stays so.
        """
        with _as_listen_error(self.address):
            if not self.is_tcp:
                raise OSError(errno.EINVAL, "a Unix socket that was shut down stays so")
            host, _, port = self.name.rpartition(":")
            try:
                self.sock.bind((host.strip("[]"), int(port)))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            self.sock.listen(options.backlog or _sysctl("core/somaxconn", socket.SOMAXCONN))

    def close(self, *, unlink: bool = False) -> None:
        """Closes the descriptor of this process; with `unlink`, removes the file that was bound
        here.

        A file that another server has replaced stays.  A file that can't be removed is left to the
        next server on this path, which finds it stale.
        """
        if unlink and self.inode:
            # Before the socket is closed: until then no other file can have this inode.
            with contextlib.suppress(OSError):
                unix_socket.unlink(self.address.path, self.inode)
        self.inode = None
        self._restore_mode()
        self.sock.close()

    def _restore_mode(self) -> None:
        if self.nonblocking and not self.closed:
            self.sock.setblocking(False)

    def release(self) -> None:
        """Undoes the opening, so that a reload that fails has changed nothing.

        A socket that was bound here is closed, with its file removed; an inherited one is left open
        for a later attempt.
        """
        if self.inherited:
            self._restore_mode()
            os.set_inheritable(self.sock.detach(), True)
        else:
            self.close(unlink=True)


def open_listener(address: Address, options: ListenOptions) -> Listener:
    """Listens on one address.

    Raises ListenError, also if `systemd` stands for several sockets.
    """
    listeners = open_listeners([address], options)
    if len(listeners) == 1:
        return listeners[0]
    for listener in listeners:
        listener.release()
    raise ListenError(
        address,
        f"it stands for {len(listeners)} sockets, and only one is possible here; use systemd:NAME",
    )


def open_listeners(
    addresses: Sequence[Address], options: ListenOptions, kept: Sequence[Listener] = ()
) -> list[Listener]:
    """Listens on all addresses, in their order.

    kept: listeners that are already open.  Those with one of the addresses are returned as they
        are (see `Listener.apply`), but for Unix sockets whose file was removed or replaced.

    An address that is given twice counts once.  `systemd` may result in several listeners.

    Raises ListenError; everything opened by this call is then released.
    """
    listeners: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for address in dict.fromkeys(addresses):
            found = [
                listener
                for listener in kept
                if listener.address == address
                and (not listener.owns_file or unix_socket.is_at(address.path, listener.inode))
            ]
            listeners += found
            for listener in () if found else _open(address, options):
                undo.callback(listener.release)
                listeners.append(listener)
        undo.pop_all()
    return listeners


def _open(address: Address, options: ListenOptions) -> Iterator[Listener]:
    with _as_listen_error(address):
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
        # So that a restart can bind while old connections are in TIME_WAIT, socket(7).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Set to either value: the default is that of a sysctl, net.ipv6.bindv6only.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, options.ipv6_only)
        sock.bind(where)
        return _listening(Listener(address, sock), options)


def _resolve(address: Address) -> tuple[int, tuple[Any, ...]]:
    """The family and socket address of a host; the IPv4 one if a name has both.

    So `localhost` is 127.0.0.1, as with most servers.
    """
    flags = socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise Refusal(f"the host name cannot be resolved: {error.strerror}; correct it") from None
    except UnicodeError:  # a label that is empty or has more than 63 bytes
        raise Refusal(f"{address.host!r} is not a valid host name; correct it") from None
    family, _, _, _, where = min(found, key=lambda result: result[0] != socket.AF_INET)
    return family, where


def _bind_abstract(address: Address, options: ListenOptions) -> Listener:
    with _socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{address.path}")
        return _listening(Listener(address, sock), options)


def _bind_path(address: Address, options: ListenOptions) -> Listener:
    path = address.path
    _check_length(path)
    unix_socket.exists(path)  # first, so that no lock file is created beside a foreign file
    with unix_socket.locked(path), _socket(socket.AF_UNIX) as sock:
        inode = unix_socket.bind(sock, path)
        return _listening(Listener(address, sock, inode=inode), options)


def _check_length(path: str) -> None:
    # A relative path was short enough when it was parsed, but as an absolute one it may be too
    # long. The error of Python's bind() would have no errno.
    length = len(os.fsencode(path))
    if length > UNIX_PATH_MAX:
        raise Refusal(
            f"its path has {length} bytes, more than the {UNIX_PATH_MAX} of unix(7); shorten it"
        )


def _passed(name: str) -> list[int]:
    """The descriptors that systemd passed with this name; all of them if the name is empty."""
    try:
        passed = systemd.listen_fds(os.environ, os.getpid())
    except ValueError as error:
        raise Refusal(f"the variables of systemd are malformed: {error}") from None
    if not passed:
        raise Refusal(
            "systemd passed no sockets to this process; start it with its .socket unit, or use"
            " HOST:PORT"
        )
    found = [fd for fd, given in passed if name in ("", given)]
    if not found:
        names = ", ".join(dict.fromkeys(given for _, given in passed))
        raise Refusal(
            f"systemd passed no socket of this name, only {names}; see FileDescriptorName= in"
            " systemd.socket(5)"
        )
    return found


def _inherit(address: Address, fd: int, options: ListenOptions) -> Listener:
    try:
        # A descriptor that was passed over exec(2) is inheritable; one of our own is not.
        if not os.get_inheritable(fd):
            raise Refusal(
                f"descriptor {fd} was not passed to the server: it is one of its own, or used by"
                " another address already"
            )
        sock = socket.socket(fileno=fd)
    except OSError as error:
        problem = "is not open" if error.errno == errno.EBADF else "is not a socket"
        raise Refusal(f"descriptor {fd} {problem}; pass a listening socket") from None
    if not _is_stream_listener(sock):
        sock.detach()
        raise Refusal(
            f"descriptor {fd} is not a listening TCP or Unix stream socket; pass such a socket"
        )
    nonblocking = not os.get_blocking(fd)
    sock.setblocking(True)
    os.set_inheritable(fd, False)
    listener = Listener(address, sock, inherited=True, nonblocking=nonblocking)
    return _listening(listener, options)


def _is_stream_listener(sock: socket.socket) -> bool:
    return (
        sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        and sock.type == socket.SOCK_STREAM
        and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


def _listening(listener: Listener, options: ListenOptions) -> Listener:
    try:
        listener.apply(options)
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
    """A number from /proc/sys/net, or the default if it cannot be read."""
    try:
        return int((_SYSCTL / name).read_text())
    except (OSError, ValueError):
        return default


@contextlib.contextmanager
def _as_listen_error(address: Address) -> Iterator[None]:
    """Raises errors of the block as ListenError."""
    try:
        yield
    except Refusal as refusal:
        raise ListenError(address, str(refusal)) from None
    except OSError as error:
        raise ListenError(address, _reason(address, error)) from error


def _reason(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return _reason_in_use(address)
    if error.errno in (errno.EACCES, errno.EPERM):
        return _permission_reason(address, error)
    return _ADVICE.get(error.errno or 0) or str(error)


def _reason_in_use(address: Address) -> str:
    pid, holder = 0, ""
    with contextlib.suppress(OSError, Refusal):
        if address.kind == "tcp":
            pid, holder = listener_of_port(_resolve(address)[1][0], address.port)
        else:
            name = address.path if address.kind == "unix" else f"\0{address.path}"
            pid = unix_socket.listening_process(name) or 0
            holder = f"pid {pid}"
    return reason_in_use(pid, holder)


def _permission_reason(address: Address, error: OSError) -> str:
    first_free = _sysctl("ipv4/ip_unprivileged_port_start", 1024)
    if address.kind == "tcp" and 0 < address.port < first_free:
        return (
            f"no permission for a port below {first_free}; choose a higher one, or start as root"
            " or with CAP_NET_BIND_SERVICE"
        )
    if address.kind == "unix":
        path = error.filename or address.path
        return f"no permission for {path}; choose a directory in which this user may write"
    return f"{error.strerror}; a security policy of this system denies it"
