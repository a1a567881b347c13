"""Contactless cards by an NXP PN532 on a serial line (HSU), APDU by APDU.

    pn532:///dev/ttyAMA0                      a board on a Raspberry Pi's UART
    pn532:///dev/ttyUSB0?chip_baud=921600     the chip is told to go faster than its 115,200 baud

The chip speaks ISO 14443-4 to the card by itself: blocks, chaining, waiting time. What it is not is certified: it
is for the lab and for test cards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import ClassVar, Final

from hw import pn532_frames as frames
from hw.apdu import MAX_RESPONSE
from hw.card import ChipCard, EntryMode
from hw.errors import (
    BadAddress,
    CardError,
    CardGone,
    LineError,
    LineGone,
    NoAnswer,
    NotSupported,
    ProtocolError,
    ReaderError,
)
from hw.line import Link
from hw.pn532_chip import Chip
from hw.pn532_targets import MAX_TARGETS, TYPE_A, TYPE_B, Target, parse_targets
from hw.reader import Address, Capabilities, CardInserted, CardRemoved, Reader

IC: Final = 0x32
"""What a PN532 calls itself in GetFirmwareVersion."""

PARAMETERS: Final = 0x14
"""SetParameters: AutoATR_RES as at power-up, and AutoRATS, by which the chip activates a card for APDUs."""

RF_SETTINGS: Final = (
    b"\x02\x00\x0b\x0a",  # timings, as at power-up: 102.4 ms for ATR_RES, 51.2 ms for what has no time of its own
    b"\x05\x00\x01\x02",  # retries: no ATR_REQ, one PSL_REQ, and a card is called three times in each poll
)
FIELD_OFF: Final = b"\x01\x00"
ANY_APPLICATION: Final = b"\x00"
"""The AFI with which type B is polled."""
PRESENCE_TEST: Final = b"\x06"
"""Diagnose, test 6: whether the card still answers (section 7.2.1)."""

POLL_PAUSE: Final = 0.4
"""Seconds between two polls: a person holds a card for longer, and a processor that serves one poll, some 1.3 ms
of it when busy, spends less than half a percent on it."""

POLL_TIMEOUT: Final = 1.0
"""Seconds for a poll: anticollision, and activation of a card that takes its time (ISO/IEC 14443-4: 65 ms)."""

EXCHANGE_TIMEOUT: Final = 10.0
"""Seconds for an APDU: a card may take 4.9 for one block (FWI 14), and ask for more time. The chip tells earlier
when the card is gone."""

GOODBYE: Final = 0.3
"""Seconds for the field to be switched off when nobody waits any more; a line that takes longer is left alone."""

DATA_LIMIT: Final = frames.PAYLOAD_LIMIT - 3
"""Bytes of an APDU in one InDataExchange; what is longer goes in pieces."""

HOME_BAUD: Final = "115200"
"""The chip's speed at power-up."""

LEFT_AT: Final = (921600, 460800, 230400)
"""Speeds at which a chip may have been left: whoever asks for another wants a faster one."""

_AGAIN: Final = "Present the card again, and leave it until it is done."
_GONE: Final = frozenset((0x01, 0x27, 0x29, 0x2B))
"""Error codes that mean that no card is there, or not the same."""
_ILL: Final = frozenset((0x0A, 0x0D, 0x2D))
"""Error codes that mean the reader itself."""


