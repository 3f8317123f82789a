bind = "127.0.0.1:8002"
worker_class = "gthread"
workers = 2
threads = 4
timeout = 60
graceful_timeout = 0
keepalive = 0
