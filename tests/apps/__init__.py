"""Small applications that the system tests serve.  Each module says what it is good for."""
