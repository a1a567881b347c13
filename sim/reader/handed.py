"""A reader without a line: it is handed its cards by whoever runs the world."""

from __future__ import annotations

import asyncio
from collections import deque

from hw.card import Card
from hw.reader import Address, Capabilities, Reader

_ADDRESS = Address("handed:", "handed", "", {})
_A_STRIPE = Capabilities(stripe=True)


class HandedReader(Reader):
    """Reads ``cards`` in order, one a wait; an exception among them is raised instead. Deadlines are the reader's.

    More may be put into ``cards`` before a wait. Without one left nobody presents a card: the wait ends by its
    timeout, or is cancelled. What is not modelled: the line, and a card that comes while a wait is under way.
    """

    def __init__(self, *cards: Card | Exception, capabilities: Capabilities = _A_STRIPE) -> None:
        super().__init__(_ADDRESS)
        self.cards = deque(cards)
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """As they were handed in."""
        return self._capabilities

    async def open(self) -> None:
        """Nothing: there is no line."""

    async def close(self) -> None:
        """Nothing: there is no line."""

    async def _one_card(self) -> Card:
        if not self.cards:
            await asyncio.get_running_loop().create_future()
        card = self.cards.popleft()
        if isinstance(card, Exception):
            raise card
        return card

    async def _next_card(self, link: object) -> Card:
        return await self._one_card()
