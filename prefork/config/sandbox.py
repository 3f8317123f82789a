"""[process] landlock, seccomp, dumpable: what this machine can do of it, and what is in force."""

from prefork import landlock, seccomp
from prefork.config.schema import Process


def missing(process: Process) -> dict[str, str]:
    """What the configuration asks for and the kernel does not have: reasons by key."""
    found = {}
    if process.landlock != "off" and (version := landlock.version()) < landlock.FILES:
        has = f"version {version} of Landlock" if version else "no Landlock (or it is turned off)"
        found["process.landlock"] = (
            f"this kernel has {has}; version {landlock.FILES} (Linux 6.2) protects files"
        )
    if process.seccomp != "off" and not seccomp.is_supported():
        found["process.seccomp"] = (
            "there is no seccomp filter for this kernel and architecture (x86_64 and aarch64, Linux"
            " 4.17)"
        )
    return found


def in_force(process: Process) -> list[str]:
    """What confines the workers on this machine, each in a few words."""
    version = landlock.version()
    found = {
        f"user {process.user or process.group}": bool(process.user or process.group),
        "no_new_privs": process.no_new_privs,
        "not dumpable": process.dumpable is False,
        f"landlock {version}": process.landlock != "off" and version > 0,
        "seccomp": process.seccomp != "off" and seccomp.is_supported(),
    }
    return [text for text, holds in found.items() if holds]
