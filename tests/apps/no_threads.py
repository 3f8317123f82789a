"""An application whose process gets no other thread.

So it is with a limit of processes that is reached, or without clone3(2).
"""

from tests.apps.basic import app
from tests.support.seccomp import refuse_threads

refuse_threads()

__all__ = ["app"]
