"""The processes that the master holds: workers, zygotes, and their inboxes."""
