"""Stripe cards to swipe: what is recorded on each, by a name that says what the card is for.

The numbers are published test PANs; no such account exists. Not modelled: flux, speed and direction of the
swipe. A stripe is its characters with their parity bits, and damage is a bit that flipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hw.pan import mask_pan
from hw.stripe import TRACK_1, TRACK_2, TRACK_3, Track, record


@dataclass(frozen=True, repr=False, slots=True)
class Stripe:
    """A card's tracks by number, a byte a character as `hw.stripe.record` writes them; blank ones left out."""

    name: str
    pan: str
    tracks: Mapping[int, bytes]

    @property
    def masked_pan(self) -> str:
        """First six and last four digits."""
        return mask_pan(self.pan)

    def __repr__(self) -> str:
        return f"Stripe({self.name}, {self.masked_pan})"

    def scratched(self, *tracks: Track) -> Stripe:
        """The card with a bit flipped inside each of these tracks, so that its parity is wrong."""
        return self._flip(tracks, 10, 0b1)

    def with_wrong_lrc(self, *tracks: Track) -> Stripe:
        """The card with two bits flipped in the LRC of each of these: the parity holds, the LRC does not."""
        return self._flip(tracks, -1, 0b11)

    def _flip(self, tracks: Iterable[Track], place: int, bits: int) -> Stripe:
        damaged = {number: bytearray(recorded) for number, recorded in self.tracks.items()}
        for track in tracks:
            damaged[track.number][place] ^= bits
        return Stripe(self.name, self.pan, {number: bytes(recorded) for number, recorded in damaged.items()})


def stripe(name: str, pan: str, expiry: str, service_code: str, holder: str, track3: str = "") -> Stripe:
    """A card laid out by ISO/IEC 7813, with discretionary data as far as track 2 has room."""
    discretionary = "1000001230000"
    tracks = {
        1: record(TRACK_1, f"B{pan}^{holder}^{expiry}{service_code}{discretionary}"),
        2: record(TRACK_2, f"{pan}={expiry}{service_code}{discretionary}"[: TRACK_2.longest_data]),
    }
    if track3:
        tracks[3] = record(TRACK_3, track3)
    return Stripe(name, pan, tracks)


CARDS: Final[Mapping[str, Stripe]] = {
    card.name: card
    for card in (
        #      name                 PAN                    YYMM    service holder
        stripe("visa", "4761739001010119", "2812", "201", "TEST CARD/VISA"),
        stripe("visa-no-chip", "4111111111111111", "2812", "101", "TEST CARD/VISA"),
        stripe("mastercard", "5413330089600010", "2812", "201", "TEST CARD/MASTERCARD"),
        stripe("mastercard-no-chip", "5555555555554444", "2812", "101", "TEST CARD/MASTERCARD"),
        stripe("amex", "378282246310005", "2812", "201", "TEST CARD/AMEX"),
        stripe("discover", "6011111111111117", "2812", "201", "TEST CARD/DISCOVER"),
        stripe("maestro", "6304939304310009610", "2812", "221", "TEST CARD/MAESTRO", "016304939304310009610=="),
    )
}
"""By name; maestro has 19 digits and a track 3. Service code 2xx: there is a chip, and a real host
may refuse the stripe; 1xx: there is none."""
