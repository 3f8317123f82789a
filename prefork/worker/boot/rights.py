"""The rights of a worker: its user and groups, and that it never gains more."""

import os

from prefork import accounts, linux
from prefork.apps.application_loader import LoadError
from prefork.config import Process


def drop_rights(process: Process, master: int) -> dict[str, str]:
    """Gives up the rights that [process] says, for good; `master` is the parent's process id.

    To be called after everything that needs root's rights, and before anything of the application
    is imported.  Returns the environment variables that go with the user.  Raises LoadError.
    """
    if process.umask is not None:
        os.umask(process.umask)
    account = None
    try:
        account = accounts.find(process.user, process.group)
        if account is not None and not (os.geteuid() and account.is_current):
            _become(account, master)
        if process.no_new_privs:
            linux.forbid_new_privileges()
    except accounts.AccountError as problem:
        raise LoadError(f"process.{problem.key}: {problem}") from None
    except OSError as problem:
        whom = process.user or process.group
        raise LoadError(f"process.user: cannot become {whom}: {problem.strerror}") from None
    if account is None or not account.name:
        return {}
    return {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}


def _become(account: accounts.Account, master: int) -> None:
    # A change of credentials clears the parent-death signal (prctl(2), PR_SET_PDEATHSIG), and a
    # master that died meanwhile sends none.
    number = linux.parent_death_signal()
    accounts.become(account)
    linux.set_parent_death_signal(number)
    if os.getppid() != master:
        os._exit(0)