class Pn532Reader(Reader):
    """``pn532://``: see the module. ``chip_baud`` is for a serial port of this machine.

    A card that was read counts again after it was away from the field, which is noticed while a card is waited for.
    Until then it is not there: the card of the customer before, left on the reader, pays for nobody else.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "chip_baud": (HOME_BAUD, *(str(baud) for baud in frames.BAUD_CODES if str(baud) != HOME_BAUD))
    }
    LINE: ClassVar[Mapping[str, str]] = {"baud": HOME_BAUD}

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        local = "://" not in address.line
        self._may_stray = local and address.options.get("baud", HOME_BAUD) == HOME_BAUD
        self._strayed = False  # the line is at a speed where the chip is looked for
        if self.options["chip_baud"] != HOME_BAUD and not local:
            raise BadAddress(f"{self.url}: chip_baud is for a serial port of this machine, not for a network")
        self._chip: Chip | None = None
        self._card: Pn532Card | None = None
        self._known: frozenset[bytes] = frozenset()  # what was in the field when it was last told of
        self._inserted = False  # of which CardInserted was said, and CardRemoved not yet
        self.firmware = ""

    @property
    def capabilities(self) -> Capabilities:
        """Contactless chips, in the clear."""
        return Capabilities(contactless=True)

    async def _start(self, link: Link) -> None:
        self._chip = None
        chip = Chip(link, counts=self.statistics, tracer=self.tracer)
        await self._wake(chip, link)
        version = await chip.ask(frames.GET_FIRMWARE_VERSION)
        if len(version) != 4 or version[0] != IC:
            raise ProtocolError(f"{self.url}: it answers, and is no PN532")
        self.firmware = f"PN532 {version[1]}.{version[2]}"
        await chip.set_parameters(PARAMETERS)
        for setting in RF_SETTINGS:
            await chip.ask(frames.RF_CONFIGURATION, setting)
        self._chip = chip

    async def _wake(self, chip: Chip, link: Link) -> None:
        """Find the chip at the speed where it is, and take it to the one where it shall be."""
        wanted = int(self.options["chip_baud"])
        if wanted == int(HOME_BAUD):
            if self._strayed:
                await chip.follow_baud(int(HOME_BAUD))
                self._strayed = False
            try:
                await chip.wake()
            except NoAnswer:
                if not self._may_stray or not await self._called_home(chip):
                    raise
            return
        await link.change_baud(wanted)  # before the chip does: this end may not be able to
        await link.change_baud(int(HOME_BAUD))
        try:
            await chip.wake()
        except NoAnswer:  # left there by somebody who did not say goodbye
            await chip.follow_baud(wanted)
            await chip.wake()
        else:
            await chip.change_baud(wanted)

    async def _called_home(self, chip: Chip) -> bool:
        """Whether it was at a speed where somebody left it who asked for that, and was killed."""
        self._strayed = True
        for baud in LEFT_AT:
            try:
                await chip.follow_baud(baud)
                await chip.wake(again=True)
            except LineGone:
                raise
            except (LineError, NotSupported):  # NoAnswer, or a line that does not go so fast
                continue
            await chip.change_baud(int(HOME_BAUD))
            self._strayed = False
            return True
        await chip.follow_baud(int(HOME_BAUD))
        self._strayed = False
        return False

    async def close(self) -> None:
        """See Reader; the field goes off, and the chip back to its own speed."""
        chip, self._chip = self._chip, None
        if chip is not None and not self._lost and not chip.busy:
            await self._part(chip, home=self.options["chip_baud"] != HOME_BAUD)
        self._card = None
        await super().close()

    async def _part(self, chip: Chip, *, home: bool = False) -> None:
        with suppress(ReaderError, TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await chip.ask(frames.RF_CONFIGURATION, FIELD_OFF)
                if home:
                    await chip.change_baud(int(HOME_BAUD))

    async def _next_card(self, link: Link) -> Pn532Card:
        if self._card is not None:
            await self._card.release()
        if self._chip is not None:
            with suppress(NoAnswer):  # it lost its power for a moment, and sleeps
                return await self._watch(self._chip)
        await self._start(link)
        assert self._chip is not None
        return await self._watch(self._chip)

    async def _watch(self, chip: Chip) -> Pn532Card:
        """Poll until a card is there that was not; a chip that says nothing, or nonsense, is to be woken anew."""
        try:
            while True:
                targets = await self._poll(chip)
                if not targets:
                    self._away()
                elif (found := frozenset(_identity(one) for one in targets)) != self._known:
                    self._away()
                    self._known = found
                    return self._take(chip, targets)
                else:
                    # Without it a card that was called stays mute.
                    await chip.ask(frames.RF_CONFIGURATION, FIELD_OFF)
                await asyncio.sleep(POLL_PAUSE)
        except LineGone:
            raise
        except (NoAnswer, ProtocolError):
            self._chip = None
            raise
        except BaseException:
            await self._part(chip)
            raise

    async def _poll(self, chip: Chip) -> tuple[Target, ...]:
        """The cards in the field, of both types: one of each is two cards (EMV Contactless Book D, section 9.2).

        The chip can be asked for one type at a time, and is left with those of the last. That is type A, as most
        cards are; one of type B is called again from the beginning.
        """
        b = await self._call(chip, TYPE_B, ANY_APPLICATION)
        a = await self._call(chip, TYPE_A)
        if a or not b:
            return (*b, *a)
        await chip.ask(frames.RF_CONFIGURATION, FIELD_OFF)
        return await self._call(chip, TYPE_B, ANY_APPLICATION)

    async def _call(self, chip: Chip, kind: int, data: bytes = b"") -> tuple[Target, ...]:
        request = bytes((MAX_TARGETS, kind)) + data
        answer = await chip.ask(frames.IN_LIST_PASSIVE_TARGET, request, timeout=POLL_TIMEOUT)
        return parse_targets(kind, answer)

    def _take(self, chip: Chip, targets: tuple[Target, ...]) -> Pn532Card:
        if len(targets) > 1:
            raise CardError(f"{self.url}: there are two cards in the field", advice="Present one card alone.")
        target = targets[0]
        if not target.answer:
            raise CardError(
                f"{self.url}: this is no payment card", advice="Present a card with the contactless sign."
            )
        self._inserted = True
        self._card = Pn532Card(self, chip, target)
        self.on_event(CardInserted(url=self.url))
        return self._card

    def _away(self) -> None:
        """What was in the field is not any more."""
        self._known = frozenset()
        if self._inserted:
            self._inserted = False
            self.on_event(CardRemoved(url=self.url))

    async def _hung_up(self) -> None:
        self._card = None
        self._known = frozenset()  # it was not done with, and counts when the reader is back
        await self._mourn()

    async def _let_go(self, chip: Chip, card: Pn532Card) -> None:
        if self._card is not card:
            return
        self._card = None
        try:
            await chip.ask(frames.IN_RELEASE, b"\x00")
            await chip.ask(frames.RF_CONFIGURATION, FIELD_OFF)
        except LineGone:
            await self._mourn()
        except (LineError, ProtocolError):  # it is woken anew before the next card
            self._chip = None

    def _holds(self, card: Pn532Card) -> bool:
        return self._card is card


def _identity(target: Target) -> bytes:
    """What a card is known by: its UID, unless it makes up another each time that it is called.

    Type A says so by a first byte of 08 (ISO/IEC 14443-3, 6.5.4). Type B may do so without a word (7.9.2), and is
    known by what else it says of itself.
    """
    if target.kind == TYPE_B:
        return target.answer[5:]
    made_up = len(target.uid) == 4 and target.uid[0] == 0x08
    return target.uid[:1] if made_up else target.uid


class Pn532Card(ChipCard):
    """A card in the field of a PN532, until it is taken away or released, or the next is waited for."""

    def __init__(self, reader: Pn532Reader, chip: Chip, target: Target) -> None:
        super().__init__(EntryMode.CONTACTLESS, target.answer, target.uid)
        self._reader, self._chip, self._number = reader, chip, target.number

    async def is_present(self) -> bool:
        """Whether the card still answers; False once it was released. Raises LineGone and NoAnswer."""
        if not self._reader._holds(self):
            return False
        status = await self._asked(frames.DIAGNOSE, PRESENCE_TEST)
        return status[:1] == b"\x00"

    async def release(self) -> None:
        """See ChipCard; the field goes off."""
        await self._reader._let_go(self._chip, self)

    async def _exchange(self, command: bytes) -> bytes:
        if not self._reader._holds(self):
            raise CardGone(f"{self._reader.url}: the card was let go of")
        *pieces, last = (command[at : at + DATA_LIMIT] for at in range(0, len(command), DATA_LIMIT))
        for piece in pieces:
            await self._send(self._number | frames.MORE, piece)
        response, more = await self._send(self._number, last)
        while more:
            data, more = await self._send(self._number, b"")
            response += data
            if not data or len(response) > MAX_RESPONSE:
                raise CardError(f"{self._reader.url}: the card's answer has no end", advice=_AGAIN)
        return response

    async def _send(self, target: int, data: bytes) -> tuple[bytes, bool]:
        """One InDataExchange: what came, and whether there is more."""
        answer = await self._asked(frames.IN_DATA_EXCHANGE, bytes((target,)) + data, EXCHANGE_TIMEOUT)
        if not answer:
            raise ProtocolError(f"{self._reader.url}: an answer without a status")
        error = answer[0] & frames.STATUS
        if error in _GONE:
            self._reader._away()
            raise CardGone(f"{self._reader.url}: the card was taken away")
        if error:
            what = frames.STATUSES.get(error, f"error {error:02X}")
            if error in _ILL:
                raise ProtocolError(
                    f"{self._reader.url}: the reader reports {what}", advice="Let it rest, unpowered."
                )
            raise CardError(f"{self._reader.url}: the card could not be understood ({what})", advice=_AGAIN)
        return answer[1:], bool(answer[0] & frames.MORE)

    async def _asked(self, code: int, data: bytes, timeout: float = POLL_TIMEOUT) -> bytes:
        try:
            return await self._chip.ask(code, data, timeout=timeout, once=True)
        except LineGone:
            await self._reader._hung_up()
            raise
