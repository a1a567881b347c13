"""Cards as they come to a reader, for as long as somebody looks; through unplugging, and under another name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from hw import finding
from hw.card import ChipCard
from hw.errors import CardError, FramingError, LineError, ReaderError
from hw.probing import reader_url
from hw.reader import (
    CardInserted,
    CardRemoved,
    Reader,
    ReaderBack,
    ReaderEvent,
    ReaderGone,
    open_reader,
    parse_address,
)
from terminal.cli.reader_cards import facts_of, in_words

LOOK: Final = 0.5
"""Seconds between two looks for a reader that was unplugged: soon enough for whoever plugs it in."""

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
        self._reader = self._made(url)
        self._port: finding.Port | None = None

    def _made(self, url: str) -> Reader:
        reader = open_reader(url)
        reader.on_event = self._told
        return reader

    async def run(self, count: int | None = None) -> None:
        """Until ``count`` cards have come (None: for ever). Raises LineError where the reader was never there."""
        await self._reader.open()
        self._remember()
        self._show({"event": "watching", "reader": self._reader.url}, f"watching {self._reader.url}")
        left = count
        try:
            while left is None or left > 0:
                try:
                    if await self._one() and left is not None:
                        left -= 1
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
            try:
                await self._follow()
                await self._reader.open()
            except ReaderError:
                await asyncio.sleep(LOOK)
            else:
                self._remember()
                return

    def _remember(self) -> None:
        path = parse_address(self._reader.url).line
        if path.startswith("/"):
            self._port = finding.port_at(path, finding.ports())

    async def _follow(self) -> None:
        """Turn to the port's new name, where it has one."""
        if self._port is None or self._port.vid is None:
            return
        now = finding.found_again(self._port, finding.ports())
        address = parse_address(self._reader.url)
        if now is None or finding.port_at(address.line, [now]) is not None:
            return
        await self._reader.close()
        options = self._reader.url.partition("?")[1:]
        self._reader = self._made(reader_url(address.driver, now.path) + "".join(options))

    def _told(self, event: ReaderEvent) -> None:
        name, words = _TOLD[type(event)]
        self._show({"event": name, "reader": event.url}, words)

    def _error(self, error: ReaderError) -> None:
        facts = {"event": "problem", "error": type(error).__name__, "message": str(error), "advice": error.advice}
        self._show(facts, f"{error}  {error.advice}".rstrip())
