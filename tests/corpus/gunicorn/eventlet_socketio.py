import eventlet
eventlet.monkey_patch()
bind = "127.0.0.1:5001"
worker_class = "eventlet"
workers = 1
wsgi_app = "chat:create_app()"
