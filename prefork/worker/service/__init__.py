"""Requests to what answers them: the HTTP service and the TCP service of one worker."""
