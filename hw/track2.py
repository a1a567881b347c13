"""Track 2 equivalent data: what chips and readers' kernels give in place of a stripe (EMV 4.3 Book 3, tag 57)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hw.errors import CardError
from hw.pan import check_expiry, check_pan, mask_pan

MAX_BYTES: Final = 19
_LAYOUT: Final = re.compile(r"(?P<pan>[0-9]{1,19})d(?P<expiry>[0-9]{4})(?P<rest>[0-9]*)f*")
_OTHER: Final = "Use another card."


@dataclass(frozen=True, repr=False, slots=True)
class Track2:
    """A PAN, its expiry (YYMM), and what follows: three digits of service code, then discretionary data.

    Raises CardError where that cannot be a payment card's.
    """

    pan: str
    expiry: str
    rest: str = ""

    def __post_init__(self) -> None:
        try:
            check_pan(self.pan)
            check_expiry(self.expiry)
        except CardError as error:
            raise CardError(f"track 2 equivalent data: {error}", advice=_OTHER) from None
        if not (self.rest.isascii() and (self.rest.isdigit() or not self.rest)) or len(self.encode()) > MAX_BYTES:
            raise CardError("track 2 equivalent data: it is longer than a track, or no digits", advice=_OTHER)

    @classmethod
    def decode(cls, data: bytes) -> Track2:
        """Out of a digit a nibble, D for the separator and F as padding; raises CardError."""
        found = _LAYOUT.fullmatch(data[: 2 * MAX_BYTES].hex())
        if found is None:
            raise CardError("track 2 equivalent data: they are not laid out as those of a card", advice=_OTHER)
        return cls(found["pan"], found["expiry"], found["rest"])

    def encode(self) -> bytes:
        """As tag 57 holds it: with a nibble of padding where the digits are odd, and never more."""
        nibbles = f"{self.pan}D{self.expiry}{self.rest}"
        return bytes.fromhex(nibbles if len(nibbles) % 2 == 0 else nibbles + "F")

    @property
    def masked_pan(self) -> str:
        """First six and last four digits."""
        return mask_pan(self.pan)

    def __repr__(self) -> str:
        return f"Track2({self.masked_pan})"
