"""The master: binds once, forks workers, watches, restarts and signals them.

It has one thread and never runs application code.
"""
