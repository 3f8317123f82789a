"""Users and groups: who a name is, and how a process becomes somebody with fewer rights."""

import contextlib
import grp
import os
import pwd
from typing import NamedTuple


class AccountError(Exception):
    """There is no such user or group; `key` is "user" or "group". One line."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class Account(NamedTuple):
    """Whom to become."""

    uid: int | None
    """None: the user stays."""
    gid: int
    groups: tuple[int, ...]
    """All groups, the first one included."""
    name: str
    """Empty where the user stays, or has none."""
    home: str

    @property
    def is_current(self) -> bool:
        """This process is that already, as far as user and first group go."""
        return self.uid in (None, os.geteuid()) and self.gid == os.getegid()


def find(user: str | None, group: str | None) -> Account | None:
    """The account of a user's and a group's names or numbers; None where neither is given.

    Without a group it is the user's own, getpwnam(3); the groups that have the user as a member
    come along, getgrouplist(3).  Raises AccountError.
    """
    gid = _group(group) if group is not None else None
    if user is None:
        return None if gid is None else Account(None, gid, (gid,), "", "")
    entry = _user(user)
    if entry is None:
        if not user.isdigit():
            raise AccountError("user", f"no such user: {user}")
        if gid is None:
            raise AccountError("user", f"user {user} has no entry and so no group: give it, too")
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
    """Takes an account on for good: real, effective and saved ids, setresuid(2).

    In this order, since each step takes the right that the next one gives up: groups, group, user.
    The kernel then takes all capabilities, too (capabilities(7)).  Only the calling thread's
    process of one thread may do this.  Raises OSError.
    """
    os.setgroups(account.groups)
    os.setresgid(account.gid, account.gid, account.gid)
    if account.uid is not None:
        os.setresuid(account.uid, account.uid, account.uid)
