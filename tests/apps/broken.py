"""Can't be imported: the message has to reach whoever started or reloaded the server."""

raise RuntimeError("this application is broken on purpose")
