"""The command line: a module for each group of commands; arguments in, exit status out."""

import gc
import os
import sys


def main() -> None:
    """The command `prefork`, with the arguments of this process.

    A `serve` that can be read without click is: with what it imports, that is a tenth of the
    server's start, and two megabytes that all its processes would have for good.
    """
    if sys.platform != "linux":
        sys.exit(
            f"prefork runs on Linux only, and this is {sys.platform}: run it in a container, for "
            "example with deploy/container/Dockerfile, or in a virtual machine"
        )
    if sys.argv[1:2] == ["serve"] and "_PREFORK_COMPLETE" not in os.environ:
        try:
            _serve(sys.argv[2:])
        except KeyboardInterrupt:  # before the server had handlers of its own
            sys.exit("Aborted!")
    from prefork.cli.group import group

    group(prog_name="prefork")


def _serve(args: list[str]) -> None:
    """Returns where the arguments are for click to read, or to refuse."""
    # What is imported stays for good: it is not looked through for garbage again and again.
    gc.disable()
    try:
        from prefork.cli import serving
    finally:
        gc.freeze()
        gc.enable()
    given = serving.read(args)
    if given is not None:
        try:
            source = given.source()
        except ValueError:
            return
        sys.exit(serving.run(source, watch=given.watch))
