"""The shopper's card: waited for, read, guarded, sealed, and known again only by a keyed hash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Final

from msgspec import UNSET, UnsetType

from hw import tlv
from hw.card import ChipCard, EntryMode, ManualCard, ResultCard, SealedCard, StripeCard
from hw.errors import CardError, FramingError, TimedOut
from hw.pan import check_expiry
from hw.reader import Reader, Sale, open_reader
from terminal import guard
from terminal.clock import HostClock, Random
from terminal.config import Config
from terminal.crypto.keystore import Keystore
from terminal.emv import select
from terminal.emv.read import CardData, read
from terminal.emv.terminal_data import UNPREDICTABLE_BYTES, TerminalData, terminal_data
from terminal.errors import NotReady, PaymentRefused, SettingsError
from terminal.events import CardRead, CardRefused, CardWanted, Event
from terminal.hosts.viopay_wire import Card as CardFields
from terminal.hosts.viopay_wire import charge_request, refund_request
from terminal.journal import SealedRequest
from terminal.money import Amount, exponent, number
from terminal.payment import Payment
from terminal.settings import Settings

ReadCard = StripeCard | ManualCard | CardData | ResultCard | SealedCard
"""A card of which everything is known that will be."""

CHIP_READ: Final = 20.0
"""Seconds for a chip to be read: a slow contact card takes five, and nobody holds one up for longer than this."""

STAY: Final = {
    EntryMode.CHIP: "Insert the card again, and leave it in until it is done.",
    EntryMode.CONTACTLESS: "Hold the card to the reader again, until it is done.",
}


class Cards:
    """Reads cards, and seals what they are in. ``reader``: else ``settings.reader``, opened when first needed.

    ``config`` gives what the host told this terminal to be; ``random`` makes what a card is to find unpredictable.
    """

    def __init__(
        self,
        settings: Settings,
        keystore: Keystore,
        clock: HostClock,
        random: Random,
        emit: Callable[[Event], None],
        reader: Reader | None,
        stack: AsyncExitStack,
        config: Callable[[], Config | None],
    ) -> None:
        self._settings, self._keystore, self._clock, self._emit = settings, keystore, clock, emit
        self._random, self._config, self._reader, self._stack = random, config, reader, stack

    async def read(self, amount: Amount, reference: str, *, typed: ManualCard | None, pin: str | None) -> ReadCard:
        """The card that was typed, or the next that is presented; raises ReaderError, LiveGuardError."""
        card = typed or await self.wait(amount, reference)
        if not isinstance(card, SealedCard):
            guard.check_card(self._settings, card.pan)
            if pin is not None:
                guard.check_pin(self._settings, card.pan)
        elif pin is not None:
            raise PaymentRefused(
                "a PIN that is typed here cannot go with a card number that the reader keeps to itself",
                advice="Charge without a PIN, or with a reader that asks for it by itself.",
            )
        self._emit(CardRead(at=self._clock.now(), masked_pan=card.masked_pan, entry_mode=card.entry_mode))
        return card

    async def wait(self, amount: Amount, reference: str) -> ReadCard:
        """The next card that can be read, presented within ``card_timeout``."""
        reader = await self._open_reader()
        guard.check_reader(self._settings, encrypts=reader.capabilities.encrypts)
        sale = Sale(amount.minor, number(amount.currency), exponent(amount.currency))
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.card_timeout
        self._emit(CardWanted(at=self._clock.now(), amount=amount, reference=reference))
        while True:
            try:
                card = await reader.wait_for_card(timeout=max(0.0, until - loop.time()), sale=sale)
                return await self._read_chip(card, amount) if isinstance(card, ChipCard) else card
            except TimedOut:
                raise
            except (CardError, FramingError) as error:
                self._emit(CardRefused(at=self._clock.now(), reason=str(error), advice=error.advice))

    def known_by(self, card: ReadCard) -> str:
        """The keyed hash by which the card is known again; empty where its number is all hidden.

        Of one whose number the reader keeps to itself, what is shown has to do: enough for a suspicion.
        """
        if not isinstance(card, SealedCard):
            return self._keystore.card_hash(card.pan)
        shown = f"{card.masked_pan} {card.expiry}"
        return self._keystore.card_hash(shown) if card.masked_pan[-4:].isdigit() else ""

    def charge(
        self,
        payment: Payment,
        card: ReadCard,
        *,
        pin: str | None = None,
        tip: Amount | None = None,
        offline_approved_at: datetime | None = None,
    ) -> SealedRequest:
        """The request of a charge, sealed under the key set in use."""
        block = None
        if pin is not None and not isinstance(card, SealedCard):
            block = self._keystore.pin_block(pin, card.pan)
        return self._seal(
            charge_request(
                payment.amount,
                card.entry_mode,
                payment.reference,
                self._sealed(card),
                pin=block,
                tip=tip,
                offline_approved_at=offline_approved_at,
            )
        )

    def refund(self, payment: Payment) -> SealedRequest:
        """The request of a refund, sealed."""
        return self._seal(refund_request(payment.amount, payment.reference))

    # -- below ----------------------------------------------------------------------------------------------

    async def _open_reader(self) -> Reader:
        if self._reader is None:
            if self._settings.reader is None:
                raise SettingsError(
                    "no reader is set, and no card was typed in",
                    advice="Set `reader`, as magstripe:///dev/ttyUSB0, or pass --reader or --manual.",
                )
            self._reader = await self._stack.enter_async_context(open_reader(self._settings.reader))
        return self._reader

    async def _read_chip(self, chip: ChipCard, amount: Amount) -> CardData:
        """What a chip has to say; it is let go of whatever happens."""
        unpredictable = self._random(UNPREDICTABLE_BYTES)
        told = terminal_data(self._config(), amount, self._clock.now(), unpredictable)
        try:
            async with asyncio.timeout(CHIP_READ):
                return await _asked(chip, told)
        except TimeoutError:
            late = f"the card was not read within {CHIP_READ:g} seconds"
            raise CardError(late, advice=STAY[chip.entry_mode]) from None
        finally:
            await chip.release()

    def _sealed(self, card: ReadCard) -> CardFields:
        if isinstance(card, ManualCard):
            pan = self._keystore.seal_card(card.pan.encode("ascii"))
            return CardFields(masked_pan=card.masked_pan, expiry=card.expiry, pan=pan)
        if isinstance(card, SealedCard):
            return _passed_through(card)
        track2 = self._keystore.seal_card(card.track2_equivalent())
        sequence = card.sequence if isinstance(card, CardData) and card.sequence else UNSET
        return CardFields(masked_pan=card.masked_pan, expiry=card.expiry, sequence=sequence, track2=track2)

    def _seal(self, plaintext: bytes) -> SealedRequest:
        key_set_id = self._keystore.key_set_id
        if key_set_id is None:
            raise NotReady("the terminal holds no keys")
        return SealedRequest(key_set_id, self._keystore.seal(plaintext, key_set_id))


def application_of(card: ReadCard) -> bytes:
    """The AID of the application that pays; empty without a chip, and where the reader does not tell."""
    if isinstance(card, CardData):
        return card.aid
    if not isinstance(card, ResultCard | SealedCard):
        return b""
    try:
        found = select.candidate(tlv.parse(card.tags))
    except CardError:
        return b""
    return found.aid if found else b""


async def _asked(chip: ChipCard, told: TerminalData) -> CardData:
    asking = read(chip.entry_mode, told)
    command = next(asking)
    while True:
        response = await chip.transmit(command)
        try:
            command = asking.send(response)
        except StopIteration as done:
            card: CardData = done.value
            return card


def _passed_through(card: SealedCard) -> CardFields:
    """What a reader has encrypted by itself, unopened. An expiry that it shows and that is none is left out."""
    try:
        check_expiry(card.expiry)
    except CardError:
        expiry: str | UnsetType = UNSET
    else:
        expiry = card.expiry
    encrypted = {"scheme": card.scheme, "ksn": card.ksn.hex().upper(), "data": card.data.hex().upper()}
    return CardFields(masked_pan=card.masked_pan, expiry=expiry, encrypted_card=encrypted)
