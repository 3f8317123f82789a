"""A hook for a worker that has a `graceful_timeout` which a busy machine does not reach."""

import random

from prefork.worker.boot.hooks import WorkerInfo
from prefork.worker.service import asgi_service, wsgi_websockets


def ready(_: WorkerInfo) -> None:
    """WebSockets and streams are closed over a twentieth of their share of that time."""
    vars(asgi_service)["random"] = lambda: random.random() / 20
    vars(wsgi_websockets)["uniform"] = lambda least, most: random.uniform(least, most / 20)
