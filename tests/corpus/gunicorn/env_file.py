import os
from dotenv import load_dotenv

load_dotenv()
bind = os.getenv("GUNICORN_BIND", "127.0.0.1:8000")
workers = int(os.getenv("GUNICORN_WORKERS", 2))
raw_env = [f"SECRET_KEY={os.environ.get('SECRET_KEY', '')}", "DATABASE_URL=postgres://shop:s3cret@db/shop", "TZ=UTC"]
