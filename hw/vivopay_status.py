"""What a ViVOpay reader's status and error codes mean (NEO 2 Interface Developer's Guide, sections 1.6 and 1.7).

Readers send codes that no table holds: they are kept as numbers, and told as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OK: Final = 0x00
BAD_CRC: Final = 0x04
TIMEOUT: Final = 0x08
FAILED: Final = 0x0A
NOT_GIVEN: Final = 0x06
"""In pass-through: a reader that encrypts keeps the card's number to itself (section 8.15)."""
USER_INTERFACE: Final = 0x0E
BAD_APDU: Final = 0x1C
ONLINE: Final = 0x23
"""As a status, and as the first byte of FFEE1F."""
RAW_DATA: Final = 0x24
ACCEPTED: Final = 0x63
"""The command was understood, and another answer follows."""

STATUSES: Final[Mapping[int, str]] = {
    OK: "OK",
    0x01: "wrong header",
    0x02: "unknown command",
    0x03: "unknown sub-command",
    BAD_CRC: "wrong CRC",
    0x05: "wrong parameter",
    NOT_GIVEN: "parameter not supported",
    0x07: "malformed data",
    TIMEOUT: "timeout",
    FAILED: "failed",
    0x0B: "command not allowed",
    0x0C: "sub-command not allowed",
    0x0D: "buffer overflow",
    USER_INTERFACE: "user interface event",
    0x11: "not for this kind of line",
    **dict.fromkeys(range(0x12, 0x1B), "security module"),
    BAD_APDU: "the APDU makes no sense",
    0x1D: "tampered with",
    ONLINE: "wants to go online",
    RAW_DATA: "read, as raw data",
    ACCEPTED: "accepted, more follows",
}

READ: Final = frozenset((OK, ONLINE, RAW_DATA))
"""Statuses of a card that was read."""
NOT_SUPPORTED: Final = frozenset((0x02, 0x03, NOT_GIVEN, 0x0B, 0x0C, 0x11))
"""Statuses of a reader that cannot do what it was asked, or not now."""


def status_text(status: int) -> str:
    """As errors and traces call it: ``timeout (08h)``."""
    return f"{STATUSES.get(status, 'status')} ({status:02X}h)"


ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    0x20: ("the card does not hold to the protocol", "Try again, or use another card."),
    0x21: ("there is more than one card in the field", "Present one card only."),
    0x22: ("the amount is more than may be paid contactless", "Insert or swipe the card."),
    ONLINE: ("the card wants to go online", "Try again, or insert the card."),
    0x24: ("the card was taken away too soon", "Present the card again, and leave it until it is done."),
    0x25: ("the card is blocked", "Use another card."),
    0x26: ("the card has expired", "Use another card."),
    0x27: ("the reader does not take this kind of card", "Use another card."),
    0x30: ("the card did not answer", "Present the card again, and leave it until it is done."),
    0x62: ("the reader could not read the card", "Try again, or use another card."),
    0x73: ("the card was torn away, and the reader remembers it", "Present the same card again."),
}
"""Error code (first byte of FFEE1F) -> what happened, and what to do."""


def error_text(code: int) -> tuple[str, str]:
    """What happened and what to do, for any code."""
    return ERRORS.get(
        code, (f"the reader gave up on the card (error {code:02X}h)", "Try again, or use another card.")
    )
