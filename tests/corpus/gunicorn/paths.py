import os

base = os.path.dirname(os.path.abspath(__file__))
chdir = base
pythonpath = os.path.join(base, "src")
pidfile = os.path.join(base, "run", "gunicorn.pid")
errorlog = os.path.join(base, "logs", "error.log")
accesslog = base + "/logs/access.log"
bind = "unix://" + base + "/run/shop.sock"
