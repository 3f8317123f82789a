"""How many file descriptors a worker may use for connections."""

import resource

SPARE = 32
"""Descriptors that a worker keeps for other things: listeners, its log, the application's files."""


def descriptor_limit() -> int | None:
    """Descriptors that connections may use, RLIMIT_NOFILE without SPARE; None for no limit.

    The kernel gives out the lowest free number (open(2)): a descriptor of this number or above
    says that fewer than SPARE are left.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit - SPARE
