"""The master's sockets, with real ones in this process."""

import contextlib
import errno
import fcntl
import gc
import os
import resource
import socket
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork import listeners, systemd, unix_socket
from prefork.address import UNIX_PATH_MAX, Address, parse
from prefork.listeners import Listener, ListenError, ListenOptions, open_listener, open_listeners

DEFAULT = ListenOptions()
NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")

Opener = Callable[..., list[Listener]]


@pytest.fixture
def inherit() -> Iterator[Callable[..., int]]:
    """Makes a descriptor as exec(2) would leave it; closed after the test if it still is open."""
    made = []

    def inherit(sock: socket.socket | int, fd: int | None = None) -> int:
        number = sock if isinstance(sock, int) else sock.fileno()
        copy = os.dup(number) if fd is None else os.dup2(number, fd)
        os.set_inheritable(copy, True)
        made.append(copy)
        return copy

    yield inherit
    for fd in made:
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def listen(inherit: Callable[..., int]) -> Iterator[Opener]:
    """Listens on addresses given as text; all is closed after the test.

    After `inherit` in the order of fixtures, so that its listeners are closed before.
    """
    with contextlib.ExitStack() as stack:

        def listen(*texts: str, kept: tuple[Listener, ...] = (), **options: Any) -> list[Listener]:
            addresses = [parse(text) for text in texts]
            opened = open_listeners(addresses, ListenOptions(**options), kept)
            for listener in opened:
                stack.callback(listener.close, unlink=True)
            return opened

        yield listen


@pytest.fixture
def others() -> Iterator[Callable[..., socket.socket]]:
    """Sockets of somebody else, closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(
            where: tuple[str, int] | str | None = None,
            family: int = socket.AF_INET,
            kind: int = socket.SOCK_STREAM,
            backlog: int | None = 8,
        ) -> socket.socket:
            sock = stack.enter_context(socket.socket(family, kind))
            if where is not None:
                sock.bind(where)
            if backlog is not None:
                sock.listen(backlog)
            return sock

        yield make


@pytest.fixture
def path() -> Iterator[Path]:
    """A path for a Unix socket, short and in a directory that everybody may search."""
    with tempfile.TemporaryDirectory(prefix="prefork-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory) / "sock"


def open_descriptors() -> set[str]:
    """What is open; the descriptor that lists it is gone when it is looked up."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


def refused(*addresses: str | Address, kept: tuple[Listener, ...] = (), **options: Any) -> str:
    """Why addresses can't be had, after a look at what every refusal must be."""
    wanted = [parse(one) if isinstance(one, str) else one for one in addresses]
    gc.collect()  # what other tests have left is not closed in the middle of this one
    before = open_descriptors()
    with pytest.raises(ListenError) as caught:
        open_listeners(wanted, ListenOptions(**options), kept)
    assert open_descriptors() == before
    message = str(caught.value)
    assert message.startswith(f"cannot listen on {caught.value.address}: ")
    assert "\n" not in message
    return message


def talk(listener: Listener) -> None:
    """A byte goes through."""
    with socket.socket(listener.family) as client:
        client.connect(listener.sock.getsockname())
        client.sendall(b"x")
        served, _ = listener.sock.accept()
        with served:
            assert served.recv(1) == b"x"


