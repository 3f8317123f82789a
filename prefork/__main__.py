"""`python -m prefork`: the same as the command.

Python puts the working directory first on the path of modules. A file `msgspec.py` in it would be
run with the rights of whoever starts a server, so the directory is taken out before anything is
imported; the application is found by `server.chdir` and `server.pythonpath`, in the workers. What
Python itself imports before this file cannot be kept from the working directory here: a
`prefork.py`, and the modules of the standard library that `-m` needs. `python -P -m prefork` and
the command `prefork` look into it for nothing at all.
"""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]
    from prefork.cli import main

    main()
