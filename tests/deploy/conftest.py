"""The same servers as in the system tests."""

from tests.system.conftest import start

__all__ = ["start"]
