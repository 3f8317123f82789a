"""An application that was given to `prefork.serve` as an object.

It is found under a name, like any other."""

from typing import Any

NAME = f"{__name__}:application"
"""The name, for `server.app`.  Workers have the object from the master, by fork."""

application: Any = None
