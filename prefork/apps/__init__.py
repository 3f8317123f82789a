"""Applications that answer requests: WSGI applications, static sites, and layers around both."""
