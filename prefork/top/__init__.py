"""`prefork top`: a running server, live in a terminal.

What is known (`model`), how it looks (`view`) and the terminal (`terminal`) know of each other in
that order only; the first two make no system call that changes anything, and draw nothing.
"""