def leave_stale(path: Path) -> None:
    """What a killed server leaves: a socket's file with nobody behind it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Runs the block without root's rights."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# TCP


def test_port_zero_is_shown_as_the_port_that_it_became(listen: Opener) -> None:
    [listener] = listen("127.0.0.1:0")
    port = listener.sock.getsockname()[1]
    assert port
    assert listener.name == f"127.0.0.1:{port}"
    assert listener.address == parse("127.0.0.1:0")
    assert (listener.is_tcp, listener.family, listener.inherited) == (True, socket.AF_INET, False)
    assert listener.fileno() == listener.sock.fileno()
    talk(listener)


def test_a_listener_blocks_closes_on_exec_and_does_not_share_its_port(listen: Opener) -> None:
    [listener] = listen("127.0.0.1:0")
    assert listener.sock.gettimeout() is None
    assert not fcntl.fcntl(listener, fcntl.F_GETFL) & os.O_NONBLOCK
    assert not listener.sock.get_inheritable()
    assert listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert not listener.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_every_interface(listen: Opener) -> None:
    [listener] = listen(":0")
    assert listener.name.startswith("0.0.0.0:")
    talk(listener)


@ipv6
def test_ipv6_takes_ipv4_too(listen: Opener) -> None:
    [listener] = listen("[::]:0")
    port = listener.sock.getsockname()[1]
    assert listener.name == f"[::]:{port}"
    assert listener.is_tcp
    talk(listener)
    with socket.create_connection(("127.0.0.1", port)) as client:
        listener.sock.accept()[0].close()
        assert client.recv(1) == b""


@ipv6
def test_ipv6_only_leaves_ipv4_out(listen: Opener) -> None:
    [listener] = listen("[::]:0", ipv6_only=True)
    talk(listener)
    # Another process may have that port on IPv4: so it is not the client that is asked.
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", listener.sock.getsockname()[1])).close()
    listener.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.sock.accept()


def test_a_name_with_both_families_is_ipv4(listen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: resolved)
    [listener] = listen("localhost:0")
    assert listener.family == socket.AF_INET
    assert listener.name.startswith("127.0.0.1:")


@pytest.mark.parametrize("nodelay", [True, False])
def test_accepted_sockets_have_the_listeners_nodelay(listen: Opener, nodelay: bool) -> None:
    [listener] = listen("127.0.0.1:0", nodelay=nodelay)
    with socket.create_connection(listener.sock.getsockname()):
        served, _ = listener.sock.accept()
        with served:
            assert bool(served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == nodelay


def test_a_deferred_accept_has_the_request_with_it(listen: Opener) -> None:
    [plain] = listen("127.0.0.1:0")
    [deferred] = listen("127.0.0.1:0", defer_accept=True)
    with (
        socket.create_connection(deferred.sock.getsockname()) as client,
        socket.create_connection(plain.sock.getsockname()),
    ):
        plain.sock.accept()[0].close()
        deferred.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            deferred.sock.accept()
        client.sendall(b"x")
        deferred.sock.setblocking(True)
        served, _ = deferred.sock.accept()
        with served:
            assert served.recv(1, socket.MSG_DONTWAIT) == b"x"


def queue_limit(listener: Listener) -> int:
    """The backlog of a listening TCP socket: the kernel puts it into tcpi_sacked."""
    info = listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("8B24I", info)[8 + 5])


def test_the_backlog_is_what_the_kernel_allows(listen: Opener) -> None:
    [listener] = listen("127.0.0.1:0")
    assert queue_limit(listener) == int(Path("/proc/sys/net/core/somaxconn").read_text())


def test_the_backlog_without_proc_is_pythons_idea_of_it(
    listen: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listeners, "_SYSCTL", tmp_path)
    monkeypatch.setattr(socket, "SOMAXCONN", 17)
    [listener] = listen("127.0.0.1:0")
    assert queue_limit(listener) == 17


def test_a_backlog_of_ones_own(listen: Opener) -> None:
    [listener] = listen("127.0.0.1:0", backlog=5)
    assert queue_limit(listener) == 5


def test_a_port_in_use_names_the_process_that_has_it(others: Callable[..., socket.socket]) -> None:
    port = others(("127.0.0.1", 0)).getsockname()[1]
    for host in "127.0.0.1", "", "localhost":
        message = refused(f"{host}:{port}")
        assert "the address is in use" in message
        assert f"(pid {os.getpid()})" in message
        assert "choose another address" in message


def test_a_port_in_use_by_a_process_that_cannot_be_seen(
    others: Callable[..., socket.socket],
) -> None:
    # Bound without SO_REUSEADDR and not listening: in no list of listeners.
    port = others(("127.0.0.1", 0), backlog=None).getsockname()[1]
    assert "the address is in use; stop" in refused(f"127.0.0.1:{port}")


def test_the_holder_is_not_one_with_the_same_port_or_the_same_host(
    others: Callable[..., socket.socket],
) -> None:
    port = others(("127.0.0.1", 0), backlog=None).getsockname()[1]
    others(("127.0.0.1", 0))
    others(("127.0.0.2", port))
    assert "the address is in use; stop" in refused(f"127.0.0.1:{port}")


def test_a_low_port_without_the_right() -> None:
    first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first_free < 2:
        pytest.skip("every port is free to all")
    with nobody():
        message = refused(f"127.0.0.1:{first_free - 1}")
    assert f"no permission for a port below {first_free}" in message
    assert "CAP_NET_BIND_SERVICE" in message


def test_a_high_port_that_a_policy_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(family: int, kind: int) -> socket.socket:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(socket, "socket", forbid)
    with pytest.raises(ListenError, match="a security policy of this system denies it"):
        open_listener(parse("127.0.0.1:0"), DEFAULT)


def test_an_address_of_another_machine() -> None:
    assert "this machine has no such address" in refused("203.0.113.77:0")


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = refused("no-such-host:8000")
    assert "no-such-host:8000: the host name cannot be resolved: Name or service not" in message


def test_a_name_with_too_long_a_label() -> None:
    assert "is not a valid host name" in refused(f"{'a' * 64}.example:8000")


def test_a_system_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ipv6(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", no_ipv6)
    with pytest.raises(ListenError, match="has no IPv6"):
        open_listener(parse("[::1]:0"), DEFAULT)


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """The lowest one that is free is over the limit."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_too_many_open_files(kind: str, path: Path) -> None:
    address = parse({"tcp": "127.0.0.1:0", "unix": f"unix:{path}"}[kind])
    with (
        pytest.raises(ListenError, match="too many open files; raise its limit"),
        no_more_descriptors(),
    ):
        open_listener(address, DEFAULT)
    assert os.listdir(path.parent) == []


