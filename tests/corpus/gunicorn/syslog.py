syslog = True
syslog_addr = "udp://logs.internal:514"
syslog_prefix = "shop"
statsd_host = "localhost:8125"
statsd_prefix = "shop"
