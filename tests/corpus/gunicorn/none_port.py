import os
port = os.getenv("APP_PORT")
bind = f"0.0.0.0:{port}"
