"""Bytes of one connection: socket or TLS, output buffer, time limits, and the close."""
