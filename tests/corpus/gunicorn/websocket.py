worker_class = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
bind = ":5002"
workers = 1
