"""A worker: one process that blocks in accept() and answers."""
