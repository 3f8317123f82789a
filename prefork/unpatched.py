"""Parts of the standard library as they are before an application is imported.

gevent's `patch_all()` and eventlet's `monkey_patch()` replace sockets, locks, threads, sleep(), and
in part `os` by those of their own event loop, and remove epoll from the module `select`.  An
application calls them when it is imported.  The server's own threads, locks and sockets are of the
kernel all the same: modules that run in a worker import them from here (a test holds that).
"""

import sys
from types import BuiltinFunctionType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import _thread as _thread
    import os as os
    import select as select
    import socket as socket
    from _thread import get_ident as get_ident
    from _thread import start_new_thread as start_new_thread
    from threading import Lock as Lock
    from threading import RLock as RLock
    from time import sleep as sleep
else:
    import _thread
    import os
    import select
    import socket
    from _thread import RLock, get_ident, start_new_thread  # noqa: F401
    from _thread import allocate_lock as Lock  # noqa: F401
    from time import sleep  # noqa: F401

    def _copy(module: ModuleType) -> ModuleType:
        copy = ModuleType(module.__name__)
        vars(copy).update(vars(module))
        return copy

    _thread, os, select, socket = map(_copy, (_thread, os, select, socket))


def is_patched() -> bool:
    """Whether the threads of the standard library are not those of the kernel by now."""
    module = sys.modules["threading"]
    start = getattr(module, "_start_joinable_thread", None)  # CPython 3.13
    return not isinstance(start or module._start_new_thread, BuiltinFunctionType)
