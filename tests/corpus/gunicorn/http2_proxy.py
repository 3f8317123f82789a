bind = "127.0.0.1:8007"
http_protocols = "h1,h2"
proxy_protocol = True
reuse_port = True
protocol = "http"
limit_request_field_size = 16384
limit_request_line = 0
