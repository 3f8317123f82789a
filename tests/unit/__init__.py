"""Tests without a server process."""
