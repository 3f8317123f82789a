"""An application that becomes another user when it is imported."""

import os
import pwd

from tests.apps.basic import app

_nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(_nobody.pw_gid)
os.setuid(_nobody.pw_uid)

__all__ = ["app"]
