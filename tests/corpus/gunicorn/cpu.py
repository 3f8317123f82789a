from multiprocessing import cpu_count

def max_workers():
    return cpu_count() * 2 + 1

bind = "127.0.0.1:8001"
workers = max_workers()
max_requests = 1000
max_requests_jitter = 50
worker_class = "sync"
timeout = 120
keepalive = 5
