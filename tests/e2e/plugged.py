"""Readers that are plugged into a line in memory, and out of it, under a terminal in a world; cards that cut it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from hw.errors import LineError
from hw.reader import Reader, ReaderEvent, open_reader
from sim.card import VirtualCard, inserted, tapped
from sim.reader.gemcore import GemcoreEmulator
from sim.reader.memory import MemoryLine
from sim.reader.pn532 import Pn532Emulator
from sim.reader.vivopay import VivopayEmulator

Cut = Literal["before", "after"]


class CutLine(MemoryLine):
    """A line of which the plug can be set to be pulled ``before`` the next thing that the reader says, or after."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: Cut | None = None

    async def write(self, data: bytes) -> None:
        if self.cut == "before":
            await self.close()
        await super().write(data)
        if self.cut == "after":
            await self.close()


class Counted:
    """A virtual card that calls ``then`` when it is asked for the ``at``-th time."""

    def __init__(self, card: VirtualCard, at: int = 0, then: Callable[[], None] = lambda: None) -> None:
        self.atr, self.ats, self.uid = card.atr, card.ats, card.uid
        self._card, self._at, self._then = card, at, then
        self.asked = 0

    def transmit(self, apdu: bytes) -> bytes:
        self.asked += 1
        if self.asked == self._at:
            self._then()
        return self._card.transmit(apdu)


@dataclass(frozen=True)
class Kind:
    """A reader, how a card is presented to it, and how one is torn away while it works."""

    url: str
    make: Callable[[MemoryLine], Any]
    card: Callable[[], VirtualCard]
    present: Callable[[Any, Any], Any]


def _insert(emulator: Any, card: Any) -> Any:
    return emulator.insert(card)


def _tap(emulator: Any, card: Any) -> Any:
    return emulator.tap(card)


KINDS = {
    "pn532": Kind("pn532:///dev/ttyS9", Pn532Emulator, lambda: tapped("visa-credit"), _tap),
    "gemcore T=0": Kind("gemcore:///dev/ttyS9", GemcoreEmulator, lambda: inserted("visa-credit"), _insert),
    "gemcore T=1": Kind("gemcore:///dev/ttyS9", GemcoreEmulator, lambda: inserted("mastercard-credit"), _insert),
    "vivopay, clear": Kind("vivopay:///dev/ttyS9", VivopayEmulator, lambda: tapped("visa-credit"), _tap),
    "vivopay, passed through": Kind(
        "vivopay:///dev/ttyS9?mode=passthrough", VivopayEmulator, lambda: tapped("visa-credit"), _tap
    ),
    "vivopay, sealed": Kind(
        "vivopay:///dev/ttyS9?encrypts=yes",
        lambda line: VivopayEmulator(line, seal="aes"),
        lambda: tapped("visa-credit"),
        _tap,
    ),
}


class Socket:
    """Where a reader is plugged in. ``told`` is what its driver said."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.reader: Reader = open_reader(kind.url)
        self.told: list[ReaderEvent] = []
        self.reader.on_event = self.told.append
        self.line = CutLine()
        self.emulator: Any = None
        self._lives: list[asyncio.Task[None]] = []

    def plug_in(self) -> None:
        """A reader that was just powered."""
        self.line = CutLine()
        self.emulator = self.kind.make(self.line)
        self._lives.append(asyncio.create_task(self.emulator.run()))

    async def present(self, card: Any = None) -> None:
        """Present the card, or another."""
        done = self.kind.present(self.emulator, card or Counted(self.kind.card()))
        if isinstance(done, Coroutine):
            await done

    async def present_torn(self) -> None:
        """Present the card and tear it away in the middle of its second exchange."""
        if isinstance(self.emulator, GemcoreEmulator):  # at once: what it would do later befalls any command
            reader, tearing = self.emulator, asyncio.Event()
            await self.present(Counted(self.kind.card(), 2, tearing.set))
            await tearing.wait()
            await reader.remove()
        else:
            self.emulator.tear()
            await self.present()

    async def unplug(self) -> None:
        """Pull the plug."""
        await self.line.close()

    async def link(self, *_: object, **__: object) -> Any:
        """What the driver opens."""
        if self.line.unplugged:
            raise LineError("/dev/ttyS9: there is no such port")
        return self.line.link

    async def close(self) -> None:
        """The end."""
        await self.reader.close()
        await self.line.close()
        await asyncio.gather(*self._lives)


@asynccontextmanager
async def plugged(kind: Kind) -> AsyncIterator[Socket]:
    """A reader that is plugged in, for the time of the context."""
    socket = Socket(kind)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hw.reader.open_link", socket.link)
        socket.plug_in()
        try:
            yield socket
        finally:
            await socket.close()
