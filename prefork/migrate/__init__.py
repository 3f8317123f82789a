"""Moving in: the configuration of another server as one for prefork."""
