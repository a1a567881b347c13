"""All emulated readers by one handle: a card of `sim.card` is presented in some way, taken away, and trouble made.

presenter = PRESENTERS["pn532"](line, ("tap",))
await presenter.present("visa-credit", "tap")
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar, Final, Literal

from sim.card import card_file, inserted, stripe_of, tapped
from sim.reader import ccid, magstripe, pn532
from sim.reader.acs import AcsEmulator
from sim.reader.ccid import CcidEmulator
from sim.reader.gemcore import GemcoreEmulator
from sim.reader.line import PtyLine, SocketLine
from sim.reader.magstripe import MagstripeEmulator
from sim.reader.pn532 import Pn532Emulator
from sim.reader.stripes import CARDS, Stripe
from sim.reader.vivopay import VivopayEmulator
from sim.reader.vivopay_faults import Fault as VivopayFault

Way = Literal["tap", "insert", "swipe"]
TICK: Final = 0.1
"""Seconds between two looks whether somebody waits for a swipe."""


def stripe_named(name: str) -> Stripe:
    """The stripe of a card: one of `CARDS`, or the back of a chip card. Raises CardFileError."""
    return CARDS[name] if name in CARDS else stripe_of(card_file(name))


class Presenter(ABC):
    """A reader at the end of a line; ``ways`` are those in which cards will come to it."""

    DRIVER: ClassVar[str]
    WAYS: ClassVar[tuple[Way, ...]]
    FAULTS: ClassVar[type[StrEnum]]

    def __init__(self, line: PtyLine | SocketLine, ways: tuple[Way, ...]) -> None:
        self.line, self._ways = line, ways

    @property
    def url(self) -> str:
        """What a driver is told to find it."""
        return f"{self.DRIVER}{self.line.address}"

    @abstractmethod
    async def run(self) -> None:
        """Be there until the line is closed."""

    @abstractmethod
    async def present(self, card: str, way: Way, fault: str | None = None) -> None:
        """A card comes, and something goes wrong with what is said next. Raises CardFileError, LineGone."""

    @abstractmethod
    async def remove(self) -> None:
        """The card is taken away; a swipe is over anyway."""

    async def swipe_at_once(self, card: str, fault: str | None = None) -> None:
        """Swipe whenever somebody waits for a card, until cancelled or the line is closed. The fault comes once."""
        while True:
            await self.present(card, "swipe", fault)
            fault = None
            await asyncio.sleep(TICK)


class Pn532(Presenter):
    """See `sim.reader.pn532`."""

    DRIVER, WAYS, FAULTS = "pn532", ("tap",), pn532.Fault

    def __init__(self, line: PtyLine | SocketLine, ways: tuple[Way, ...]) -> None:
        super().__init__(line, ways)
        self.reader = Pn532Emulator(line)

    async def run(self) -> None:
        """See Presenter."""
        await self.reader.run()

    async def present(self, card: str, way: Way, fault: str | None = None) -> None:
        """See Presenter."""
        self.reader.remove()
        self.reader.tap(tapped(card))
        if fault:
            self.reader.misbehave(pn532.Fault(fault))

    async def remove(self) -> None:
        """See Presenter."""
        self.reader.remove()


class _Ccid(Presenter):
    FAULTS = ccid.Fault
    reader: CcidEmulator

    async def run(self) -> None:
        """See Presenter."""
        await self.reader.run()

    async def present(self, card: str, way: Way, fault: str | None = None) -> None:
        """See Presenter."""
        await self.reader.insert(inserted(card) if way == "insert" else tapped(card))
        if fault:
            self.reader.misbehave(ccid.Fault(fault))

    async def remove(self) -> None:
        """See Presenter."""
        await self.reader.remove()


class Gemcore(_Ccid):
    """See `sim.reader.gemcore`."""

    DRIVER, WAYS = "gemcore", ("insert",)

    def __init__(self, line: PtyLine | SocketLine, ways: tuple[Way, ...]) -> None:
        super().__init__(line, ways)
        self.reader = GemcoreEmulator(line)


class Acs(_Ccid):
    """See `sim.reader.acs`; the slot is the one for the first of the ways."""

    DRIVER, WAYS = "acs", ("insert", "tap")

    def __init__(self, line: PtyLine | SocketLine, ways: tuple[Way, ...]) -> None:
        super().__init__(line, ways)
        self._slot = "picc" if ways[:1] == ("tap",) else "icc"
        self.reader = AcsEmulator(line, slot=self._slot)

    @property
    def url(self) -> str:
        """See Presenter."""
        return f"{super().url}?slot={self._slot}"


class Vivopay(Presenter):
    """See `sim.reader.vivopay`."""

    DRIVER, WAYS, FAULTS = "vivopay", ("tap", "insert", "swipe"), VivopayFault

    def __init__(
        self, line: PtyLine | SocketLine, ways: tuple[Way, ...], seal: Literal["tdes", "aes"] | None = None
    ) -> None:
        super().__init__(line, ways)
        self._seal = seal
        self.reader = VivopayEmulator(line, seal=seal)

    @property
    def url(self) -> str:
        """See Presenter."""
        return f"{super().url}?encrypts=yes" if self._seal else super().url

    async def run(self) -> None:
        """See Presenter."""
        await self.reader.run()

    async def present(self, card: str, way: Way, fault: str | None = None) -> None:
        """See Presenter."""
        if way == "swipe":
            self.reader.swipe(stripe_named(card))
        elif way == "insert":
            self.reader.insert(inserted(card))
        else:
            self.reader.tap(tapped(card))
        if fault:
            self.reader.misbehave(VivopayFault(fault))

    async def remove(self) -> None:
        """See Presenter."""
        self.reader.remove()


class Magstripe(Presenter):
    """See `sim.reader.magstripe`."""

    DRIVER, WAYS, FAULTS = "magstripe", ("swipe",), magstripe.Fault

    def __init__(self, line: PtyLine | SocketLine, ways: tuple[Way, ...], make: str = "magtek") -> None:
        super().__init__(line, ways)
        self.reader = MagstripeEmulator(line, make)

    async def run(self) -> None:
        """See Presenter."""
        await self.reader.run()

    async def present(self, card: str, way: Way, fault: str | None = None) -> None:
        """See Presenter."""
        await self.reader.swipe(stripe_named(card), magstripe.Fault(fault) if fault else None)

    async def remove(self) -> None:
        """See Presenter."""

    async def swipe_at_once(self, card: str, fault: str | None = None) -> None:
        """See Presenter; each swipe has the fault. Who waits behind a socket is not known: it swipes on and on."""
        while True:
            await self.line.listening()
            await self.present(card, "swipe", fault)
            if isinstance(self.line, SocketLine):
                await asyncio.sleep(TICK)


PRESENTERS: Final[Mapping[str, type[Pn532 | Gemcore | Acs | Vivopay | Magstripe]]] = {
    one.DRIVER: one for one in (Pn532, Gemcore, Acs, Vivopay, Magstripe)
}
"""Driver -> its emulator's handle."""
