"""Upgrade in place: preflight, exec, and what the new master takes over."""
