"""T=0: one command, byte by byte, between a terminal and a contact card (ISO/IEC 7816-3, section 10).

A reader that is given whole commands (TPDU level) needs `to_tpdu` alone. One that speaks to the card itself runs
`characters`, the terminal's half as a pure generator: it yields bytes to send, and is sent each byte that comes.
What follows 61xx and 6Cxx is the same for every protocol: `hw.apdu.follow_up`.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from hw.apdu import Command
from hw.errors import CardError, NotSupported

HEADER: Final = 5
"""CLA, INS, P1, P2, P3."""
NULL: Final = 0x60
"""The procedure byte with which the card asks for more time."""
MAX_NULLS: Final = 600
"""At a second each (the work waiting time), more than any card of ours needs."""

_ADVICE: Final = "Insert the card again; wipe its contacts. If it stays, use another card."


def to_tpdu(command: bytes) -> bytes:
    """A command APDU as T=0 sends it: with P3 always, and without Le where there is data (section 12.2).

    Raises NotSupported for an extended length, and ProtocolError for what is no command.
    """
    parsed = Command.decode(command)
    if parsed.extended or (len(command) > HEADER and command[4] == 0):
        raise NotSupported("a command of extended length does not go over T=0")
    if len(command) < HEADER:
        return command + b"\0"
    return command[: HEADER + len(parsed.data)]


def characters(tpdu: bytes) -> Generator[bytes | None, int, bytes]:
    """Send a TPDU to a card and return its answer: data, SW1, SW2.

    Yields the bytes to send before the next byte comes: none where only to listen, None where only to listen for
    longer, as the card asked for time. Raises CardError for a procedure byte that there is not.
    """
    ins, wanted = tpdu[1], tpdu[4] or 256
    data = tpdu[HEADER : HEADER + tpdu[4]]  # some programs leave Le behind it
    brings_data, answer, nulls = bool(data), bytearray(), 0
    byte = yield tpdu[:HEADER]
    while True:
        if byte == NULL:
            nulls += 1
            if nulls > MAX_NULLS:
                raise CardError("the card always wants more time", advice=_ADVICE)
            byte = yield None
        elif byte & 0xF0 in (0x60, 0x90):
            second = yield b""
            return bytes((*answer, byte, second))
        elif byte in (ins, ins ^ 0xFF):
            size = 1 if byte != ins else 256
            if brings_data:
                if not data:
                    raise CardError("the card asks for more data than the command has", advice=_ADVICE)
                sending, data = data[:size], data[size:]
                byte = yield sending
            else:
                if len(answer) == wanted:
                    raise CardError("the card sends more than it was asked for", advice=_ADVICE)
                for _ in range(min(size, wanted - len(answer))):
                    answer.append((yield b""))
                byte = yield b""
        else:
            raise CardError(f"the card sends the procedure byte {byte:02X}h", advice=_ADVICE)
