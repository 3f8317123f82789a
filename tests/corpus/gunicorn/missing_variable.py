import os
bind = "0.0.0.0:" + os.environ["LISTEN_PORT"]
workers = 2
