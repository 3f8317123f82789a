"""The tests of prefork, and what they share."""
