import multiprocessing
workers = multiprocessing.cpu_count()
bind = "localhost:5000"
preload_app = True
