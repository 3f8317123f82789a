"""The basic application under wsgiref.validate: a server that breaks PEP 3333 gets a 500.

The validator wants a Content-Type with each answer but 204 and 304, and read() with a size; what
breaks its rules on purpose (/badlength, /exit) is not for this one.
"""

from wsgiref.validate import validator

from tests.apps import basic

app = validator(basic.app)
