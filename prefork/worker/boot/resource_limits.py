"""What a worker may use: the limits and CPUs of [process]."""

import os
import resource
from collections.abc import Mapping, Sequence

from prefork.apps.application_loader import LoadError
from prefork.config.resource_values import LIMITS


def limit(limits: Mapping[str, int]) -> None:
    """Sets resource limits for this process and its children, setrlimit(2).

    Before rights are dropped: raising a hard limit takes CAP_SYS_RESOURCE.  Raises LoadError.
    """
    for name, value in limits.items():
        try:
            resource.setrlimit(LIMITS[name], (value, value))
        except (OSError, ValueError) as error:
            hard = resource.getrlimit(LIMITS[name])[1]
            raise LoadError(
                f"process.limits: {name} cannot be {value} (the hard limit is {hard}): {error}"
            ) from None


def bind_to_cpus(sets: Sequence[Sequence[int]], slot: int) -> None:
    """Binds a worker to its set of CPUs, which are given out in turn, sched_setaffinity(2).

    No sets: it stays free.  Raises LoadError.
    """
    if not sets:
        return
    cpus = sets[slot % len(sets)]
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        shown = ", ".join(map(str, cpus))
        raise LoadError(
            f"process.cpu_affinity: cannot be bound to CPU {shown}: {error.strerror}"
        ) from None
