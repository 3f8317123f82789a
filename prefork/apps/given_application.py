"""An application that was given as an object: it is found under a name, like any other."""

from typing import Any

NAME = f"{__name__}:application"
"""The name, for `server.app`.  Workers have the object from the master, by fork."""

application: Any = None
