"""An application that reads from the terminal, by itself or in a child."""

import signal
import subprocess
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIEnvironment


def ask() -> str:
    return input("a word, please: ")


def debug() -> str:
    breakpoint()
    return ""


def tty() -> str:
    with open("/dev/tty") as file:
        return file.readline()


def child() -> str:
    """A program that reads the terminal, with signals as a shell starts it."""
    found = subprocess.Popen(
        ["cat", "/dev/tty"],
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),
    )
    return str(found.pid)


def same_input() -> str:
    """What a child finds on the standard input that it inherits."""
    return subprocess.run(["cat"], capture_output=True, text=True, check=True).stdout


_PATHS: dict[str, Callable[[], str]] = {
    "/ask": ask,
    "/debug": debug,
    "/tty": tty,
    "/child": child,
    "/same": same_input,
    "/": lambda: "",
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    text = _PATHS[environ["PATH_INFO"]]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
