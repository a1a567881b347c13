"""ID TECH's ViVOpay and NEO readers: ``vivopay:///dev/ttyACM0``. They run EMV themselves, or carry APDUs.

``?mode=`` says how a card is waited for:

    activate      one command for stripe, contact and contactless; the reader's kernel reads the card (the default)
    contact       the reader's contact kernel, step by step (60-10)
    passthrough   the host speaks to the card itself; ``?interface=`` contactless or contact
    burst         the reader tells each card unasked; stripe data in the clear, older readers only

A reader that encrypts (``?encrypts=yes``) hands over ciphertext and the serial number of its key. A card in the
clear from such a reader is refused: it is not in the state that it was certified in.

A card that was read has to be taken away before another wait counts it. Where a reader without a screen
or keys leaves it to us to ask for a choice, a PIN or a swipe (61-01 to 61-03), its transaction is called off: there
is nobody to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import ClassVar, Final

from hw.card import ChipCard, EntryMode, ResultCard, SealedCard, StripeCard
from hw.errors import BadAddress, CardError, NotSupported, ProtocolError, ReaderError
from hw.line import Link
from hw.reader import Address, Capabilities, CardInserted, CardRemoved, Reader
from hw.stripe import read_card
from hw.vivopay_card import PassedThrough
from hw.vivopay_channel import Channel
from hw.vivopay_commands import (
    AUTO_POLL,
    CARD,
    CONTACT,
    CONTACTLESS,
    ON_DEMAND,
    Commands,
    sale_objects,
)
from hw.vivopay_frames import MSR_APPLICATION, BurstPayload, Frame, Framer, Message
from hw.vivopay_result import Result, activation, bare_track, card_of, shows_a_number, was_inserted
from hw.vivopay_status import OK, TIMEOUT, USER_INTERFACE, status_text
from hw.vivopay_trace import language

ROUND: Final = 30
"""Seconds that the reader is told to wait for a card, before it is told again: long enough not to blink at the
shopper, short enough that a reader which lost track is noticed."""
LOOK: Final = 5
"""Tenths of a second for each look for a card in pass-through mode: a wait that is called off waits so long."""
SLOT: Final = 0.3
"""Seconds between two looks into the contact slot: soon enough for a person, and hardly any work."""
PAUSE: Final = 0.05
"""Seconds before a reader is told again to wait: one that does not wait at all must not keep us busy."""
CALL_OFF: Final = 0.5
"""Seconds for the reader to say that it has called off a transaction."""
AGAIN: Final = 0.5
"""Seconds from a card that was refused to the next: one that is left there is not refused a thousand times."""

AT_ONCE: Final = 0.5
"""Seconds from a wait's beginning in which nobody presents a card: one that is there by then was there before."""

_APDU_CARDS: Final = frozenset((0x01, 0x02, 0x07))
"""Kinds of card that speak ISO/IEC 14443-4."""
_REQUEST: Final = 0x61
_KEYS: Final = frozenset((0x01, 0x02, 0x08))
"""First bytes of 61-01 where an answer is waited for: a menu, a key, a menu of languages. The rest is shown."""
_WANTED: Final[Mapping[int, str]] = {0x01: "a choice", 0x02: "a PIN", 0x03: "a swipe"}
"""What a reader asks for that has no keys, or no stripe reader, of its own."""


