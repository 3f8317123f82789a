"""Users and groups: the account of a name, and how a process changes to it."""

import contextlib
import grp
import os
import pwd
from typing import NamedTuple


class AccountError(Exception):
    """A user or group does not exist; `key` is "user" or "group"; the text is one line."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class Account(NamedTuple):
    """The ids that a process changes to."""

    uid: int | None
    """None: the user is not changed."""
    gid: int
    groups: tuple[int, ...]
    """All groups, including the primary one."""
    name: str
    """Empty if the user is not changed, or has no name."""
    home: str

    @property
    def is_current(self) -> bool:
        """Whether user and primary group of this process are those of the account."""
        return self.uid in (None, os.geteuid()) and self.gid == os.getegid()


def find(user: str | None, group: str | None) -> Account | None:
    """The account of a user and a group, by name or number; None if neither is given.

    The default of the group is the primary group of the user, getpwnam(3).  The other groups of the
    user are included, getgrouplist(3).  Raises AccountError.
    """
    gid = _group(group) if group is not None else None
    if user is None:
        return None if gid is None else Account(None, gid, (gid,), "", "")
    entry = _user(user)
    if entry is None:
        if not user.isdigit():
            raise AccountError("user", f"no such user: {user}")
        if gid is None:
            raise AccountError(
                "user",
                f"user {user} has no entry (passwd(5)) and so no group; set the group, too",
            )
        return Account(int(user), gid, (gid,), "", "")
    first = entry.pw_gid if gid is None else gid
    groups = tuple(dict.fromkeys([first, *os.getgrouplist(entry.pw_name, first)]))
    return Account(entry.pw_uid, first, groups, entry.pw_name, entry.pw_dir)


def _user(user: str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError, OverflowError):
        return pwd.getpwnam(user)
    with contextlib.suppress(KeyError, OverflowError, ValueError):
        return pwd.getpwuid(int(user))
    return None


def _group(group: str) -> int:
    with contextlib.suppress(KeyError):
        return grp.getgrnam(group).gr_gid
    if not group.isdigit():
        raise AccountError("group", f"no such group: {group}")
    return int(group)


def become(account: Account) -> None:
    """Changes this process to the account for good: real, effective and saved ids, setresuid(2).

    The order is groups, group, user, since each step needs a right that the last one gives up.
    With the user, the kernel also takes all capabilities away (capabilities(7)).  The process must
    have one thread only, since the system calls change the calling thread.  Raises OSError.
    """
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    if account.uid is not None:
        os.setresuid(account.uid, account.uid, account.uid)
