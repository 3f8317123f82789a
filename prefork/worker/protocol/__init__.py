"""One connection: bytes to requests, responses to bytes, and the state in between."""