# Unix sockets


def test_a_unix_socket_listens_and_goes_with_its_file(listen: Opener, path: Path) -> None:
    [listener] = listen(f"unix:{path}")
    assert listener.name == f"unix:{path}"
    assert (listener.is_tcp, listener.family) == (False, socket.AF_UNIX)
    talk(listener)
    listener.close(unlink=True)
    assert os.listdir(path.parent) == ["sock.lock"]


def test_close_alone_leaves_the_file_to_the_other_holders(listen: Opener, path: Path) -> None:
    [listener] = listen(f"unix:{path}")
    listener.close()
    assert path.is_socket()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_mode_of_the_file_is_the_one_asked_for(listen: Opener, path: Path, mode: int) -> None:
    umask = os.umask(0o027)
    try:
        listen(f"unix:{path}", unix_mode=mode)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_file_is_closed_to_others_until_it_has_its_mode(
    listen: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    chmod = os.chmod

    def watched(name: str, mode: int) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode))
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(path))
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", watched)
    listen(f"unix:{path}")
    assert seen == [0o600]


@root_only
@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("nobody", (NOBODY, 0)),
        ("65534", (NOBODY, 0)),
        ("nobody:nogroup", (NOBODY, NOBODY)),
        (":65534", (0, NOBODY)),
        ("12345:54321", (12345, 54321)),
    ],
)
def test_the_owner_of_the_file(
    listen: Opener, path: Path, owner: str, expected: tuple[int, int]
) -> None:
    listen(f"unix:{path}", unix_owner=owner)
    found = path.stat()
    assert (found.st_uid, found.st_gid) == expected


@pytest.mark.parametrize(
    ("owner", "missing"),
    [
        ("no-such-user", "user: 'no-such-user'"),
        ("0:no-such-group", "group: 'no-such-group'"),
        ("4294967295", "user: '4294967295'"),  # chown(2) would read it as "leave it"
        ("-5", "user: '-5'"),
    ],
)
def test_an_owner_that_does_not_exist(path: Path, owner: str, missing: str) -> None:
    message = refused(f"unix:{path}", unix_owner=owner)
    assert f"no such {missing} (server.unix_owner)" in message
    assert not path.exists()


