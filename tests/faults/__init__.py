"""Tests that break something while a server runs."""
