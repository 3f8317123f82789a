"""A shop that waits for others: the application of the transcripts in docs/operations.md."""

import signal
import threading
from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

stock = threading.Lock()


def refill() -> None:
    with stock, open("supplier") as supplier:  # a pipe: waits until the supplier answers
        supplier.read()


def report() -> str:
    with open("database") as database:  # a pipe, too
        return database.read()


def order() -> str:
    with stock:
        return "ordered"


def thumbnail() -> str:
    signal.raise_signal(signal.SIGSEGV)  # as a bug in C code does
    return "a picture"


PAGES: dict[str, Callable[[], str]] = {
    "/": lambda: "shop",
    "/report": report,
    "/order": order,
    "/thumbnail": thumbnail,
}
threading.Thread(target=refill, daemon=True).start()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = PAGES[environ["PATH_INFO"]]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
