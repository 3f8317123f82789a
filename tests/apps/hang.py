"""Never finishes its import: for the boot timeout."""

import threading

threading.Event().wait()
