"""The packets of a server's port as a conversation.

`packet`, `conversation`, `explain`, `render` and `filter` are pure; `dissect` and `files` leave
the formats to scapy; `capture` asks the kernel, and `observe` makes a request under its eyes.
"""
