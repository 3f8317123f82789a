"""Resource limits and CPUs of a worker, from [process]."""

import os
import resource
from collections.abc import Mapping, Sequence

from prefork.apps.application_loader import LoadError
from prefork.config.resource_values import LIMITS


def set_limits(limits: Mapping[str, int]) -> None:
    """Sets resource limits for this process and its children, setrlimit(2).

    To be called before rights are dropped: to raise a hard limit takes CAP_SYS_RESOURCE.  Raises
    LoadError.
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
    """Binds a worker to its set of CPUs, sched_setaffinity(2); slots get the sets in turn.

    Without sets the worker may run on all CPUs.  Raises LoadError.
    """
    if not sets:
        return
    cpus = sets[slot % len(sets)]
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        shown = ", ".join(map(str, cpus))
        raise LoadError(
            f"process.cpu_affinity: cannot be bound to CPU {shown}: {error.strerror}; name"
            " CPUs that this process may use (taskset -p), or remove the key"
        ) from None
