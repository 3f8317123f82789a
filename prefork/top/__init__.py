"""`prefork top`: a running server, live in a terminal.

`model` has the data, `view` the layout, `terminal` the input and output.  Each imports only those
before it.  `model` and `view` change nothing in the system, and do not write to the terminal.
"""
