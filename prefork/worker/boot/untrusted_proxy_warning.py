"""Logs, once for each server, that what a proxy says is ignored."""

import mmap

from prefork import logs

_logged = mmap.mmap(-1, mmap.PAGESIZE)
"""Its first two bytes are 1 after the two warnings. All workers share it: they are forked from a
process that has imported this module. Two workers that detect a proxy at the same moment may both
log it, and a server logs it again after an upgrade."""


def warn(peer: str, header: str) -> None:
    """peer: the entry that http.trusted_proxies lacks. header: the name of the header."""
    if _logged[0]:
        return
    _logged[0] = 1
    logs.event(
        "warning",
        "forwarded headers ignored",
        peer=peer,
        header=header,
        hint=f'set http.trusted_proxies = ["{peer}"] if this is your proxy',
    )


def warn_of_header(peer: str, header: str) -> None:
    """peer: a trusted proxy. header: the name of one that http.trusted_headers does not have."""
    if _logged[1]:
        return
    _logged[1] = 1
    logs.event(
        "warning",
        "forwarded headers ignored",
        peer=peer,
        header=header,
        hint=f'add "{header}" to http.trusted_headers if the proxy sets it; many proxies let it'
        " through as a client has sent it",
    )
