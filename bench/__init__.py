"""Side by side with other servers: `make bench`, and README.md for how to read it."""
