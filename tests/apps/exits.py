"""Leaves the process while it is imported."""

import sys

sys.exit("this application exits at import")
