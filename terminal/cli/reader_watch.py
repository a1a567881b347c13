"""Cards as they come to a reader, for as long as somebody looks; through unplugging, and under another name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from hw.card import ChipCard
from hw.errors import CardError, FramingError, LineError, ReaderError
from hw.reader import (
    CardInserted,
    CardRemoved,
    ReaderBack,
    ReaderEvent,
    ReaderGone,
    open_reader,
)
from terminal.cli.reader_cards import facts_of, in_words

LOOK: Final = 0.5
"""Seconds between two looks for a reader that was unplugged: soon enough for whoever plugs it in."""

AGAIN: Final = 1.0
"""Seconds after a card that the reader has read by itself: one that is left there is shown once a second."""

_TOLD: Final[dict[type[ReaderEvent], tuple[str, str]]] = {
    CardInserted: ("card_inserted", "a card is there"),
    CardRemoved: ("card_removed", "the card was taken away"),
    ReaderGone: ("reader_gone", "the reader is gone"),
    ReaderBack: ("reader_back", "the reader is back"),
}


class Watch:
    """``show`` is told each thing, as plain values and as a line."""

    def __init__(self, url: str, show: Callable[[dict[str, Any], str], object]) -> None:
        self._show = show
        self._reader = open_reader(url)
        self._reader.on_event = self._told

    async def run(self, count: int | None = None) -> None:
        """Until ``count`` cards have come (None: for ever). Raises LineError where the reader was never there."""
        await self._reader.open()
        self._show({"event": "watching", "reader": self._reader.url}, f"watching {self._reader.url}")
        left = count
        try:
            while left is None or left > 0:
                try:
                    if await self._one() and left is not None:
                        left -= 1
                    if self._reader.capabilities.own_kernel and left != 0:
                        await asyncio.sleep(AGAIN)
                except LineError as error:
                    self._error(error)
                    await self._come_back()
                except (CardError, FramingError) as error:
                    self._error(error)
        finally:
            await self._reader.close()

    async def _one(self) -> bool:
        card = await self._reader.wait_for_card(None)
        try:
            facts = await facts_of(card)
            self._show(facts, in_words(facts))
            return True
        finally:
            if isinstance(card, ChipCard):
                await card.release()

    async def _come_back(self) -> None:
        """Look for the reader, under its name or another, until it can be opened."""
        while True:
            await asyncio.sleep(LOOK)
            with suppress(ReaderError):
                await self._reader.open()
                return

    def _told(self, event: ReaderEvent) -> None:
        name, words = _TOLD[type(event)]
        self._show({"event": name, "reader": event.url}, words)

    def _error(self, error: ReaderError) -> None:
        facts = {"event": "problem", "error": type(error).__name__, "message": str(error), "advice": error.advice}
        self._show(facts, f"{error}  {error.advice}".rstrip())
