"""A contact reader that speaks CCID over a serial line, whatever its make.

A make gives its `ENVELOPE`, and says in `_wake` what it wants to be told once the line is open. Presence, power,
protocol, parameters, exchange and removal are written here.

A card that is in the slot when a wait begins counts, unless it was handed over before: that one has to be taken out
first, so that no card pays twice by being left behind.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Generator
from typing import ClassVar, Final, Literal, TypeVar

from hw import atr as reset
from hw.apdu import Command
from hw.atr import Atr, parse_atr
from hw.card import ChipCard, EntryMode
from hw.ccid import Icc, Kind, Message
from hw.ccid_channel import LONGEST, Channel
from hw.envelope import Envelope
from hw.errors import CardError, CardGone, LineGone, ReaderError
from hw.line import Link
from hw.reader import Address, CardInserted, CardRemoved, Reader
from hw.t0 import to_tpdu
from hw.t1 import T1, Ask

POLL: Final = 0.3
"""Seconds between two looks at the slot: soon enough for a person, and three thousandths of a slow processor."""
POWER: Final = 5.0
"""Seconds for power on: a card may take 2 s for its answer to reset, and is reset twice (EMV 4.3 Book 1, 8.3)."""
PATIENCE: Final = 5.0
"""Seconds for a block: a card has 1.6 s until it must ask for more (BWI 4), and sends 258 bytes in 0.3 s."""
VOLTAGES: Final = (1, 2, 3)
"""bPowerSelect: 5 V, 3 V, 1.8 V. EMV cards are of class A or AB, so the first is as good as always right."""

GET_UID: Final = Command(0xFF, 0xCA, 0x00, 0x00, le=256)
"""The reader's own command for a card's anticollision number (PC/SC part 3, section 3.2.2.1.3)."""

Level = Literal["tpdu", "apdu"]
Said = TypeVar("Said", bytes, None)


class ContactCard(ChipCard):
    """A card that a CCID reader powers."""

    def __init__(
        self,
        reader: CcidReader,
        channel: Channel,
        mode: Literal[EntryMode.CHIP, EntryMode.CONTACTLESS],
        answer: bytes,
        t1: T1 | None,
    ) -> None:
        super().__init__(mode, answer)
        self._reader, self._channel, self._t1 = reader, channel, t1
        self._over = False

    async def _exchange(self, command: bytes) -> bytes:
        if self._over:
            raise CardGone(f"{self._channel.name}: the card was let go of")
        try:
            if self._t1 is not None:
                return await self._run(self._t1.exchange(command))
            tpdu = to_tpdu(command) if self._reader.LEVEL == "tpdu" else command
            return (await self._block(tpdu, 1)).check(self._channel.name).data
        except CardGone:
            self._over = True
            self._reader.told(False)
            raise
        except LineGone:
            self._over = True
            await self._reader.mourn()
            raise

    async def negotiate(self) -> None:
        """T=1: tell the card the size of our blocks."""
        if self._t1 is not None:
            await self._run(self._t1.negotiate())

    async def _run(self, steps: Generator[Ask, bytes | None, Said]) -> Said:
        try:
            async with asyncio.timeout(LONGEST):
                ask = next(steps)
                while True:
                    answer = await self._block(ask.block, ask.waits)
                    if answer.icc is Icc.ABSENT:
                        raise CardGone(f"{self._channel.name}: the card was taken away")
                    ask = steps.send(None if answer.failed else answer.data)
        except StopIteration as done:
            said: Said = done.value
            return said
        except TimeoutError:
            raise CardError(f"{self._channel.name}: the card is not done within {LONGEST:g} s") from None

    async def _block(self, block: bytes, waits: int) -> Message:
        """One XfrBlock; bBWI says how often the card's block waiting time may pass, zero for once."""
        specific = bytes((waits if waits > 1 else 0, 0, 0))
        return await self._channel.ask(Kind.XFR_BLOCK, block, specific=specific, patience=PATIENCE * waits)

    async def release(self) -> None:
        """See ChipCard: power off. What goes wrong with that no longer matters."""
        if self._over:
            return
        self._over = True
        try:
            await self._channel.ask(Kind.POWER_OFF)
        except LineGone:
            await self._reader.mourn()
        except ReaderError:
            return

    def forget(self) -> None:
        """The reader has turned to the next card."""
        self._over = True