def test_only_root_may_give_a_file_away(path: Path) -> None:
    os.chmod(path.parent, 0o777)
    with nobody():
        message = refused(f"unix:{path}", unix_owner="0")
    assert "no permission to give its file to '0' (server.unix_owner)" in message
    assert not path.exists()


def test_a_directory_without_the_right(path: Path) -> None:
    os.chmod(path.parent, 0o500)
    with nobody():
        message = refused(f"unix:{path}")
    assert f"no permission for {path}" in message


@root_only
def test_a_lock_that_another_user_has_left(listen: Opener, path: Path) -> None:
    """As after a trial as root of what runs as a user of its own."""
    [listener] = listen(f"unix:{path}")
    listener.close()
    os.chmod(path.parent, 0o777)
    with nobody():
        message = refused(f"unix:{path}")
    assert f"{path}.lock belongs to root, who has run a server here before" in message
    assert "remove the file" in message


def test_a_directory_that_does_not_exist(path: Path) -> None:
    message = refused(f"unix:{path.parent}/none/sock")
    assert "its directory does not exist; create it" in message


def test_a_directory_that_is_a_file(path: Path) -> None:
    path.write_text("")
    assert "is not a directory" in refused(f"unix:{path}/sock")


def test_a_stale_socket_is_replaced(listen: Opener, path: Path) -> None:
    leave_stale(path)
    [listener] = listen(f"unix:{path}")
    talk(listener)


def test_a_live_socket_stays(path: Path, others: Callable[..., socket.socket]) -> None:
    others(str(path), socket.AF_UNIX)
    message = refused(f"unix:{path}")
    assert f"the address is in use by pid {os.getpid()}" in message
    assert path.is_socket()


def test_a_live_socket_with_a_full_queue_stays(
    path: Path, others: Callable[..., socket.socket]
) -> None:
    others(str(path), socket.AF_UNIX, backlog=0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))  # a backlog of 0 queues one
        assert "the address is in use;" in refused(f"unix:{path}")
    assert path.is_socket()


def test_a_live_socket_of_another_type_stays(
    path: Path, others: Callable[..., socket.socket]
) -> None:
    others(str(path), socket.AF_UNIX, socket.SOCK_DGRAM, backlog=None)
    assert "the address is in use;" in refused(f"unix:{path}")
    assert path.is_socket()


