import os
from multiprocessing import cpu_count

_port = os.getenv("PORT", 8000)
bind = f"0.0.0.0:{_port}"
workers = int(os.getenv("WORKERS", cpu_count() * 2 + 1))
worker_class = os.getenv("WORKER_CLASS", "gthread")
threads = int(os.getenv("THREADS", 4))
timeout = int(os.getenv("TIMEOUT", 120))
loglevel = os.getenv("LOG_LEVEL", "INFO")
forwarded_allow_ips = os.getenv("FORWARDED_ALLOW_IPS", "*")
max_requests = 500
max_requests_jitter = 50
worker_tmp_dir = "/dev/shm"
accesslog = "/dev/stdout"
errorlog = "/dev/stderr"
if os.getenv("DEBUG") == "1":
    reload = True
    workers = 1
