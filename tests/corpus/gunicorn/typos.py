bind = "127.0.0.1:8005"
worker = 4
access_log = "/var/log/shop/access.log"
time_out = 60
helper = 2
workers = helper
