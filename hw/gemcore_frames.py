"""GemPC and GemCore serial readers: how they put CCID messages on the line.

    03 06 <message> LRC     LRC is the XOR of all before it
    03 15 16                not understood: send that again
    50 02, 50 03            the card was removed, inserted; whenever it happens
    80 .. FF alone          the card needs longer

Some (GemPC Twin) echo each command before they answer it. Facts: the CCID driver of the MUSCLE project,
``ccid_serial.c``; USB CCID 1.1 for the messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import xor
from typing import ClassVar, Final

from construct import Checksum, Const, Construct, Int8ub, RawCopy, Struct, Terminated, this

from hw import ccid
from hw.envelope import Envelope, Signal

SYNC: Final = 0x03
NOTICE: Final = 0x50
WAIT_FROM: Final = 0x80
"""From here on a lone byte is a request for time."""


class GemcoreEnvelope(Envelope):
    """See the module."""

    LEAD = b"\x03\x06"
    NAK = b"\x03\x15\x16"
    SIGNALS: ClassVar[Mapping[bytes, Signal]] = {
        NAK: Signal.NAK,
        b"\x50\x02": Signal.REMOVED,
        b"\x50\x03": Signal.INSERTED,
        **{bytes((code,)): Signal.WAIT for code in range(WAIT_FROM, 0x100)},
    }
    FRAME: ClassVar[Construct] = Struct(
        "body" / RawCopy(Struct("lead" / Const(LEAD), "message" / ccid.MESSAGE)),
        "lrc" / Checksum(Int8ub, lambda data: reduce(xor, data), this.body.data),
        Terminated,
    )

    def measure(self, head: bytes) -> int | None:
        """See Envelope."""
        if head[0] >= WAIT_FROM:
            return 1
        if head[0] not in (SYNC, NOTICE):
            return 0
        if len(head) == 1:
            return None
        if head[:2] == self.LEAD:
            size = ccid.measure(head[2:])
            return size + len(self.LEAD) + 1 if size else size
        for signal in self.SIGNALS:
            if signal.startswith(head[: len(signal)]):
                return len(signal) if len(head) >= len(signal) else None
        return 0


ENVELOPE: Final = GemcoreEnvelope()
