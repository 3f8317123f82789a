"""One connection: bytes to requests, responses to bytes, and its state."""
