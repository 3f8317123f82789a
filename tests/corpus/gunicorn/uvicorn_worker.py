import os
bind = "0.0.0.0:80"
worker_class = "uvicorn.workers.UvicornWorker"
workers = int(os.getenv("MAX_WORKERS", "4"))
