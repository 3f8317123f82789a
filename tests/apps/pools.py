"""An application with pools of processes, made at its first request."""

import json
import multiprocessing
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import answer

fork = multiprocessing.get_context("fork")


@cache
def pools() -> tuple[Any, ProcessPoolExecutor]:
    return fork.Pool(2), ProcessPoolExecutor(2, mp_context=fork)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The processes of the worker's pools."""
    pool, executor = pools()
    pool.apply(os.getpid)
    executor.submit(os.getpid).result()
    pids = [child.pid for child in multiprocessing.active_children()]
    return answer(start_response, json.dumps(pids).encode())
