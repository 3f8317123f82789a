"""Kernel calls for which Python has no function, each with its man page."""

import contextlib
import ctypes
import errno
import fcntl
import struct
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from prefork.unpatched import os, select, socket

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


def set_parent_death_signal(signal: int) -> None:
    """Asks the kernel for a signal when the parent dies (prctl(2), PR_SET_PDEATHSIG).

    A change of credentials clears it, and a parent that is dead already sends nothing: compare
    getppid() after the call.  Raises OSError.
    """
    _prctl(_PR_SET_PDEATHSIG, signal)


def parent_death_signal() -> int:
    """The signal that was asked for, 0 for none (prctl(2), PR_GET_PDEATHSIG).  Raises OSError."""
    number = ctypes.c_int()
    _prctl(_PR_GET_PDEATHSIG, ctypes.addressof(number))
    return number.value


def forbid_new_privileges() -> None:
    """From now on no execve(2) gives this process or its children rights that it does not have.

    prctl(2), PR_SET_NO_NEW_PRIVS, Linux 3.5; it cannot be undone.  Raises OSError.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(dumpable: bool) -> None:
    """Whether this process may leave a core file, and be traced by others of its user.

    prctl(2), PR_SET_DUMPABLE.  A fork inherits it; a change of credentials sets it to
    fs.suid_dumpable, and execve(2) to true.  If it is false, the files in /proc/PID belong to root,
    and only root reads the process's memory (ptrace(2), "access mode checking").  Raises OSError.
    """
    _prctl(_PR_SET_DUMPABLE, int(dumpable))


def become_subreaper() -> None:
    """From now on, a descendant whose parent dies becomes this process's child.

    prctl(2), PR_SET_CHILD_SUBREAPER, Linux 3.4; a fork does not inherit it, an exec keeps it.
    Raises OSError.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_SIGSET = struct.Struct("=16Q")  # sigset_t of glibc and musl: bit N - 1 is signal N
_SIGNALFD_SIGINFO = struct.Struct("=Iiii112x")  # its first members; 128 bytes in all

SI_KERNEL = 0x80
"""siginfo.si_code: the kernel sent the signal, and no process (sigaction(2))."""


class SignalInfo(NamedTuple):
    """A signal that was sent."""

    number: int
    code: int
    """si_code: SI_KERNEL, or 0 or less if a process sent it."""
    pid: int
    """The process that sent it; 0 if it is in another pid namespace."""


def signal_descriptor(signals: Iterable[int]) -> int:
    """A descriptor from which signals that this process blocks are read, with their senders.

    signalfd(2), Linux 2.6.27; non-blocking and closed by an exec.  Raises OSError.
    """
    mask = sum(1 << number - 1 for number in signals)
    flags = ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC)
    return _checked(_libc.signalfd(-1, _SIGSET.pack(mask, *(0,) * 15), flags))


def read_signals(fd: int) -> list[SignalInfo]:
    """The signals that have come, the lowest number first.  Several of a number are one signal."""
    try:
        data = os.read(fd, _SIGNALFD_SIGINFO.size * 8)
    except BlockingIOError:
        return []
    found = _SIGNALFD_SIGINFO.iter_unpack(data)
    return [SignalInfo(number, code, pid) for number, _, code, pid in found]


_libc.syscall.restype = _libc.tee.restype = ctypes.c_long


def system_call(number: int, *arguments: int | bytes | None) -> int:
    """A system call for which libc has no function, by its number on this architecture.

    syscall(2).  Integers are passed as C longs, bytes as a pointer to them.  Raises OSError.
    """
    found: int = _libc.syscall(
        ctypes.c_long(number),
        *(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments),
    )
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


_IN_ATTRIB = 0x4
_IN_DELETE_SELF = 0x400
_IN_MOVE_SELF = 0x800
_IN_DONT_FOLLOW = 0x2000000


def inotify_descriptor() -> int:
    """A descriptor of inotify(7), non-blocking and closed by an exec.

    Raises OSError (EMFILE: fs.inotify.max_user_instances is reached).
    """
    return _checked(_libc.inotify_init1(ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC)))


def watch_for_loss(fd: int, path: str) -> None:
    """Makes an inotify descriptor readable when what is at this path now loses its place.

    That is when it is renamed or removed, or another file is renamed over it (IN_ATTRIB, since the
    number of its links changes); other attributes count, too.  Raises OSError.
    """
    mask = _IN_ATTRIB | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_DONT_FOLLOW
    _checked(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)))


def drain_inotify(fd: int) -> None:
    """Takes all events that have come."""
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, 65536):
            pass


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


