"""What the master watches and reports: status, metrics, timeouts, slow log, queues."""
