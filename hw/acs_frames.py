"""ACS serial readers (ACR122S, ACR122L, ACR1281S): how they put CCID messages on the line.

    02 <message> XOR 03         XOR is over the message
    02 00 00 03                 the reader has accepted a command; its answer follows
    02 FF FF 03 (FE, FD, FC)    it has not: wrong check, wrong length, no 03, too slow
    02 00 x 11 03               to the reader: send the last answer again

Facts: ACS's manuals of the ACR122S, ACR122L and ACR1281S, sections on the serial protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import xor
from typing import ClassVar, Final

from construct import Checksum, Const, Construct, Int8ub, RawCopy, Struct, Terminated, this

from hw import ccid
from hw.envelope import Envelope, Signal

STX, ETX = b"\x02", b"\x03"


class AcsEnvelope(Envelope):
    """See the module."""

    LEAD = STX
    NAK = STX + bytes(11) + ETX
    SIGNALS: ClassVar[Mapping[bytes, Signal]] = {
        NAK: Signal.NAK,
        b"\x02\x00\x00\x03": Signal.ACCEPTED,
        **{bytes((0x02, code, code, 0x03)): Signal.NAK for code in (0xFF, 0xFE, 0xFD, 0xFC)},
    }
    FRAME: ClassVar[Construct] = Struct(
        "lead" / Const(STX),
        "body" / RawCopy(Struct("message" / ccid.MESSAGE)),
        "check" / Checksum(Int8ub, lambda data: reduce(xor, data), this.body.data),
        "end" / Const(ETX),
        Terminated,
    )

    def measure(self, head: bytes) -> int | None:
        """See Envelope."""
        if head[:1] != STX:
            return 0
        for signal in self.SIGNALS:
            if signal.startswith(head[: len(signal)]):
                return len(signal) if len(head) >= len(signal) else None
        size = ccid.measure(head[1:])
        return size + len(STX) + 1 + len(ETX) if size else size


ENVELOPE: Final = AcsEnvelope()
