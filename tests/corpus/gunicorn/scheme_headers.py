bind = "127.0.0.1:8003"
forwarded_allow_ips = "10.0.0.0/8,127.0.0.1"
secure_scheme_headers = {"X-FORWARDED-SSL": "on", "X-SCHEME": "https"}
