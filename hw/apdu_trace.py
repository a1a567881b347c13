"""What a trace says of a card's commands and answers, whichever reader carries them.

    SELECT 00 A4 04 00, 14 bytes
    SW 9000, 30 bytes

A command's header and an answer's status words, and of the data how much there is. Whoever asks for words gives
what is masked already, so that none says more than the frame beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hw.apdu import Command
from hw.errors import ProtocolError

INSTRUCTIONS: Final[Mapping[int, str]] = {
    0x16: "CARD BLOCK",
    0x18: "APPLICATION UNBLOCK",
    0x1E: "APPLICATION BLOCK",
    0x20: "VERIFY",
    0x24: "PIN CHANGE",
    0x82: "EXTERNAL AUTHENTICATE",
    0x84: "GET CHALLENGE",
    0x88: "INTERNAL AUTHENTICATE",
    0xA4: "SELECT",
    0xA8: "GET PROCESSING OPTIONS",
    0xAE: "GENERATE AC",
    0xB0: "READ BINARY",
    0xB2: "READ RECORD",
    0xC0: "GET RESPONSE",
    0xCA: "GET DATA",
    0xD6: "UPDATE BINARY",
    0xDA: "PUT DATA",
    0xDC: "UPDATE RECORD",
}
"""INS -> its name (EMV 4.3 Book 3, table 4; ISO/IEC 7816-4, table 4)."""

_HEADER: Final = 4
_MORE: Final = ", more to come"
_STATUS_BYTES: Final = frozenset((*range(0x61, 0x70), *range(0x90, 0xA0)))
"""What SW1 may be (ISO/IEC 7816-3, section 10.3.3): else it is a piece, or no answer of this kind."""


def command_words(apdu: bytes, *, more: bool = False) -> str:
    """What a command says, or the first piece of one of which ``more`` follows."""
    if more and len(apdu) >= _HEADER:
        size = max(0, len(apdu) - _HEADER - 1)
    else:
        try:
            size = len(Command.decode(apdu).data)
        except ProtocolError:
            return piece_words(len(apdu), more=more)
    header = f"{INSTRUCTIONS.get(apdu[1], '')} {apdu[:_HEADER].hex(' ').upper()}".lstrip()
    return header + (f", {counted(size)}" if size else "") + _MORE * more


def response_words(apdu: bytes) -> str:
    """What an answer says, or the last piece of one, which has its status words."""
    if len(apdu) < 2 or apdu[-2] not in _STATUS_BYTES:
        return counted(len(apdu))
    said = f"SW {apdu[-2:].hex().upper()}"
    return f"{said}, {counted(len(apdu) - 2)}" if len(apdu) > 2 else said


def piece_words(size: int, *, more: bool) -> str:
    """What is said of a piece in which nobody can say what stands where."""
    return counted(size) + _MORE * more


def counted(size: int) -> str:
    """So many bytes."""
    return f"{size} byte{'' if size == 1 else 's'}"
