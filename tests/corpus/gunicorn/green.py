from gevent import monkey

monkey.patch_all()

import multiprocessing

bind = ["0.0.0.0:8080"]
workers = multiprocessing.cpu_count()
worker_class = "gevent"
worker_connections = 1000
timeout = 90
keepalive = 75
spew = False
backlog = 2048

def post_fork(server, worker):
    from psycogreen.gevent import patch_psycopg
    patch_psycopg()
    worker.log.info("Made Psycopg2 Green")
