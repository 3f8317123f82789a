"""HTTP/1.1: bytes to request to bytes. No sockets are made here, and no application is known."""
