"""A new generation in place of the old one: reload, draining, file watching."""
