"""The packets of a server's port, with explanations.

`packet`, `conversations`, `render` and `filter` are pure.  `dissect` and `pcap_files` use scapy for
the formats.  `capture` receives packets from the kernel.  `observe` makes a request during a
capture.
"""