class CcidReader(Reader):
    """What all makes share; see the module."""

    ENVELOPE: ClassVar[Envelope]
    LEVEL: ClassVar[Level] = "tpdu"
    """Whether the reader is given what a protocol sends, or whole APDUs."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._channel: Channel | None = None
        self._card: ContactCard | None = None
        self._present = False
        self._spent = False

    @property
    def slot(self) -> int:
        """bSlot."""
        return 0

    @property
    def entry_mode(self) -> Literal[EntryMode.CHIP, EntryMode.CONTACTLESS]:
        """How cards come in that slot."""
        return EntryMode.CHIP

    @abstractmethod
    async def _wake(self, channel: Channel) -> None:
        """Tell the reader what it wants to be told first; raises as `Channel.ask` and `Message.check` do."""

    async def _start(self, link: Link) -> None:
        self._present = self._spent = False
        self._channel = None
        await self._wake(self._connected(link))

    def _connected(self, link: Link) -> Channel:
        wire = self._wire(link, self.ENVELOPE.framer(), self.ENVELOPE.language())
        if self._channel is None:
            echo = self.options.get("echo", "auto")
            self._channel = Channel(wire, self.ENVELOPE, self.told, slot=self.slot, echo=echo)
        self._channel.wire = wire
        return self._channel

    async def _next_card(self, link: Link) -> ContactCard:
        if self._card is not None:
            self._card.forget()
        channel = self._connected(link)
        while True:
            status = await channel.ask(Kind.GET_SLOT_STATUS)
            present = status.icc in (Icc.ACTIVE, Icc.INACTIVE)
            if present != self._present:
                self.told(present)
            if present and not self._spent:
                self._card = await self._power_on(channel)
                self._spent = True
                return self._card
            await channel.listen(POLL)

    def told(self, inserted: bool) -> None:
        """A card was inserted or removed; either way the one before counts no more."""
        self._spent = False
        if inserted or self._present:
            self._present = inserted
            self.on_event(CardInserted(url=self.url) if inserted else CardRemoved(url=self.url))

    async def mourn(self) -> None:
        """The line is gone, and a card noticed it."""
        await self._mourn()

    async def _power_on(self, channel: Channel) -> ContactCard:
        for voltage in VOLTAGES:
            answer = await channel.ask(Kind.POWER_ON, specific=bytes((voltage, 0, 0)), patience=POWER)
            if not answer.failed or answer.icc is Icc.ABSENT:
                break
        try:
            return await self._activated(channel, answer.check(self.url).data)
        except CardGone:
            self.told(False)
            raise
        except CardError:
            self._spent = True
            await channel.ask(Kind.POWER_OFF)
            raise

    async def _activated(self, channel: Channel, answer: bytes) -> ContactCard:
        if self.LEVEL == "apdu":
            card = ContactCard(self, channel, self.entry_mode, answer, None)
            if self.entry_mode is EntryMode.CONTACTLESS:
                found = await card.transmit(GET_UID)
                card.uid = found.data if found.ok else b""
            return card
        atr = parse_atr(answer)
        protocol = self._protocol(atr)
        if atr.specific is None and protocol != atr.protocols[0]:
            request = reset.pps(protocol)
            reply = await channel.ask(Kind.XFR_BLOCK, request, patience=PATIENCE)
            reset.check_pps(request, reply.check(self.url).data)
        settings = reset.parameters(atr, protocol)
        reply = await channel.ask(Kind.SET_PARAMETERS, settings, specific=bytes((protocol, 0, 0)))
        reply.check(self.url)
        card = ContactCard(self, channel, self.entry_mode, answer, T1(atr.ifsc) if protocol else None)
        await card.negotiate()
        return card

    def _protocol(self, atr: Atr) -> int:
        named = self.options.get("protocol", "auto")
        protocol = atr.choose(None if named == "auto" else int(named[1:]))
        if protocol == 1 and atr.crc:
            raise CardError(
                "the card wants a CRC in its blocks, which payment cards do not", advice="Use another card."
            )
        return protocol
