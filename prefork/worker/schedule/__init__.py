"""Waiting and scheduling: accept4(), the epoll, threads, and handover between workers."""
