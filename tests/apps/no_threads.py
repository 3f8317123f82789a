"""An application whose process gets no other thread: each would need a stack of 64 TiB.

So it is with a limit of processes that is reached, or without clone3(2).
"""

import threading

from tests.apps.basic import app

threading.stack_size(1 << 46)

__all__ = ["app"]
