bind = "127.0.0.1:8006"
raw_env = ["SCRIPT_NAME=/shop"]
forwarder_headers = "SCRIPT_NAME,PATH_INFO,REMOTE_USER"
header_map = "dangerous"
