"""The command line: `prefork NAME` is the module `NAME`."""

import contextlib
import gc
import os
import sys

from prefork import standard_descriptors


def main() -> None:
    """Runs the command `prefork` with the arguments of this process.

    Plain arguments of `serve` are read without click.  Importing click would take a tenth of the
    time of the start, and two megabytes in all processes of the server.
    """
    if sys.platform != "linux":
        sys.exit(
            f"prefork runs on Linux only, and this is {sys.platform}: run it in a container, for "
            "example with deploy/container/Dockerfile, or in a virtual machine"
        )
    try:
        _run()
    except OSError as error:  # of a command; a server that runs has caught its own
        from prefork.system_errors import explain

        _drop_output()
        name = sys.argv[1] if len(sys.argv) > 1 else ""
        sys.exit(f"Error: {name}: {explain(error)}")
    except SystemExit as end:
        if end.code:  # as of a command whose reader has closed the pipe
            _drop_output()
        raise


def _drop_output() -> None:
    """What cannot be written is not tried again at the exit, which would fail with status 120."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run() -> None:
    if sys.argv[1:2] == ["serve"]:
        # Before a library takes their numbers; the start of the server says what is wrong.
        with contextlib.suppress(OSError):
            standard_descriptors.open_closed()
    if sys.argv[1:2] == ["serve"] and "_PREFORK_COMPLETE" not in os.environ:
        try:
            _serve(sys.argv[2:])
        except KeyboardInterrupt:  # before the server has installed its handlers
            sys.exit("Aborted!")
    from prefork.cli.group import group

    group(prog_name="prefork")


def _serve(args: list[str]) -> None:
    """Serves; returns if the arguments are to be read, or refused, by click."""
    # Imported modules stay: the garbage collector need not search them again and again.
    gc.disable()
    try:
        from prefork.cli import serving
    finally:
        gc.freeze()
        gc.enable()
    try:
        defaults = serving.read(serving.words_of(os.environ))
        given = serving.read(args)
        if given is None or defaults is None:
            return
        given = given.over(defaults)
        source = given.source()
    except ValueError:
        return
    else:
        sys.exit(serving.run(source, watch=given.watch))
