"""Status codes of a close frame (RFC 6455 section 7.4, and the registry of IANA)."""

from typing import Final

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
"""The server stops, or the user has left the page."""
PROTOCOL_ERROR: Final = 1002
NO_STATUS: Final = 1005
"""The peer's close frame had no code; never sent."""
ABNORMAL: Final = 1006
"""The connection ended without a close frame; never sent."""
INVALID_DATA: Final = 1007
"""Text that is not UTF-8, or compressed data that cannot be inflated."""
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
"""The server is reloaded: a client may connect again at once."""
TRY_LATER: Final = 1013

REASON_MAX: Final = 123
"""Bytes of UTF-8 that a reason may have: a control frame carries 125, and the code takes two."""


def is_sendable(code: int) -> bool:
    """Whether an endpoint may put a code into a close frame.

    1000 to 1014 but for those that stand for the absence of a code, the ranges of libraries and
    frameworks (3000 to 3999), and those of applications (4000 to 4999).
    """
    if code < 3000:
        return 1000 <= code <= 1014 and code not in (1004, NO_STATUS, ABNORMAL)
    return code <= 4999
