threads = 300
workers = "4"
loglevel = "warn"
accesslog = ""
raw_env = "DJANGO_SETTINGS_MODULE=shop.settings"
timeout = "45"
preload_app = "true"
