"""What answers: a WSGI application, a static site, a TCP handler."""
