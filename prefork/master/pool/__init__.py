"""The pool: pure state that decides which workers to fork, retire and kill."""
