forwarded_allow_ips = "nginx, 127.0.0.1"
