import json
import multiprocessing
import os

per_core = float(os.getenv("WORKERS_PER_CORE", "1"))
most = os.getenv("MAX_WORKERS")
asked = os.getenv("WEB_CONCURRENCY")
host = os.getenv("HOST", "0.0.0.0")
port = os.getenv("PORT", "80")
place = os.getenv("BIND")

if asked:
    workers = int(asked)
else:
    workers = max(int(per_core * min(multiprocessing.cpu_count(), 2)), 2)
    if most:
        workers = min(workers, int(most))

if place:
    bind = place
else:
    bind = f"{host}:{port}"

loglevel = os.getenv("LOG_LEVEL", "info")
accesslog = os.getenv("ACCESS_LOG", "-") or None
errorlog = os.getenv("ERROR_LOG", "-") or None
graceful_timeout = int(os.getenv("GRACEFUL_TIMEOUT", "120"))
timeout = int(os.getenv("TIMEOUT", "120"))
keepalive = int(os.getenv("KEEP_ALIVE", "5"))

print(json.dumps({"workers": workers, "bind": bind}))