def test_a_stale_socket_that_cannot_be_replaced_stays(path: Path) -> None:
    leave_stale(path)
    before = path.stat()
    os.chmod(path.parent, 0o555)
    with nobody():
        assert f"no permission for {path}.lock;" in refused(f"unix:{path}")
    assert path.stat() == before


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_not_a_socket_is_never_touched(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    before = path.lstat()
    assert "a file of this name exists and is not a socket" in refused(f"unix:{path}")
    assert path.lstat() == before
    assert os.listdir(path.parent) == ["sock"]  # and no lock file beside it


def test_the_lock_of_the_path_is_held_from_the_test_until_it_listens(
    listen: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_stale(path)
    steps = []

    def held() -> bool:
        """Asked of the kernel, which does not show a process its own locks otherwise."""
        inode = os.stat(f"{path}.lock").st_ino
        return any(
            f" {os.getpid()} " in line and f":{inode} " in line
            for line in Path("/proc/locks").read_text().splitlines()
        )

    def watch(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            steps.append((name, held()))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(unix_socket, "listening_process")
    watch(os, "unlink")
    watch(os, "chmod")
    monkeypatch.setattr(socket, "socket", watch_listen(socket.socket, steps, held))
    [listener] = listen(f"unix:{path}")
    assert steps == [
        ("listening_process", True),
        ("unlink", True),
        ("chmod", True),
        ("listen", True),
    ]
    assert not held()
    steps.clear()
    listener.close(unlink=True)
    assert steps == [("unlink", True)]


def watch_listen(
    base: type[socket.socket], steps: list[tuple[str, bool]], held: Callable[[], bool]
) -> type[socket.socket]:
    class Watched(base):  # type: ignore[misc, valid-type]
        def listen(self, *args: int) -> None:
            steps.append(("listen", held()))
            super().listen(*args)

    return Watched


def test_a_lock_file_that_is_a_link_is_not_followed(path: Path) -> None:
    Path(f"{path}.lock").symlink_to(path.parent / "target")
    assert "sock.lock" in refused(f"unix:{path}")
    assert not (path.parent / "target").exists()


def test_close_leaves_the_file_of_a_successor(listen: Opener, path: Path) -> None:
    [old] = listen(f"unix:{path}")
    path.unlink()
    [new] = listen(f"unix:{path}")
    old.close(unlink=True)
    talk(new)


def test_close_is_content_with_a_file_that_is_gone(listen: Opener, path: Path) -> None:
    [listener] = listen(f"unix:{path}")
    Path(f"{path}.lock").unlink()
    path.unlink()
    path.parent.rmdir()
    listener.close(unlink=True)
    listener.close(unlink=True)
    assert listener.fileno() == -1


def test_a_path_of_107_bytes_fits_and_one_of_108_does_not(listen: Opener, path: Path) -> None:
    fits = path.parent / ("x" * (UNIX_PATH_MAX - len(f"{path.parent}/")))
    [listener] = listen(f"unix:{fits}")
    talk(listener)
    # Two bytes, one character: it is bytes that count.
    long = f"{str(fits)[:-1]}é"
    # Not parsed: a relative path is of legal length until it is made absolute.
    assert "108 bytes" in refused(Address("unix", path=long))
    assert not Path(f"{long}.lock").exists()


# Abstract Unix sockets


def abstract_name() -> str:
    return f"prefork-test-{os.getpid()}-{os.urandom(4).hex()}"


def test_an_abstract_socket_has_no_file(listen: Opener) -> None:
    name = abstract_name()
    [listener] = listen(f"unix:@{name}")
    assert listener.name == f"unix:@{name}"
    assert listener.sock.getsockname() == b"\0" + name.encode()
    assert (listener.is_tcp, listener.inode) == (False, None)
    talk(listener)


def test_an_abstract_name_in_use(others: Callable[..., socket.socket]) -> None:
    name = abstract_name()
    others(f"\0{name}", socket.AF_UNIX)
    assert f"the address is in use by pid {os.getpid()}" in refused(f"unix:@{name}")


def test_the_longest_abstract_name(listen: Opener) -> None:
    talk(*listen(f"unix:@{abstract_name().ljust(UNIX_PATH_MAX, 'x')}"))


# Inherited sockets


Passing = Callable[..., list[socket.socket]]


@pytest.fixture
def passing(
    others: Callable[..., socket.socket],
    inherit: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> Passing:
    """Passes sockets with names as systemd does, but from a descriptor on that is free here."""

    def passing(*names: str) -> list[socket.socket]:
        socks = [others(("127.0.0.1", 0)) for _ in names]
        first = max(int(fd) for fd in os.listdir("/proc/self/fd")) + 1
        for fd, sock in enumerate(socks, first):
            inherit(sock, fd)
        monkeypatch.setattr(systemd, "FIRST_FD", first)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", str(len(names)))
        monkeypatch.setenv("LISTEN_FDNAMES", ":".join(names))
        return socks

    return passing


def test_a_passed_descriptor_is_taken_over(
    listen: Opener, others: Callable[..., socket.socket], inherit: Callable[..., int]
) -> None:
    original = others(("127.0.0.1", 0))
    original.setblocking(False)
    fd = inherit(original)
    [listener] = listen(f"fd:{fd}", defer_accept=True)
    assert listener.fileno() == fd
    assert listener.inherited
    assert listener.is_tcp
    assert listener.name == f"127.0.0.1:{original.getsockname()[1]}"
    assert not os.get_inheritable(fd)
    assert os.get_blocking(fd)
    assert listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    assert queue_limit(listener) == 8  # its maker's
    talk(listener)


def test_a_passed_unix_socket_keeps_its_file_and_mode(
    listen: Opener,
    others: Callable[..., socket.socket],
    inherit: Callable[..., int],
    path: Path,
) -> None:
    fd = inherit(others(str(path), socket.AF_UNIX))
    path.chmod(0o640)
    [listener] = listen(f"fd:{fd}", unix_mode=0o600)
    assert (listener.name, listener.is_tcp) == (f"unix:{path}", False)
    talk(listener)
    listener.close(unlink=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_passed_abstract_socket_shows_its_name(
    listen: Opener, others: Callable[..., socket.socket], inherit: Callable[..., int]
) -> None:
    name = abstract_name()
    [listener] = listen(f"fd:{inherit(others(chr(0) + name, socket.AF_UNIX))}")
    assert listener.name == f"unix:@{name}"


def test_a_descriptor_that_is_not_open(others: Callable[..., socket.socket]) -> None:
    sock = others()
    fd = sock.fileno()
    sock.close()
    assert f"descriptor {fd} is not open" in refused(f"fd:{fd}")


def test_a_descriptor_that_is_no_socket(inherit: Callable[..., int]) -> None:
    read, write = os.pipe()
    with open(read), open(write, "w"):
        fd = inherit(read)
        assert f"descriptor {fd} is not a socket" in refused(f"fd:{fd}")


@pytest.mark.parametrize(
    ("family", "kind", "backlog"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, None),
        (socket.AF_INET, socket.SOCK_DGRAM, None),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, 8),
        (socket.AF_NETLINK, socket.SOCK_RAW, None),
    ],
    ids=["not listening", "datagram", "packets", "netlink"],
)
def test_a_socket_of_the_wrong_sort(
    others: Callable[..., socket.socket],
    inherit: Callable[..., int],
    path: Path,
    family: int,
    kind: int,
    backlog: int | None,
) -> None:
    where = str(path) if family == socket.AF_UNIX else None
    fd = inherit(others(where, family, kind, backlog))
    assert "is not a listening TCP or Unix stream socket" in refused(f"fd:{fd}")
    assert os.get_inheritable(fd)


def test_a_listening_socket_of_another_family(
    others: Callable[..., socket.socket], inherit: Callable[..., int]
) -> None:
    where = (socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY)
    try:
        other = others(where, socket.AF_VSOCK)
    except OSError as error:
        pytest.skip(f"no vsock here: {error}")
    assert "is not a listening TCP or Unix stream socket" in refused(f"fd:{inherit(other)}")


def test_a_descriptor_of_the_servers_own_is_not_taken_for_a_passed_one(listen: Opener) -> None:
    [listener] = listen("127.0.0.1:0")
    message = refused(f"fd:{listener.fileno()}")
    assert "was not passed to the server" in message
    talk(listener)


def test_what_systemd_passed_is_taken_by_name(passing: Passing, listen: Opener) -> None:
    _, admin, _ = passing("web", "admin", "web")
    [listener] = listen("systemd:admin")
    assert listener.sock.getsockname() == admin.getsockname()
    assert listener.inherited
    talk(listener)


def test_a_name_may_stand_for_several_sockets(passing: Passing, listen: Opener) -> None:
    first, _, second = passing("web", "admin", "web")
    found = [listener.sock.getsockname() for listener in listen("systemd:web")]
    assert found == [first.getsockname(), second.getsockname()]


def test_without_a_name_all_that_systemd_passed_is_taken(passing: Passing, listen: Opener) -> None:
    socks = passing("web", "admin")
    opened = listen("systemd")
    assert [one.sock.getsockname() for one in opened] == [sock.getsockname() for sock in socks]
    assert {listener.address for listener in opened} == {parse("systemd")}


def test_systemd_passed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_PID", raising=False)
    assert "systemd passed no sockets to this process" in refused("systemd")


def test_systemd_passed_other_names(passing: Passing) -> None:
    passing("web", "admin", "web")
    assert "no socket of this name, only web, admin; see" in refused("systemd:api")


def test_what_systemd_passed_is_malformed(
    passing: Passing, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing("web")
    monkeypatch.setenv("LISTEN_FDS", "many")
    assert "LISTEN_FDS is 'many'" in refused("systemd")


def test_one_bad_socket_among_those_passed_gives_the_others_back(
    passing: Passing, inherit: Callable[..., int]
) -> None:
    passing("web", "web")
    read, write = os.pipe()
    with open(read), open(write, "w"):
        inherit(read, systemd.FIRST_FD + 1)
        assert "is not a socket" in refused("systemd")
    assert os.get_inheritable(systemd.FIRST_FD)


def test_one_listener_where_systemd_passed_several(passing: Passing) -> None:
    passing("web", "admin")
    with pytest.raises(ListenError, match="stands for 2 sockets"):
        open_listener(parse("systemd"), DEFAULT)
    assert os.get_inheritable(systemd.FIRST_FD)
    listener = open_listener(parse("systemd:web"), DEFAULT)
    listener.close()


# Several, and a reload


def test_several_addresses_in_their_order(listen: Opener, path: Path) -> None:
    kinds = ["unix" if not one.is_tcp else "tcp" for one in listen(f"unix:{path}", "127.0.0.1:0")]
    assert kinds == ["unix", "tcp"]


def test_an_address_given_twice_is_opened_once(listen: Opener, path: Path) -> None:
    assert len(listen(f"unix:{path}", f"unix:{path}")) == 1


@ipv6
def test_what_is_kept_is_the_same_socket(listen: Opener, path: Path) -> None:
    [tcp, unix] = listen("127.0.0.1:0", f"unix:{path}")
    again = listen(f"unix:{path}", "127.0.0.1:0", "[::1]:0", kept=(tcp, unix))
    assert again[:2] == [unix, tcp]
    assert len(again) == 3
    assert again[2] not in (tcp, unix)


def test_all_sockets_of_systemd_are_kept(passing: Passing, listen: Opener) -> None:
    passing("web", "admin")
    opened = listen("systemd")
    assert listen("systemd", kept=tuple(opened)) == opened


def test_one_that_fails_undoes_the_new_and_leaves_the_kept(
    listen: Opener,
    others: Callable[..., socket.socket],
    inherit: Callable[..., int],
    path: Path,
) -> None:
    [kept] = listen("127.0.0.1:0")
    passed = others(("127.0.0.1", 0))
    fd = inherit(passed)
    taken = others(("127.0.0.1", 0)).getsockname()[1]
    for _ in range(2):  # the second time as the first: nothing has changed
        message = refused(
            "127.0.0.1:0", f"unix:{path}", f"fd:{fd}", f"127.0.0.1:{taken}", kept=(kept,)
        )
        assert message.startswith(f"cannot listen on 127.0.0.1:{taken}: the address is in use")
        assert os.listdir(path.parent) == ["sock.lock"]
        assert os.get_inheritable(fd)
    talk(kept)


def test_a_kept_listener_can_be_adjusted(listen: Opener, path: Path) -> None:
    [tcp, unix] = listen("127.0.0.1:0", f"unix:{path}", defer_accept=True)
    options = ListenOptions(backlog=3, unix_mode=0o600, nodelay=False)
    for listener in tcp, unix:
        listener.apply(options)
    assert not tcp.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    assert not tcp.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert queue_limit(tcp) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ListenError, match="no such user: 'no-such-user'"):
        unix.apply(ListenOptions(unix_owner="no-such-user"))


def test_the_file_of_a_successor_is_not_adjusted(listen: Opener, path: Path) -> None:
    [old] = listen(f"unix:{path}")
    path.unlink()
    listen(f"unix:{path}")
    old.apply(ListenOptions(unix_mode=0o600))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
