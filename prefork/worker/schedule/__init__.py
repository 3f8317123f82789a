"""Waiting: accept4(), the epoll, threads, and hand-over between workers."""
