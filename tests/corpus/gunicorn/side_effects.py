import os
print("starting up")
os.makedirs(os.path.join(os.getcwd(), "var", "log"), exist_ok=True)
errorlog = "var/log/error.log"
accesslog = "var/log/access.log"
