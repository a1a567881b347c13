"""The shopper's card: read, guarded, sealed, and known again only by a keyed hash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime

from hw.card import Card, ManualCard
from hw.errors import CardError, FramingError, TimedOut
from hw.reader import Reader, open_reader
from terminal import guard
from terminal.clock import HostClock
from terminal.crypto.keystore import Keystore
from terminal.errors import NotReady, SettingsError
from terminal.events import CardRead, CardRefused, CardWanted, Event
from terminal.hosts.viopay_wire import Card as CardFields
from terminal.hosts.viopay_wire import charge_request, refund_request
from terminal.journal import SealedRequest
from terminal.money import Amount
from terminal.payment import Payment
from terminal.settings import Settings


class Cards:
    """Reads cards, and seals what they are in. ``reader``: else ``settings.reader``, opened when first needed."""

    def __init__(
        self,
        settings: Settings,
        keystore: Keystore,
        clock: HostClock,
        emit: Callable[[Event], None],
        reader: Reader | None,
        stack: AsyncExitStack,
    ) -> None:
        self._settings, self._keystore, self._clock, self._emit = settings, keystore, clock, emit
        self._reader, self._stack = reader, stack

    async def read(self, amount: Amount, reference: str, *, typed: ManualCard | None, pin: str | None) -> Card:
        """The card that was typed, or the next that is presented; raises ReaderError, LiveGuardError."""
        card = typed or await self.wait(amount, reference)
        guard.check_card(self._settings, card.pan)
        if pin is not None:
            guard.check_pin(self._settings, card.pan)
        self._emit(CardRead(at=self._clock.now(), masked_pan=card.masked_pan, entry_mode=card.entry_mode))
        return card

    async def wait(self, amount: Amount, reference: str) -> Card:
        """The next card that can be read, within ``card_timeout``."""
        reader = await self._open_reader()
        if not reader.capabilities.encrypts and not (
            self._settings.host.loopback or self._settings.lab.clear_card_data_on_live_host
        ):
            guard.check_card(self._settings, "")
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.card_timeout
        self._emit(CardWanted(at=self._clock.now(), amount=amount, reference=reference))
        while True:
            try:
                return await reader.wait_for_card(timeout=max(0.0, until - loop.time()))
            except TimedOut:
                raise
            except (CardError, FramingError) as error:
                self._emit(CardRefused(at=self._clock.now(), reason=str(error)))

    def charge(
        self,
        payment: Payment,
        card: Card,
        *,
        pin: str | None = None,
        tip: Amount | None = None,
        offline_approved_at: datetime | None = None,
    ) -> SealedRequest:
        """The request of a charge, sealed under the key set in use."""
        block = self._keystore.pin_block(pin, card.pan) if pin is not None else None
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

    def _sealed(self, card: Card) -> CardFields:
        if isinstance(card, ManualCard):
            pan = self._keystore.seal_card(card.pan.encode("ascii"))
            return CardFields(masked_pan=card.masked_pan, expiry=card.expiry, pan=pan)
        track2 = self._keystore.seal_card(card.track2_equivalent())
        return CardFields(masked_pan=card.masked_pan, expiry=card.expiry, track2=track2)

    def _seal(self, plaintext: bytes) -> SealedRequest:
        key_set_id = self._keystore.key_set_id
        if key_set_id is None:
            raise NotReady("the terminal holds no keys")
        return SealedRequest(key_set_id, self._keystore.seal(plaintext, key_set_id))