_SPLICE_NONBLOCK = 2  # SPLICE_F_NONBLOCK, linux/splice.h


def duplicate_pipe(source: int, target: int, count: int) -> int:
    """Puts what is in a pipe into another one, too, up to `count` bytes; returns how many.

    tee(2), Linux 2.6.17; it does not wait.  Raises OSError, BlockingIOError if there is nothing.
    """
    found: int = _libc.tee(source, target, ctypes.c_size_t(count), _SPLICE_NONBLOCK)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found


_PROT_READ_WRITE = 0x3
_MAP_SHARED = 0x1
_libc.mmap.restype = ctypes.c_void_p
_FAILED = ctypes.c_void_p(-1).value


def map_shared(fd: int, offset: int, size: int) -> memoryview:
    """Maps a part of a file as shared, writable memory, for the process's whole life.

    mmap(2); `offset` and `size` are bytes, in whole pages.  Unlike the module mmap it keeps no
    duplicate of the descriptor, by which all of the file could be reached.  Raises OSError.
    """
    address = _libc.mmap(
        None,
        ctypes.c_size_t(size),
        _PROT_READ_WRITE,
        _MAP_SHARED,
        ctypes.c_int(fd),
        ctypes.c_long(offset),
    )
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")


def reset_connection(fd: int) -> None:
    """Resets a TCP connection at once, although its socket stays open; others who use it notice.

    connect(2) with AF_UNSPEC dissolves the association.  Raises OSError, for a Unix socket always.
    """
    nobody = ctypes.create_string_buffer(16)  # struct sockaddr, whose family is 0
    if _libc.connect(fd, nobody, len(nobody)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_SO_PASSRIGHTS = 83  # asm-generic/socket.h, Linux 6.16


def refuse_descriptors(sock: socket.socket) -> None:
    """Makes the kernel refuse descriptors (SCM_RIGHTS) for this Unix socket, if it can.

    SO_PASSRIGHTS, Linux 6.16: the sender gets EPERM.  An older kernel passes them on as before.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def name_senders(sock: socket.socket) -> None:
    """Lets the kernel say with each message which process has sent it (SCM_CREDENTIALS).

    unix(7), SO_PASSCRED.  Only with CAP_SYS_ADMIN can a process name another one.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def close_received(fd: int) -> None:
    """Closes a descriptor that came from an untrusted process, without waiting for a peer.

    close(2) of a TCP socket waits for its unsent data if the sender has set SO_LINGER, whether the
    socket is non-blocking or not (socket(7)).  Still racy: a sender that keeps a copy may set the
    option again in between; and a file of a FUSE or network file system is flushed by close(2).
    """
    sock = _socket_behind(fd)
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        sock.detach()
    with contextlib.suppress(OSError):  # what was not written is the sender's loss
        os.close(fd)


def is_stream_socket(fd: int) -> bool:
    """Whether a descriptor is a stream socket that can be used.

    That of a socket's file opened with O_PATH is none, though fstat(2) says so.
    """
    sock = _socket_behind(fd)
    if sock is None:
        return False
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    finally:
        sock.detach()


def _socket_behind(fd: int) -> socket.SocketType | None:
    """An object for a descriptor, to be detached from it; None if it is no socket.

    With a family given, the module takes any.
    """
    try:
        return socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    except OSError:  # ENOTSOCK; EBADF for one that was opened with O_PATH
        return None


_SO_ATTACH_FILTER = 26  # asm-generic/socket.h

Instruction = tuple[int, int, int, int]
"""Of a classic BPF program: code, jump if true, jump if false, k (linux/filter.h)."""


def attach_filter(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Lets the kernel pass to a socket only packets that a classic BPF program accepts.

    socket(7), SO_ATTACH_FILTER; the kernel's Documentation/networking/filter.rst describes the
    machine.
    Raises OSError (EINVAL: not a valid program).
    """
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    # struct sock_fprog points to the instructions; the kernel copies them during the call.
    pointer = struct.pack("@HP", len(program), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


# For a filter on a TCP socket a packet begins with the TCP header, over IPv4 as over IPv6; byte 13
# holds the flags. SYN is 0x02 and ACK 0x10: the first packet of a handshake has SYN and no ACK.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load byte 13
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # only SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)


def drop_new_handshakes(listener: socket.socket) -> None:
    """Makes the kernel drop the SYN of each new handshake, and pass everything else.

    A client's kernel sends its SYN again after a second.  Raises OSError, EPERM without
    CAP_NET_ADMIN.
    """
    attach_filter(listener, _DROP_SYN)


_TCP_INFO_QUEUE = struct.Struct("=24xII")  # tcpi_unacked, tcpi_sacked


class ListenQueue(NamedTuple):
    """The queue of a listening stream socket."""

    depth: int
    """Connections that wait for accept(2)."""
    limit: int
    """The longest that it can be; -1 if the kernel does not say."""


def listen_queue(listener: socket.socket) -> ListenQueue:
    """Length and limit of the queue of a listening stream socket.

    A connection that TCP_DEFER_ACCEPT keeps until its first byte is not in the queue yet.  TCP:
    tcpi_unacked and tcpi_sacked of TCP_INFO (tcp(7), linux/tcp.h), which for a listening socket
    are length and limit of that queue.  Unix: sock_diag(7); if the kernel has none for Unix
    sockets, a depth of 1 stands for "some".
    """
    if listener.family != socket.AF_UNIX:
        data = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_QUEUE.size)
        return ListenQueue(*_TCP_INFO_QUEUE.unpack(data))
    try:
        return ListenQueue(*_unix_queue(os.fstat(listener.fileno()).st_ino))
    except OSError:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        return ListenQueue(len(poll.poll(0)), -1)


def listen_overflows() -> int:
    """How often a full listen queue has made the kernel drop a handshake; -1 if it does not say.

    ListenOverflows of /proc/net/netstat (Documentation/networking/snmp_counter.rst): of all TCP
    sockets in this network namespace.  There is no such count for a single socket: the drops in its
    SO_MEMINFO count each acknowledgement that TCP_DEFER_ACCEPT ignores, too.  A full queue of a
    Unix socket drops no connection: connect(2) waits, or fails with EAGAIN.
    """
    try:
        with open("/proc/self/net/netstat", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return -1
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if "ListenOverflows" in names:
            return int(values[names.index("ListenOverflows")])
    return -1


_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_UDIAG_SHOW_RQLEN = 0x10
_UNIX_DIAG_RQLEN = 4
_ANY = 0xFFFFFFFF  # a state, a cookie

_NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence, port; netlink(7)
_UNIX_DIAG_REQ = struct.Struct("=BBHIIIII")  # family, protocol, pad, states, inode, show, cookie
_UNIX_DIAG_MSG_SIZE = 16
_RTATTR = struct.Struct("=HH")  # length, type; rtnetlink(7)
_RQLEN = struct.Struct("=II")  # for a listener: waiting connections, backlog


def _unix_queue(inode: int) -> tuple[int, int]:
    request = _UNIX_DIAG_REQ.pack(
        socket.AF_UNIX, 0, 0, _ANY, inode & _ANY, _UDIAG_SHOW_RQLEN, _ANY, _ANY
    )
    _, answer = _ask_sock_diag(request, 0)
    offset = _NLMSGHDR.size + _UNIX_DIAG_MSG_SIZE
    while offset < len(answer):
        length, kind = _RTATTR.unpack_from(answer, offset)
        if kind == _UNIX_DIAG_RQLEN:
            depth, limit = _RQLEN.unpack_from(answer, offset + _RTATTR.size)
            return depth, limit
        offset += max(length + 3 & ~3, _RTATTR.size)
    raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))


# family, protocol, extensions, states; of the socket: its port in network byte order, the rest any
_INET_DIAG_REQ = struct.Struct("=BBBxI2s38x8s")
_SYN_RECV = 1 << 3 | 1 << 12  # TCP_SYN_RECV, and TCP_NEW_SYN_RECV since Linux 4.4


def handshakes_under_way(listener: socket.socket) -> bool:
    """Whether a handshake with this port has begun and is not in the queue yet (SYN_RECV).

    sock_diag(7), in this process's network namespace: the kernel searches, which stays quick beside
    many thousand connections in TIME_WAIT.  Only the port is compared: a handshake with the same
    port of another address counts, too.  Raises OSError if the kernel has no tcp_diag.
    """
    port = struct.pack("!H", listener.getsockname()[1])
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _INET_DIAG_REQ.pack(family, socket.IPPROTO_TCP, 0, _SYN_RECV, port, b"\xff" * 8)
        kind, _ = _ask_sock_diag(request, _NLM_F_DUMP)
        if kind == _SOCK_DIAG_BY_FAMILY:  # else it is the end of an empty list
            return True
    return False


def _ask_sock_diag(request: bytes, flags: int) -> tuple[int, bytes]:
    """(type of the first message, answer that begins with it).  Raises OSError."""
    size = _NLMSGHDR.size + len(request)
    header = _NLMSGHDR.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | flags, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(header + request)
        answer = netlink.recv(65536)  # the kernel answers during send
    kind = _NLMSGHDR.unpack_from(answer)[1]
    if kind == _NLMSG_ERROR:
        number = -struct.unpack_from("=i", answer, _NLMSGHDR.size)[0]
        raise OSError(number, os.strerror(number))
    return kind, answer


_SIOCOUTQ = 0x5411  # asm-generic/ioctls.h, as TIOCOUTQ
_SIOCOUTQNSD = 0x894B  # linux/sockios.h


def not_acknowledged(sock: int) -> int:
    """Bytes that the peer of a TCP socket has not acknowledged, or that of a Unix socket not read.

    tcp(7) and unix(7), SIOCOUTQ.  Raises OSError."""
    return _bytes_of(sock, _SIOCOUTQ)


def not_sent(sock: int) -> int:
    """Bytes that the kernel has not sent yet (SIOCOUTQNSD, Linux 2.6.37).

    Unlike those that are only not acknowledged they are not in flight: the peer has no room for
    them, or the network between.  Raises OSError if it is no TCP socket.
    """
    return _bytes_of(sock, _SIOCOUTQNSD)


def _bytes_of(sock: int, question: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock, question, bytes(4)), sys.byteorder, signed=True)


_SYS_OPENAT2 = 437  # the same on every architecture but alpha
_RESOLVE_NO_MAGICLINKS = 0x02  # BENEATH implies it now, but the manual says not for ever
_RESOLVE_BENEATH = 0x08
_ATTEMPTS = 16


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Opens what `path` names beneath an open directory, and nothing else: no race leads out.

    openat2(2), Linux 5.6, with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS: a symbolic link is
    followed if it stays beneath; an absolute one never does.  If the kernel does not have the call
    (ENOSYS), or a sandbox's filter forbids it (EPERM), the path is walked component by component,
    and then no symbolic link is followed at all (O_PATH opens a last one itself).

    `directory` may be opened with O_PATH.  `flags` are those of open(2) without O_CREAT; O_CLOEXEC
    is added.  Returns a descriptor.  Raises OSError (EXDEV: the path leads out; ELOOP, or in a
    walk ENOTDIR: a link that is not followed; EAGAIN: a rename raced with it, each time) and
    ValueError for a NUL in the path.
    """
    if b"\0" in path:
        raise ValueError("path holds a NUL character")
    flags |= os.O_CLOEXEC
    for _ in range(_ATTEMPTS):
        try:
            return _openat2(directory, path, flags)
        except InterruptedError:
            continue  # a signal; its handler has run by now
        except BlockingIOError:
            continue  # a rename somewhere made a ".." uncertain: the manual says to try again
        except OSError as problem:
            if problem.errno in (errno.ENOSYS, errno.EPERM):
                return _walk_beneath(directory, path, flags)
            raise
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)


# syscall(2) with the types of openat2's arguments, which are then converted in C.
_syscall_openat2 = ctypes.CFUNCTYPE(
    *(ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p),
    ctypes.c_size_t,
    use_errno=True,
)(("syscall", _libc))


@lru_cache(maxsize=16)
def _how(flags: int) -> tuple[_OpenHow, int]:
    """The struct that the kernel reads, and its address; made once for each of the few flags."""
    how = _OpenHow(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    return how, ctypes.addressof(how)


def _openat2(directory: int, path: bytes, flags: int) -> int:
    how, address = _how(flags)
    fd: int = _syscall_openat2(_SYS_OPENAT2, directory, path, address, ctypes.sizeof(how))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def _walk_beneath(directory: int, path: bytes, flags: int) -> int:
    """Opens one component after the other, each in the directory that was opened before."""
    *parents, last = path.split(b"/")
    if path.startswith(b"/") or b".." in (*parents, last):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    here = directory
    try:
        for name in parents:
            inner = os.open(name or b".", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            if here != directory:
                os.close(here)
            here = inner
        if path.endswith(b"/"):
            last = b"."
        return os.open(last, flags | os.O_NOFOLLOW, dir_fd=here)
    finally:
        if here != directory:
            os.close(here)


def bind_packet(sock: socket.socket, interface: int, protocol: int) -> None:
    """Binds a packet(7) socket to an interface by its index, 0 for all of them.

    socket.bind() takes a name, and no name means all interfaces.  `protocol` is an ETH_P_ number.
    Raises OSError (ENETDOWN: the interface is down).
    """
    # struct sockaddr_ll; the protocol is in network byte order.
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(protocol), interface, 0, 0, 0)
    if _libc.bind(sock.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
