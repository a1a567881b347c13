"""Chip cards that are not there: `files` say what is on one, `virtual` answers for it.

card = tapped("visa-credit")
card.transmit(bytes.fromhex("00A404000E325041592E5359532E444446303100"))
"""

from __future__ import annotations

from sim.card.files import CardFile, CardFileError, card_file, names, stripe_of
from sim.card.virtual import VirtualCard, inserted, tapped

__all__ = [
    "CardFile",
    "CardFileError",
    "VirtualCard",
    "card_file",
    "inserted",
    "names",
    "stripe_of",
    "tapped",
]
