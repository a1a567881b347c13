"""The card's side of the block protocol (ISO/IEC 14443-4, section 7), for readers that send raw blocks.

Not modelled: waiting time extensions, NAD, bit rates other than 106 kbit/s, and the rules for a second card.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

FRAME_SIZES: Final = (16, 24, 32, 40, 48, 64, 96, 128, 256)
"""Bytes of a frame that the reader takes, by FSDI (table 1)."""
MAX_COMMAND: Final = 65_544
"""Bytes of the longest command that a chain of blocks may make."""

RATS: Final = 0xE0
ATTRIB: Final = 0x1D
REQB: Final = 0x05
_CHAINING: Final = 0x10
_CID: Final = 0x08


class BlockCard:
    """A card that is spoken to in blocks. ``transmit`` takes a command APDU and gives the response."""

    def __init__(self, transmit: Callable[[bytes], Awaitable[bytes]], ats: bytes, atqb: bytes = b"") -> None:
        self._transmit, self._ats, self._atqb = transmit, ats, atqb
        self._reset()

    def _reset(self) -> None:
        self._number = 1  # rule C
        self._frame_size = FRAME_SIZES[8]
        self._command = b""
        self._rest = b""
        self._last = b""

    async def answer(self, block: bytes) -> bytes:
        """What the card says to a block; empty: nothing, which is its word for what it does not understand."""
        if not block:
            return b""
        if block[0] == RATS and len(block) == 2 and self._ats:
            self._reset()
            self._frame_size = FRAME_SIZES[min(block[1] >> 4, 8)]
            return self._ats
        if block[0] == REQB and len(block) == 3 and self._atqb:
            self._reset()
            return self._atqb
        if block[0] == ATTRIB and len(block) >= 9 and block[1:5] == self._atqb[1:5]:
            self._reset()
            self._frame_size = FRAME_SIZES[min(block[6] & 0x0F, 8)]
            return bytes((block[8] & 0x0F,))
        kind = block[0] & 0xE2
        if kind == 0x02:
            return await self._information(block)
        if kind == 0xA2:
            return self._acknowledged(block)
        if kind == 0xC2 and block[0] & 0x30 == 0:  # S(DESELECT)
            self._reset()
            return block
        return b""

    async def _information(self, block: bytes) -> bytes:
        lead = 1 + bool(block[0] & _CID)
        self._number ^= 1  # rule D
        self._command = (self._command + block[lead:])[:MAX_COMMAND]
        if block[0] & _CHAINING:
            return self._say(bytes((0xA2 | block[0] & _CID | self._number,)) + block[1:lead])
        command, self._command = self._command, b""
        self._rest = await self._transmit(command)
        return self._next(block, lead)

    def _acknowledged(self, block: bytes) -> bytes:
        lead, number = 1 + bool(block[0] & _CID), block[0] & 1
        if number == self._number:
            return self._last  # rule 11
        if block[0] & 0x10:  # R(NAK)
            return bytes((0xA2 | block[0] & _CID | self._number,)) + block[1:lead]  # rule 12
        if not self._rest:
            return b""
        self._number ^= 1  # rule E
        return self._next(block, lead)

    def _next(self, block: bytes, lead: int) -> bytes:
        room = self._frame_size - lead - 2  # EDC
        piece, self._rest = self._rest[:room], self._rest[room:]
        chaining = _CHAINING if self._rest else 0
        return self._say(bytes((0x02 | chaining | block[0] & _CID | self._number,)) + block[1:lead] + piece)

    def _say(self, block: bytes) -> bytes:
        self._last = block
        return block
