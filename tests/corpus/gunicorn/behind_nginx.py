"""gunicorn behind nginx on a Unix socket."""
bind = "unix:run/gunicorn.sock"
workers = 3
umask = 0o007
user = None
accesslog = "-"
errorlog = "-"
loglevel = "info"
proc_name = "shop"
wsgi_app = "shop.wsgi:application"
