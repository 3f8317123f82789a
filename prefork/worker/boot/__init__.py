"""The start of a worker: process, zygote, rights, hooks and warm-up, up to *ready*."""