class VivopayReader(Reader):
    """``vivopay://``; see the module. ``commands`` is for whatever else the reader can be told, once it is open.

    ``now`` gives the time of day for ``?clock=host``; ``firmware`` is what the reader calls its version.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mode": ("activate", "contact", "passthrough", "burst"),
        "interface": ("contactless", "contact"),
        "encrypts": ("no", "yes"),
        "clock": ("reader", "host"),
    }
    LINE: ClassVar[Mapping[str, str]] = {"baud": "115200"}

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if self.options["encrypts"] == "yes" and self.options["mode"] in ("burst", "passthrough"):
            raise BadAddress(f"{self.url}: in mode {self.options['mode']} card data come in the clear")
        self.now: Callable[[], datetime] = lambda: datetime.now().astimezone()
        self.firmware = ""
        self._commands: Commands | None = None
        self._card: PassedThrough | None = None
        self._last = b""
        self._reading = self._seated = self._told = self._soon = False
        self._refused: float | None = None
        self._activated = 0.0
        self._handed: tuple[str, str] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """By mode: which cards, and whether the reader's kernel reads them."""
        mode, encrypts = self.options["mode"], self.options["encrypts"] == "yes"
        if mode == "passthrough":
            contact = self.options["interface"] == "contact"
            return Capabilities(contact=contact, contactless=not contact, leds=True)
        return Capabilities(
            contact=mode != "burst",
            contactless=mode != "contact",
            stripe=True,
            own_kernel=True,
            encrypts=encrypts,
            display=True,
            leds=True,
        )

    @property
    def commands(self) -> Commands:
        """Everything else that the reader can be told; raises ProtocolError where it is not open."""
        if self._commands is None:
            raise ProtocolError(f"{self.url}: the reader is not open")
        return self._commands

    async def _start(self, link: Link) -> None:
        wire = self._wire(link, Framer(asyncio.get_running_loop().time), language())
        self._commands = commands = Commands(Channel(wire, self._unasked))
        self._last = b""
        self._seated = self._told = False
        self._handed = None
        await commands.ping()
        self.firmware = await commands.firmware()
        with suppress(NotSupported, ProtocolError):  # whoever was here before us may have left it in there
            await commands.pass_through(False)
        if self.options["mode"] == "burst":
            await commands.poll(AUTO_POLL)
            await commands.burst(True)
        else:
            with suppress(NotSupported, ProtocolError):  # newer readers have none
                await commands.burst(False)
            await commands.poll(ON_DEMAND)

    async def _next_card(self, link: Link) -> StripeCard | ResultCard | SealedCard | ChipCard:
        del link
        commands = self.commands
        commands.channel.wire.discard()
        await commands.ping()
        match self.options["mode"], self.options["interface"]:
            case "burst", _:
                return await self._burst_card(commands)
            case "passthrough", "contact":
                return await self._contact_card(commands)
            case "passthrough", _:
                return await self._contactless_card(commands)
        await self._taken_out(commands)
        while True:
            if self._refused is not None:
                await asyncio.sleep(self._refused + AGAIN - asyncio.get_running_loop().time())
                self._refused = None
            card = self._checked(await self._result(commands))
            if not self._lies_there(card):
                return card

    def _lies_there(self, card: StripeCard | ResultCard | SealedCard) -> bool:
        """Whether a card was held to the reader ever since it was handed over; raises CardError to say so once."""
        who = card.masked_pan, card.expiry
        lies = card.entry_mode is EntryMode.CONTACTLESS and who == self._handed and self._soon
        if lies:
            self._refused = asyncio.get_running_loop().time()
            if not self._told:
                self._told = True
                raise CardError(
                    f"{self.url}: the card of before is still there",
                    advice="Take it away; then present the card that pays.",
                )
            return True
        self._handed, self._told = who, False
        return False

    async def _taken_out(self, commands: Commands) -> None:
        """Until the card that was read last is out of the slot: it must not pay for whoever comes next.

        Which card is in there cannot be told, so it is said once that it has to come out.
        """
        while self._seated:
            if not await self._is_seated(commands):
                self._seated = self._told = False
                self.on_event(CardRemoved(url=self.url))
            elif not self._told:
                self._told = True
                raise CardError(
                    f"{self.url}: there is a card in the slot already",
                    advice="Take it out; then present the card that pays.",
                )
            else:
                await asyncio.sleep(SLOT)

    async def _is_seated(self, commands: Commands) -> bool:
        try:
            await commands.pass_through(True)
        except (NotSupported, ProtocolError):  # it does not let anyone look
            return False
        found = await commands.answer_to_reset()
        seated = found.code == OK and bool(found.data)
        with suppress(NotSupported, ProtocolError):
            await commands.contact_off()
        await commands.pass_through(False)
        return seated

    async def _result(self, commands: Commands) -> Result:
        """What became of the card that is presented next, however long that takes."""
        try:
            self._reading = True
            while True:
                result = await self._round(commands)
                if result.status != TIMEOUT:
                    return result
                await asyncio.sleep(PAUSE)
        except (asyncio.CancelledError, CardError):
            self._reading = False
            with suppress(ReaderError, TimeoutError):
                async with asyncio.timeout(CALL_OFF):
                    await commands.channel.send(0x05, 0x01)
                    await commands.channel.answer(0x05, CALL_OFF, "cancel transaction")
            raise
        finally:
            self._reading = False

    async def activate(self, seconds: int, objects: bytes = b"") -> Result:
        """Wait up to 255 seconds for a card, and let the reader's kernel read it; raises NoAnswer and LineGone."""
        data = bytes((seconds,)) + objects
        what = "activate transaction"
        answer = await self.commands.channel.ask(
            0x02, 0x40, data, what=what, patience=seconds + CARD, tries=1, timed=False
        )
        return activation(answer)

    async def _round(self, commands: Commands) -> Result:
        moment = self.now() if self.options["clock"] == "host" else None
        objects = sale_objects(self.sale, moment)
        if self.options["mode"] == "contact":
            return await commands.start_contact(ROUND, objects, fallback=True)
        self._activated, self._soon = asyncio.get_running_loop().time(), False
        result = await self.activate(ROUND, objects)
        self._notice()
        return result

    def _notice(self) -> None:
        """There is a card; where it is there so soon, it was there before."""
        self._soon = self._soon or asyncio.get_running_loop().time() - self._activated < AT_ONCE

    def _checked(self, result: Result) -> StripeCard | ResultCard | SealedCard:
        self._seated = was_inserted(result)
        try:
            card = card_of(result)
            if self.options["encrypts"] == "yes" and (not isinstance(card, SealedCard) or shows_a_number(result)):
                raise CardError(
                    f"{self.url}: the reader is to encrypt, and sent a card in the clear",
                    advice="Do not take payments with this reader until its keys and settings were checked.",
                )
        except CardError:
            self._refused = asyncio.get_running_loop().time()
            raise
        return card

    async def _burst_card(self, commands: Commands) -> StripeCard | ResultCard:
        while True:
            frame = await commands.channel.hear(None, "a card")
            if isinstance(frame, BurstPayload):
                break
        card = read_card(*_tracks(frame.tracks), None)
        if frame.application == MSR_APPLICATION:
            return card
        return ResultCard(track2=card.track2_equivalent(), entry_mode=EntryMode.CONTACTLESS)

    async def _contactless_card(self, commands: Commands) -> ChipCard:
        await self._turn(commands)
        while True:
            found = await commands.poll_card(LOOK)
            kind, uid = found.data[:1], found.data[1:]
            if found.code not in (OK, TIMEOUT):
                if not self._told:
                    self._told = True
                    raise CardError(f"{self.url}: {status_text(found.code)}", advice="Present one card only.")
                await asyncio.sleep(SLOT)
                continue
            self._told = False
            if found.code == TIMEOUT or kind in (b"", b"\0"):
                self._last = b""
                await asyncio.sleep(PAUSE)
            elif not self._stayed(uid):
                self._last = uid
                self.on_event(CardInserted(url=self.url))
                if kind[0] not in _APDU_CARDS:
                    raise CardError(f"{self.url}: that is no payment card", advice="Present a payment card.")
                return self._passed(commands, CONTACTLESS, b"", uid)
            else:
                await asyncio.sleep(SLOT)

    def _passed(self, commands: Commands, interface: int, answer: bytes, uid: bytes) -> PassedThrough:
        def gone() -> None:
            self.on_event(CardRemoved(url=self.url))

        self._card = PassedThrough(commands, interface, answer, uid, gone=gone, mourn=self._mourn)
        return self._card

    def _stayed(self, uid: bytes) -> bool:
        """Whether it is the card of before, which was not taken away. One that draws its number anew may be it."""
        random = len(uid) == 4 and uid[0] == 0x08  # ISO/IEC 14443-3, section 6.5.4
        return bool(self._last) and (uid == self._last or random)

    async def _contact_card(self, commands: Commands) -> ChipCard:
        await self._turn(commands)
        while True:
            found = await commands.answer_to_reset()
            if found.code != OK or not found.data:
                self._last = b""
            elif not self._last:
                self._last = found.data
                self.on_event(CardInserted(url=self.url))
                return self._passed(commands, CONTACT, found.data, b"")
            await asyncio.sleep(SLOT)

    async def _turn(self, commands: Commands) -> None:
        """To the next card: the one before is let go of, and the field is off for a moment."""
        if self._card is not None:
            self._card.forget()
            self._card = None
            await commands.pass_through(False)
        await commands.pass_through(True)

    def _unasked(self, frame: Frame) -> None:
        if not isinstance(frame, Message):
            return
        if frame.command == 0x02 and frame.code == USER_INTERFACE:
            self._notice()
            self.on_event(CardInserted(url=self.url))
        if frame.command == _REQUEST and frame.code in _WANTED and self._reading:
            if frame.code == 0x01 and frame.data[:1] not in {bytes((mode,)) for mode in _KEYS}:
                return
            raise CardError(
                f"{self.url}: the card wants {_WANTED[frame.code]}, which there is nobody here to ask for",
                advice="Use another card, or present this one in another way.",
            )


def _tracks(data: bytes) -> tuple[str | None, str | None]:
    """Tracks 1 and 2 of a burst payload."""
    first, _, rest = data.partition(b"?") if data[:1] == b"%" else (b"", b"", data)
    return bare_track(first), bare_track(rest[rest.find(b";") :]) if b";" in rest else None
