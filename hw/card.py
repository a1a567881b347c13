"""What a reader hands over: a card, as one of a few values. None shows more than a masked PAN."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, Literal

from hw.apdu import MAX_CHAIN, Command, Response, follow_up
from hw.errors import CardError
from hw.pan import check_expiry, check_pan, mask_pan
from hw.track2 import Track2

LONGEST: Final = 90.0
"""Seconds for a command and all that belongs to its answer, whatever time the card asks for."""


class EntryMode(StrEnum):
    """How the card's data came in."""

    SWIPE = "swipe"
    MANUAL = "manual"
    CHIP = "chip"
    CONTACTLESS = "contactless"


@dataclass(frozen=True, repr=False, slots=True)
class StripeCard:
    """A payment card read from its magnetic stripe: track 2 whole, the others where they were readable.

    The tracks are what stands between their sentinels. ``expiry`` is YYMM, ``service_code`` three digits,
    ``name`` as embossed (SURNAME/FIRST NAME) or None without track 1.
    """

    pan: str
    expiry: str
    service_code: str
    track2: str
    track1: str | None = None
    track3: str | None = None
    name: str | None = None

    entry_mode: ClassVar[EntryMode] = EntryMode.SWIPE

    @property
    def masked_pan(self) -> str:
        """First six and last four digits."""
        return mask_pan(self.pan)

    def track2_equivalent(self) -> bytes:
        """Track 2 as EMV tag 57 holds it: a digit a nibble, D for the separator, F as padding (EMV Book 3 A)."""
        nibbles = self.track2.replace("=", "D")
        return bytes.fromhex(nibbles if len(nibbles) % 2 == 0 else nibbles + "F")

    def __repr__(self) -> str:
        return f"StripeCard({self.masked_pan})"


@dataclass(frozen=True, repr=False, slots=True)
class ManualCard:
    """A card whose number and expiry date (YYMM) were typed. Raises CardError when they cannot be one's."""

    pan: str
    expiry: str

    entry_mode: ClassVar[EntryMode] = EntryMode.MANUAL

    def __post_init__(self) -> None:
        check_pan(self.pan)
        check_expiry(self.expiry)

    @property
    def masked_pan(self) -> str:
        """First six and last four digits."""
        return mask_pan(self.pan)

    def __repr__(self) -> str:
        return f"ManualCard({self.masked_pan})"


class ChipCard(ABC):
    """A chip card that the reader powers, by contact or by its field: it is asked, and answers.

    ``answer`` is its ATR (ISO/IEC 7816-3) or its ATS (ISO/IEC 14443-4), ``uid`` its anticollision number, empty for
    a contact card. What is asked, and what the answers mean, is not the reader's to know.
    """

    def __init__(self, entry_mode: Literal[EntryMode.CHIP, EntryMode.CONTACTLESS], answer: bytes, uid: bytes = b""):
        self.entry_mode, self.answer, self.uid = entry_mode, answer, uid
        self._turn = asyncio.Lock()

    async def transmit(self, command: Command) -> Response:
        """Send a command and give the whole answer: what a card says in pieces (61xx, 6Cxx) is put together.

        One command at a time: a second one waits for the first. Raises CardGone when the card is not there any
        more, CardError for an answer that is none or takes longer than `LONGEST`, LineGone when the reader is not
        there, and NoAnswer when it says nothing.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(LONGEST) as deadline:
                    return await self._whole(command)
            except TimeoutError:
                if not deadline.expired():  # the driver's own
                    raise
                raise CardError(f"the card is not done within {LONGEST:g} s") from None

    async def _whole(self, command: Command) -> Response:
        data = b""
        for _ in range(MAX_CHAIN):
            response = Response.decode(await self._exchange(command.encode()))
            data += response.data
            following = follow_up(command, response)
            if following is None:
                return Response(data, response.sw)
            command = following
        raise CardError("the card always has more to say, and never says it")

    @abstractmethod
    async def _exchange(self, command: bytes) -> bytes:
        """One command to the card and its answer with the status words; raises as ``transmit`` does."""

    @abstractmethod
    async def release(self) -> None:
        """Let go of the card: power off, or field off. Nothing happens where it is gone already."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.entry_mode.value})"


@dataclass(frozen=True, repr=False, slots=True, kw_only=True)
class ResultCard:
    """A card that the reader's own kernel has read to the end, in the clear.

    ``track2`` is its track 2 equivalent data (EMV tag 57) as the reader gives it; ``tags`` are the other EMV
    objects, in BER-TLV and without track data. Raises CardError where that is no track 2 of a payment card.
    """

    track2: bytes
    entry_mode: EntryMode
    tags: bytes = field(default=b"")

    def __post_init__(self) -> None:
        Track2.decode(self.track2)

    @property
    def pan(self) -> str:
        """The card number."""
        return Track2.decode(self.track2).pan

    @property
    def expiry(self) -> str:
        """YYMM."""
        return Track2.decode(self.track2).expiry

    @property
    def masked_pan(self) -> str:
        """First six and last four digits."""
        return mask_pan(self.pan)

    def track2_equivalent(self) -> bytes:
        """Track 2 as EMV tag 57 holds it, as of `StripeCard`."""
        return Track2.decode(self.track2).encode()

    def __repr__(self) -> str:
        return f"ResultCard({self.masked_pan})"


@dataclass(frozen=True, repr=False, slots=True, kw_only=True)
class SealedCard:
    """A card whose data a reader has encrypted by itself (DUKPT, ANSI X9.24): nobody here can open it.

    ``data`` is the ciphertext and ``ksn`` its key serial number, as they came. ``tags`` are EMV objects in the
    clear, in BER-TLV and without track data.
    """

    scheme: Literal["dukpt-aes", "dukpt-tdes"]
    ksn: bytes
    data: bytes
    masked_pan: str
    entry_mode: EntryMode
    expiry: str = ""
    tags: bytes = field(default=b"")

    def __repr__(self) -> str:
        return f"SealedCard({self.masked_pan})"


Card = StripeCard | ManualCard | ChipCard | ResultCard | SealedCard
"""Any card that a reader, or a person at the keys, may hand over."""
