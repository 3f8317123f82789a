import os
from prometheus_client import multiprocess

os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", "/tmp/prom")
bind = "0.0.0.0:8000"
workers = 4

def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)

def when_ready(server):
    server.log.info("Server is ready. Spawning workers")
