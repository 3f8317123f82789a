"""A hook for a worker that has a `graceful_timeout` which a busy machine does not reach."""

import random

from prefork.worker.boot.hooks import WorkerInfo
from prefork.worker.service import asgi_service


def ready(_: WorkerInfo) -> None:
    """Streams are told to end over a twentieth of their share of that time."""
    vars(asgi_service)["random"] = lambda: random.random() / 20
