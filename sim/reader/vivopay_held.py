"""The cards at an emulated ViVOpay reader: held to it, in its slot, swiped; two at once, and torn away."""

from __future__ import annotations

import asyncio

from hw.vivopay_result import Source
from sim.reader.stripes import Stripe
from sim.reader.vivopay_kernel import ChipToRead

Card = Stripe | ChipToRead


class Held:
    """One card at most, in one way, until it is removed; ``crowded``: a second one is in the field."""

    def __init__(self) -> None:
        self.card: tuple[Source, Card] | None = None
        self.crowded = False
        self._tearing = False
        self._came = asyncio.Event()

    def tell(self) -> None:
        """Whoever waits for a card may look at it now."""
        self._came.set()

    def remove(self) -> None:
        """Take the card away, or both."""
        self.card = None
        self.crowded = False
        self._came.clear()

    def tear(self) -> None:
        """Take the card away in the middle of the next exchange with it."""
        self._tearing = True

    def torn(self) -> bool:
        """Whether this exchange is that one: the card is gone then."""
        torn, self._tearing = self._tearing, False
        if torn:
            self.remove()
        return torn

    def is_crowded(self, source: Source) -> bool:
        """Whether cards get in each other's way: in the slot there is room for one."""
        return self.crowded and source in (Source.CONTACTLESS, Source.MSD)

    def there(self, source: Source) -> Card | None:
        """The card that is there in this way."""
        return self.card[1] if self.card is not None and self.card[0] is source else None

    async def next(self, *sources: Source) -> tuple[Source, Card]:
        """The card that is there in one of these ways, or comes. A swipe is over with it."""
        while True:
            if self.card is not None and self.card[0] in sources:
                found = self.card
                if found[0] is Source.STRIPE:
                    self.remove()
                return found
            self._came.clear()
            await self._came.wait()
