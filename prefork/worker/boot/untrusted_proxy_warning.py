"""Logs, once for each server, that a proxy on this machine is not trusted."""

import mmap

from prefork import logs

_logged = mmap.mmap(-1, mmap.PAGESIZE)
"""Its first byte is 1 after the warning. All workers share it: they are forked from a process that
has imported this module. Two workers that detect a proxy at the same moment may both log it, and a
server logs it again after an upgrade."""


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
