"""How workers and zygotes start: fork, rights, hooks, loading and warm-up, up to *ready*."""
