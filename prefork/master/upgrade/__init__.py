"""Upgrade in place: preflight, exec, and the start of the new master."""
