"""ACS serial readers (ACR1281S, and the slots of ACR122S and ACR122L that take APDUs): the driver.

    acs:///dev/ttyUSB0?slot=icc          the contact slot (bSlot 1)
    acs:///dev/ttyUSB0?slot=picc         the contactless interface (bSlot 0)

The reader does T=0, T=1 and ISO/IEC 14443-4 by itself. Not driven here: the PN532 of an ACR122S, which takes its
own commands inside APDUs (FF 00 00 00 Lc D4 ...). Such an APDU goes through; what to do with it is the caller's.
Nobody else's program speaks to these readers' emulator: what proves the frames are the examples in ACS's manuals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from hw.acs_frames import ENVELOPE
from hw.card import EntryMode
from hw.ccid import Kind
from hw.ccid_channel import Channel
from hw.ccid_reader import CcidReader, Level
from hw.reader import Capabilities

SLOTS: Final = {"icc": 1, "picc": 0}
"""bSlot (ACR1281S manual, section 8.1)."""


class AcsReader(CcidReader):
    """``acs://``."""

    ENVELOPE = ENVELOPE
    LEVEL: ClassVar[Level] = "apdu"
    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"slot": tuple(SLOTS)}

    @property
    def slot(self) -> int:
        """bSlot."""
        return SLOTS[self.options["slot"]]

    @property
    def entry_mode(self) -> Literal[EntryMode.CHIP, EntryMode.CONTACTLESS]:
        """How cards come in the slot that was named."""
        return EntryMode.CHIP if self.options["slot"] == "icc" else EntryMode.CONTACTLESS

    @property
    def capabilities(self) -> Capabilities:
        """Of the slot that was named."""
        icc = self.options["slot"] == "icc"
        return Capabilities(contact=icc, contactless=not icc)

    async def _wake(self, channel: Channel) -> None:
        await channel.ask(Kind.GET_SLOT_STATUS)
