"""Who a name is, and in which order a process becomes somebody else."""

import grp
import os
import pwd

import pytest

from prefork import accounts
from prefork.accounts import Account, AccountError, find
from prefork.config import Override
from tests.support.config_site import loaded, problems


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the user ann, 1001, of the groups staff, 50, and wheel, 10."""
    ann = pwd.struct_passwd(("ann", "x", 1001, 50, "", "/home/ann", "/bin/sh"))
    staff = grp.struct_group(("staff", "x", 50, []))
    monkeypatch.setattr(pwd, "getpwnam", {"ann": ann}.__getitem__)
    monkeypatch.setattr(pwd, "getpwuid", {1001: ann}.__getitem__)
    monkeypatch.setattr(grp, "getgrnam", {"staff": staff}.__getitem__)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 50, 10])


@pytest.mark.usefixtures("known")
def test_a_user_brings_all_its_groups() -> None:
    ann = Account(1001, 50, (50, 10), "ann", "/home/ann")
    assert find("ann", None) == find("1001", None) == find("ann", "staff") == ann
    assert find("ann", "7") == Account(1001, 7, (7, 50, 10), "ann", "/home/ann")


@pytest.mark.usefixtures("known")
def test_a_number_without_an_entry_needs_a_group() -> None:
    assert find("2002", "7") == Account(2002, 7, (7,), "", "")
    with pytest.raises(
        AccountError, match=r"user 2002 has no entry \(passwd\(5\)\) and so no group"
    ):
        find("2002", None)


@pytest.mark.usefixtures("known")
def test_a_group_alone() -> None:
    assert find(None, "staff") == Account(None, 50, (50,), "", "")
    assert find(None, None) is None


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("user", "group", "key"),
    [("bob", None, "user"), ("ann", "bobs", "group"), (None, "x", "group")],
)
def test_a_name_that_does_not_exist(user: str | None, group: str | None, key: str) -> None:
    with pytest.raises(AccountError, match="no such") as caught:
        find(user, group)
    assert caught.value.key == key


def test_groups_go_first_and_the_user_last(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, lambda *args, name=name: done.append((name, *args)))
    accounts.become(Account(1001, 50, (50, 10), "ann", "/home/ann"))
    assert done == [("setgroups", (50, 10)), ("setresgid", 50, 50, 50), ("setresuid", *[1001] * 3)]


def override(key: str, value: object) -> Override:
    return Override("process", key, value, "--set")


def test_what_the_configuration_takes() -> None:
    config = loaded("a:app", override("group", 4), override("umask", "0027")).config.process
    assert (config.group, config.umask, config.user) == ("4", 0o027, None)
    assert config.no_new_privs is True


def test_what_the_configuration_says_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "--set: process.user: no such user: nobody-of-that-name"
    assert problems("a:app", override("user", "nobody-of-that-name")) == [line]
    assert problems("a:app", override("user", "a:b")) == [
        '--set: process.user: expected the name or number of a user, got "a:b"'
    ]
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert problems("a:app", override("user", "nobody")) == [
        "--set: process.user: only root can change to another account; start the server as root, or"
        " remove it"
    ]
    # Its own user needs no change, so one file serves for root and for that user.
    monkeypatch.setattr(os, "getegid", lambda: pwd.getpwnam("nobody").pw_gid)
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    assert loaded("a:app", override("user", "nobody")).config.process.user == "nobody"
