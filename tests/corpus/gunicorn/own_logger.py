import logging
from gunicorn import glogging

class CustomLogger(glogging.Logger):
    def setup(self, cfg):
        super().setup(cfg)
        logging.getLogger("gunicorn.access").addFilter(lambda record: "/health" not in record.getMessage())

logger_class = CustomLogger
logconfig_dict = {"version": 1, "handlers": {"console": {"class": "logging.StreamHandler"}}}
wsgi_app = "shop.wsgi"
