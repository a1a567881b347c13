"""Readers behind PC/SC: the USB readers that a machine has, by whatever driver its PC/SC service has for them.

    pcsc://                  the first reader
    pcsc://ACS*              the first whose name begins so; * is any text, %20 a blank
    pcsc://*PICC*00%2000
    pcsc://ACS*?interface=contact        for a reader that has no antenna, or none that matters

The service speaks T=0, T=1 and ISO 14443-4 by itself. Which of these readers encrypts or is certified it does not
say: card data comes in the clear, so these readers are for the lab and for test cards.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar, Final, Literal
from urllib.parse import unquote

from hw.apdu import Command
from hw.apdu_trace import command_words, response_words
from hw.card import ChipCard, EntryMode
from hw.errors import BadAddress, CardError, CardGone, LineError, LineGone, NoAnswer, ReaderError
from hw.masking import asks_for_more, is_in_part, masked_command, masked_response
from hw.pcsc_service import MUTE, NOTIFICATION, PRESENT, T0, UNAVAILABLE, UNAWARE, UNKNOWN, Service, load
from hw.reader import Address, Capabilities, CardInserted, CardRemoved, Reader
from hw.t0 import to_tpdu
from hw.trace import Language, Way

RETURNS: Final = 2.0
"""Seconds for which a reader that went away is waited for, when it is opened again."""
NOTICES: Final = 2.0
"""Seconds for which a card that failed is watched: the service takes a moment to notice that it was pulled."""
LOOK: Final = 0.5
"""Seconds between two looks at the list of readers meanwhile: a notice that comes before the wait is lost."""
CONTACTLESS: Final = re.compile(rb"\x3b[\x80-\x8f]\x80\x01", re.DOTALL)
"""How the answers to reset begin that a reader makes up for contactless cards (PC/SC part 3, section 3.1.3.2.3)."""
STORAGE: Final = bytes.fromhex("4F0CA000000306")
"""What such an answer holds for a card that is memory alone."""
GET_UID: Final = Command(0xFF, 0xCA, 0x00, 0x00, le=256)
"""The reader's own command for a card's anticollision number (PC/SC part 3, section 3.2.2.1.3)."""


class _Spoken:
    """APDUs in a trace: they are the frames here. It follows a card: an answer may come in pieces (61xx), of which
    nobody can say where their objects begin."""

    def __init__(self) -> None:
        self._goes_on = False
        self.languages: Mapping[Way, Language] = {
            "out": Language(command_words, self._command),
            "in": Language(response_words, self._answer),
        }

    def _command(self, apdu: bytes) -> bytes:
        self._goes_on = self._goes_on and asks_for_more(apdu)
        return masked_command(apdu)

    def _answer(self, apdu: bytes) -> bytes:
        goes_on, self._goes_on = self._goes_on, is_in_part(apdu, self._goes_on)
        return bytes(len(apdu[:-2])) + apdu[-2:] if goes_on or self._goes_on else masked_response(apdu)


_INSERT: Final = "Insert the card again, chip first and to the end; wipe its contacts."
_PRESENT: Final = "Present a card with the contactless sign."


class PcscReader(Reader):
    """``pcsc://``: see the module. ``reader_name`` is the service's name for the reader, once it is open.

    A card that is in the reader when a wait begins counts, unless it was handed over before: that one has to be
    taken out first.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"interface": ("both", "contact", "contactless")}

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if set(address.options) - set(self.OPTIONS) or "://" in address.line:
            raise BadAddress(f"{self.url}: a reader behind PC/SC has a name, no line and no option but interface")
        self.pattern = unquote(address.line)
        self.reader_name = ""
        self._service: Service | None = None
        self._card: PcscCard | None = None
        self.spoken = _Spoken()
        """What the trace has to know of the card that is spoken to."""
        self._present = False
        self._handed: int | None = None
        """How often cards had come and gone when the last one was handed over."""

    @property
    def capabilities(self) -> Capabilities:
        """Both kinds of chips, unless the URL says which: PC/SC does not, and a card is known once it is there."""
        interface = self.options["interface"]
        return Capabilities(contact=interface != "contactless", contactless=interface != "contact")

    async def open(self) -> None:
        """Find the reader; raises LineError, and NotSupported without pyscard. See Reader."""
        if self._service is not None:
            return
        closings = self._closings
        service = await Service.establish(load(), self.url)
        try:
            self.reader_name = await self._find(service)
            self._check_wanted(closings)
        except BaseException:
            await service.close()
            raise
        self._service = service
        self._present, self._handed = False, None
        self._opened()

    async def _find(self, service: Service) -> str:
        """The reader's name; one that was here before may take a while to come back, and have another number."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (RETURNS if self._lost else 0.0)
        while True:
            names = await service.readers()
            found = [name for name in names if matches(self.pattern, name)]
            if not found and self._lost:
                found = [name for name in names if _unnumbered(name) == _unnumbered(self.reader_name)]
            if found:
                return found[0]
            left = until - loop.time()
            if left <= 0:
                there = ", ".join(names) or "none"
                wanted = f"no reader is called {self.pattern!r}" if self.pattern else "there is no reader"
                raise LineError(
                    f"{self.url}: {wanted} (there are: {there})", advice="Plug it in; `pcsc_scan -r` lists them."
                )
            await service.changed(NOTIFICATION, UNAWARE, min(left, LOOK))

    async def close(self) -> None:
        """See Reader; the card is powered off."""
        card, self._card = self._card, None
        if card is not None and not self._lost:
            await card.release()
        service, self._service = self._service, None
        if service is not None:
            await service.close()
        await super().close()

    async def _one_card(self) -> PcscCard:
        await self.open()
        try:
            if self._card is not None:
                await self._card.release()
            return await self._next_card(None)
        except (LineGone, NoAnswer):
            await self._mourn()
            raise

    async def _next_card(self, link: object) -> PcscCard:
        """See Reader; ``link`` is none, as there is no line."""
        service = self._service
        assert service is not None
        state = UNAWARE
        while True:
            state = await service.changed(self.reader_name, state)
            if state & (UNKNOWN | UNAVAILABLE):
                raise LineGone(f"{self.url}: the reader is gone")
            present, count = bool(state & PRESENT), state >> 16
            if present != self._present:
                self._told(present)
            if present and count != self._handed:
                return await self._power(service, count, mute=bool(state & MUTE))

    async def _power(self, service: Service, count: int, *, mute: bool) -> PcscCard:
        self._handed = count
        if mute:
            raise CardError(f"{self.url}: the card does not answer", advice=_INSERT)
        try:
            handle, protocol, answer = await service.connect(self.reader_name)
        except CardGone:
            self._told(False)
            raise
        except LineError:  # another program holds it: that program may let go of it
            self._handed = None
            raise
        mode: Literal[EntryMode.CHIP, EntryMode.CONTACTLESS]
        mode = EntryMode.CONTACTLESS if CONTACTLESS.match(answer) else EntryMode.CHIP
        card = self._card = PcscCard(self, service, handle, protocol, mode, answer)
        try:
            if mode is EntryMode.CONTACTLESS:
                if STORAGE in answer:
                    raise CardError(f"{self.url}: this is no payment card", advice=_PRESENT)
                found = await card.transmit(GET_UID)
                card.uid = found.data if found.ok else b""
        except BaseException:
            await card.release()
            raise
        return card

    def _told(self, present: bool) -> None:
        """A card came, or went."""
        if present != self._present:
            self._present = present
            self.on_event(CardInserted(url=self.url) if present else CardRemoved(url=self.url))

    async def was_pulled(self, service: Service) -> bool:
        """Whether the card that was handed over is gone, or about to be."""
        clock = asyncio.get_running_loop().time
        until, state = clock() + NOTICES, UNAWARE
        while (left := until - clock()) > 0:
            state = await service.changed(self.reader_name, state, left)
            if not state & PRESENT or state >> 16 != self._handed:
                return True
        return False

    async def mourn(self) -> None:
        """The reader is gone, and a card noticed it."""
        await self._mourn()

    def gone(self) -> None:
        """The card was taken away, and it noticed it."""
        self._told(False)


class PcscCard(ChipCard):
    """A card that the service powers, for us alone."""

    def __init__(
        self,
        reader: PcscReader,
        service: Service,
        handle: int,
        protocol: int,
        mode: Literal[EntryMode.CHIP, EntryMode.CONTACTLESS],
        answer: bytes,
    ) -> None:
        super().__init__(mode, answer)
        self._reader, self._service, self._handle, self._protocol = reader, service, handle, protocol
        self._over = self._released = False

    async def _exchange(self, command: bytes) -> bytes:
        if self._over:
            raise CardGone(f"{self._service.name}: the card was let go of")
        sent = to_tpdu(command) if self._protocol == T0 else command
        clock = asyncio.get_running_loop().time
        began = clock()
        self._count("out", sent)
        try:
            answer = await self._transmit(sent)
        except CardGone:
            self._over = True
            self._reader.gone()
            raise
        except (LineGone, NoAnswer) as error:
            self._over = self._released = True
            self._reader.statistics.errors[type(error).__name__] += 1
            await self._reader.mourn()
            raise
        self._reader.statistics.round_trips.append(clock() - began)
        self._count("in", answer)
        return answer

    async def _transmit(self, sent: bytes) -> bytes:
        answer, failure = b"", None
        try:
            answer = await self._service.transmit(self._handle, self._protocol, sent)
        except CardGone:
            raise
        except CardError as error:
            failure = error
        if len(answer) < 2 and await self._reader.was_pulled(self._service):
            raise CardGone(f"{self._service.name}: the card was taken away")
        if failure is not None:
            raise failure
        return answer

    def _count(self, way: Way, apdu: bytes) -> None:
        counts, tracer = self._reader.statistics, self._reader.tracer
        if way == "out":
            counts.frames_out += 1
            counts.bytes_out += len(apdu)
        else:
            counts.frames_in += 1
            counts.bytes_in += len(apdu)
        if tracer is not None:
            tracer.frame(way, apdu, self._reader.spoken.languages[way])

    async def release(self) -> None:
        """See ChipCard: power off, also of a card that was pulled, as others are kept out until then.

        What goes wrong with that no longer matters.
        """
        self._over = True
        if self._released:
            return
        self._released = True
        with suppress(ReaderError):
            await self._service.disconnect(self._handle)


def matches(pattern: str, name: str) -> bool:
    """Whether a reader's name fits: ``*`` is any text, and nothing else is special; empty fits all."""
    pieces = (re.escape(piece) for piece in (pattern or "*").split("*"))
    return re.fullmatch(".*".join(pieces), name, re.IGNORECASE | re.DOTALL) is not None


def _unnumbered(name: str) -> str:
    """A reader's name without the service's own number for it; that of its slot stays (``... 00 01``)."""
    return re.sub(r" [0-9A-F]{2} ([0-9A-F]{2})$", r" \1", name)
