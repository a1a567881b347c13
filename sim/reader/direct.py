"""A reader without a line, named by its card: for a first try, and wherever the line is not what matters.

    sim://visa-credit                  tapped; a card of `sim.card`
    sim://mastercard-credit?entry=insert
    sim://amex?entry=swipe             the stripe on its back
    sim:///home/me/my-card.toml

Every wait is given the card at once, or a second after it was last presented. Not modelled: anything between the
card and the driver, and a card that is taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from hw.card import Card, ChipCard, EntryMode, StripeCard
from hw.errors import BadAddress, CardGone
from hw.line import Link
from hw.reader import Address, Capabilities, CardInserted, Reader
from hw.stripe import TRACK_1, TRACK_2, play, read_card
from sim.card import CardFile, CardFileError, VirtualCard, card_file, inserted, stripe_of, tapped

AGAIN: Final = 1.0
"""Seconds from one presentation to the next: a card that is refused is not presented a thousand times."""

_CAPABILITIES: Final[Mapping[str, Capabilities]] = {
    "tap": Capabilities(contactless=True),
    "insert": Capabilities(contact=True),
    "swipe": Capabilities(stripe=True),
}
_FORMS: Final[Mapping[str, Callable[[CardFile], object]]] = {
    "tap": tapped,
    "insert": inserted,
    "swipe": stripe_of,
}


class DirectReader(Reader):
    """``sim://``: see the module. Card data come in the clear: a live host is guarded from it."""

    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"entry": tuple(_CAPABILITIES)}

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        unknown = set(address.options) - set(self.OPTIONS)
        if unknown:
            raise BadAddress(f"{self.url}: there is no option {min(unknown)!r}; entry is tap, insert or swipe")
        try:
            self._file = card_file(address.line)
            _FORMS[self.options["entry"]](self._file)
        except CardFileError as error:
            raise BadAddress(f"{self.url}: {error}", advice="`sim://visa-credit` is one.") from None
        self._is_open = False
        self._card: DirectCard | None = None
        self._presented: float | None = None

    @property
    def capabilities(self) -> Capabilities:
        """By the way in which the card comes."""
        return _CAPABILITIES[self.options["entry"]]

    async def open(self) -> None:
        """Nothing but to be counted: there is no line."""
        if not self._is_open:
            self._is_open = True
            self._opened()

    async def close(self) -> None:
        """The card that was handed over is let go of."""
        self._is_open = False
        self._forget()

    def _forget(self) -> None:
        if self._card is not None:
            self._card.over = True
            self._card = None

    async def _one_card(self) -> Card:
        await self.open()
        self._forget()
        now = asyncio.get_running_loop().time()
        if self._presented is not None:
            await asyncio.sleep(self._presented + AGAIN - now)
        self._presented = asyncio.get_running_loop().time()
        self.on_event(CardInserted(url=self.url))
        if self.options["entry"] == "swipe":
            return self._swiped()
        touched = self.options["entry"] == "tap"
        self._card = DirectCard(self.url, (tapped if touched else inserted)(self._file), contactless=touched)
        return self._card

    def _swiped(self) -> StripeCard:
        tracks = stripe_of(self._file).tracks
        return read_card(play(TRACK_1, tracks[1]), play(TRACK_2, tracks[2]), None)

    async def _next_card(self, link: Link) -> Card:
        del link
        return await self._one_card()


class DirectCard(ChipCard):
    """A virtual card with nothing in between. ``over``: it was let go of."""

    def __init__(self, url: str, card: VirtualCard, *, contactless: bool) -> None:
        if contactless:
            super().__init__(EntryMode.CONTACTLESS, card.ats, card.uid)
        else:
            super().__init__(EntryMode.CHIP, card.atr)
        self._url, self._virtual, self.over = url, card, False

    async def _exchange(self, command: bytes) -> bytes:
        await asyncio.sleep(0)
        if self.over:
            raise CardGone(f"{self._url}: the card was let go of")
        return self._virtual.transmit(command)

    async def release(self) -> None:
        """See ChipCard."""
        self.over = True
