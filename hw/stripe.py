"""The magnetic stripe itself: characters with parity, the LRC, and what payment cards write on each track.

Characters and lengths: ISO/IEC 7811-2 and -6. Layouts: ISO/IEC 7813 (tracks 1 and 2), ISO/IEC 4909 (track 3).
A track's text is written with its sentinels in the names of this module that say `recorded`, and without
them everywhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from operator import xor

from hw.card import StripeCard
from hw.errors import BadSwipe, CardError
from hw.pan import check_expiry, check_pan

END_SENTINEL = "?"


@dataclass(frozen=True, slots=True)
class Track:
    """One of the three tracks.

    ``data_bits`` a character, over which an odd parity bit stands; ``base`` is the ASCII code of the character
    whose data bits are all zero; ``longest`` counts everything recorded: both sentinels and the LRC;
    ``data`` are the characters that may stand between the sentinels.
    """

    number: int
    start: str
    data_bits: int
    base: int
    longest: int
    data: frozenset[str]

    @property
    def mask(self) -> int:
        """The data bits of a character, all set."""
        return (1 << self.data_bits) - 1

    @property
    def longest_data(self) -> int:
        """Characters between the sentinels, at most."""
        return self.longest - 3


_DIGITS = frozenset("0123456789")
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_MARKS = frozenset(" $()-./#[\\]^" + "!\"&'*+,:<=>@_")
"""ISO/IEC 7811-2 keeps the second group for hardware control, yet issuers print names like O'BRIEN. The
sentinels of the other tracks are left out: they are how a torn frame is told from a whole one."""

TRACK_1 = Track(1, "%", 6, 0x20, 79, _DIGITS | _LETTERS | _MARKS)
TRACK_2 = Track(2, ";", 4, 0x30, 40, _DIGITS | {"="})
TRACK_3 = Track(3, ";", 4, 0x30, 107, _DIGITS | frozenset(":<=>"))


def lrc(track: Track, data: str) -> str:
    """The longitudinal redundancy check, as the character that a reader sends for it.

    Each data bit is the even parity of that bit in all characters from start to end sentinel; of a character that
    the track cannot hold, as a bent line may give it, only the data bits count.
    """
    recorded = track.start + data + END_SENTINEL
    parity = reduce(xor, (ord(character) - track.base for character in recorded))
    return chr(track.base + (parity & track.mask))


def record(track: Track, data: str) -> bytes:
    """A track as it is magnetised: a byte a character, parity above the data bits, sentinels and LRC included.

    Raises BadSwipe when the data does not go on that track.
    """
    check_data(track, data)
    recorded = track.start + data + END_SENTINEL + lrc(track, data)
    return bytes(_with_parity(ord(character) - track.base, track.data_bits) for character in recorded)


def play(track: Track, recorded: bytes) -> str:
    """The data of a track out of its magnetised characters; raises BadSwipe for parity, LRC or sentinels."""
    data, found = decode(track, recorded)
    check_lrc(track, data, found)
    check_data(track, data)
    return data


def decode(track: Track, recorded: bytes) -> tuple[str, str]:
    """The data and the LRC of a track, of which only parity and sentinels were checked; raises BadSwipe."""
    if any(_with_parity(byte & track.mask, track.data_bits) != byte for byte in recorded):
        raise BadSwipe(f"track {track.number} has a parity error")
    text = "".join(chr(track.base + (byte & track.mask)) for byte in recorded)
    if len(text) < 3 or text[0] != track.start or text[-2] != END_SENTINEL:
        raise BadSwipe(f"track {track.number} has lost a sentinel")
    return text[1:-2], text[-1]


def _with_parity(bits: int, width: int) -> int:
    """Odd parity: together with its parity bit each character has an odd number of ones."""
    return bits | (1 - bits.bit_count() % 2) << width


def check_lrc(track: Track, data: str, found: str) -> None:
    """Raise BadSwipe unless ``found`` is the LRC of this data."""
    if found != lrc(track, data):
        raise BadSwipe(f"track {track.number} fails its LRC")


def check_data(track: Track, data: str) -> None:
    """Raise BadSwipe for an empty track, one that is too long, or a character that the track cannot hold."""
    if not data:
        raise BadSwipe(f"track {track.number} is empty")
    if len(data) > track.longest_data:
        raise BadSwipe(f"track {track.number} is longer than {track.longest} characters")
    if not track.data.issuperset(data):
        raise BadSwipe(f"track {track.number} holds a character that it cannot")


_LAYOUT_1 = re.compile(
    r"B(?P<pan>[0-9]{1,19})\^(?P<name>[^^]{2,26})\^(?P<expiry>[0-9]{4})(?P<service_code>[0-9]{3})[^^]*"
)
_LAYOUT_2 = re.compile(r"(?P<pan>[0-9]{1,19})=(?P<expiry>[0-9]{4})(?P<service_code>[0-9]{3})[0-9]*")


def read_card(track1: str | None, track2: str | None, track3: str | None) -> StripeCard:
    """The card whose tracks these are; None for a track that is blank or unreadable.

    Track 2 is required, since the payment is made with it; track 1, where it was read, must tell of the same
    card. Track 3 is checked for its characters alone: with a PAN on track 2 its own is optional (ISO/IEC 4909),
    and some schemes write another number there. Raises BadSwipe.
    """
    if track2 is None:
        raise BadSwipe("track 2 could not be read")
    for track, data in ((TRACK_1, track1), (TRACK_2, track2), (TRACK_3, track3)):
        if data is not None:
            check_data(track, data)
    second = _laid_out(_LAYOUT_2, TRACK_2, track2)
    pan, expiry, service_code = second["pan"], second["expiry"], second["service_code"]
    first = None if track1 is None else _laid_out(_LAYOUT_1, TRACK_1, track1)
    if first is not None and (first["pan"], first["expiry"]) != (pan, expiry):
        raise BadSwipe("tracks 1 and 2 are not of the same card")
    name = None if first is None else first["name"].strip()
    return StripeCard(pan, expiry, service_code, track2, track1, track3, name)


def _laid_out(layout: re.Pattern[str], track: Track, data: str) -> dict[str, str]:
    found = layout.fullmatch(data)
    if found is None:
        raise BadSwipe(f"track {track.number} is not laid out as that of a payment card")
    fields = found.groupdict()
    try:
        check_pan(fields["pan"])
        check_expiry(fields["expiry"])
    except CardError as error:
        raise BadSwipe(f"track {track.number}: {error}") from None
    return fields
