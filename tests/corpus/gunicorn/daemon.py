daemon = True
bind = "127.0.0.1:8004"
pidfile = "/tmp/shop.pid"
accesslog = "-"
errorlog = "-"
capture_output = True
