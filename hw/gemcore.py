"""GemPC and GemCore serial readers (GemPC Twin, GemCore POS Pro, GemCore SIM Pro): the driver.

    gemcore:///dev/ttyUSB0?protocol=t1&echo=auto

The frames are in `hw.gemcore_frames`, the messages in `hw.ccid`. GemCore SIM Pro 2 starts at ``baud=9600``. These
readers give card data in the clear: they are for the lab and for test cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from hw.ccid import Kind
from hw.ccid_channel import Channel
from hw.ccid_reader import CcidReader
from hw.gemcore_frames import ENVELOPE
from hw.reader import Address, Capabilities

FIRMWARE: Final = b"\x02"
"""Escape: which firmware is in the reader."""
NOTICES_WITH_ANSWERS: Final = b"\x01\x01\x01"
"""Escape: tell of cards after a command and before its answer, so that no notice falls into a frame."""


class GemcoreReader(CcidReader):
    """``gemcore://``. ``firmware`` is what the reader says it runs, once it is open."""

    ENVELOPE = ENVELOPE
    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "protocol": ("auto", "t0", "t1"),
        "echo": ("auto", "yes", "no"),
    }
    LINE: ClassVar[Mapping[str, str]] = {"baud": "115200", "stop": "2"}

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.firmware = ""

    @property
    def capabilities(self) -> Capabilities:
        """Contact cards."""
        return Capabilities(contact=True)

    async def _wake(self, channel: Channel) -> None:
        answer = (await channel.ask(Kind.ESCAPE, FIRMWARE)).check(self.url)
        self.firmware = "".join(chr(code) for code in answer.data if 0x20 <= code < 0x7F)
        (await channel.ask(Kind.ESCAPE, NOTICES_WITH_ANSWERS)).check(self.url)
        await channel.ask(Kind.GET_SLOT_STATUS)
