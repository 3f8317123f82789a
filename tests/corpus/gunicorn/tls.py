bind = "0.0.0.0:8443"
certfile = "/etc/ssl/certs/shop.pem"
keyfile = "/etc/ssl/private/shop.key"
ciphers = "ECDHE+AESGCM"
ssl_version = 5
cert_reqs = 2
