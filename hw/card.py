"""What a reader hands over: a card, as one of a few frozen values. None shows more than a masked PAN."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from hw.pan import check_expiry, check_pan, mask_pan


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


Card = StripeCard | ManualCard
"""Any card that a reader, or a person at the keys, may hand over."""
