import os
workers = 4
os._exit(7)
