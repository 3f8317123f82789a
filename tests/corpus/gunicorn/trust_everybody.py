bind = "0.0.0.0:8000"
forwarded_allow_ips = "*"
proxy_allow_ips = "*"
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}
worker_tmp_dir = "/dev/shm"
logger_class = "shop.logging.GunicornLogger"
