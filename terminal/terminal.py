"""The terminal: the one object that a caller holds.

settings = load(Path("~/.till").expanduser())
async with Terminal.open(settings) as till:
    await till.activate()
    payment = await till.charge(Amount(1250, "EUR"), reference="order-17")
    if payment.state is State.APPROVED:
        await till.refund(payment.charge_id, Amount(500, "EUR"), reason="one returned")
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hw.card import Card, ManualCard
from hw.errors import CardError, FramingError, TimedOut
from hw.reader import Reader, open_reader
from terminal import activation, guard
from terminal.climb import CONFIG, Climb
from terminal.clock import RELEASED, HostClock, Now, Random, system_now, system_random, system_steady
from terminal.config import Config, parse_config
from terminal.crypto import policy
from terminal.crypto.keyblock import Tolerance
from terminal.crypto.keystore import KeyFacts, Keystore
from terminal.crypto.vault import Secret, Vault
from terminal.disk import REAL, Disk
from terminal.errors import AmountError, KeystoreError, NotReady, PaymentRefused, SettingsError
from terminal.events import CardRead, CardRefused, CardWanted, Event, EventStream
from terminal.exchange import Exchange
from terminal.home import JOURNAL_ID, VAULT_FILE, find_secret
from terminal.hosts.viopay_wire import Card as CardFields
from terminal.hosts.viopay_wire import charge_request, refund_request
from terminal.journal import Journal, SealedRequest
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.money import Amount
from terminal.payment import UNRESOLVED, WITHOUT_EFFECT, Kind, Payment, State
from terminal.settings import Settings
from terminal.turn import Turn

if TYPE_CHECKING:
    import httpx


class Terminal:
    """See the module; made by ``open``. One payment at a time: a second call waits for the first."""

    def __init__(
        self,
        settings: Settings,
        *,
        vault: Vault,
        keystore: Keystore,
        journal: Journal,
        clock: HostClock,
        random: Random,
        climb: Climb,
        exchange: Exchange,
        events: EventStream,
        reader: Reader | None,
        stack: AsyncExitStack,
    ) -> None:
        self.settings, self.journal = settings, journal
        self._vault, self._keystore, self._clock, self._random = vault, keystore, clock, random
        self._climb, self._exchange, self._events = climb, exchange, events
        self._reader, self._stack = reader, stack
        self._turn = Turn()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        secret: Secret | None = None,
        now: Now = system_now,
        random: Random = system_random,
        transport: httpx.AsyncBaseTransport | None = None,
        reader: Reader | None = None,
        journal: Journal | None = None,
        disk: Disk = REAL,
    ) -> AsyncIterator[Terminal]:
        """The terminal whose home is ``settings.home``, until the block ends.

        ``secret`` opens the vault (else ``home.find_secret``). The rest is what the world hands in: the time,
        randomness, the HTTP transport, the reader (else ``settings.reader``, opened when first needed), the
        journal, the disk. Raises KeystoreError, JournalError or SettingsError.
        """
        from terminal.hosts.http import HostSession
        from terminal.hosts.viopay import ViopayClient

        home = Path(settings.home)
        secret = secret or find_secret(settings, os.environ)
        if secret is None:
            raise KeystoreError(
                "nothing was given that opens the vault",
                advice="Set TILL_PASSPHRASE, or the setting credentials_file.",
            )
        async with AsyncExitStack() as stack:
            vault = stack.enter_context(Vault.open(home / VAULT_FILE, secret, random=random, disk=disk))
            guard.check_zmk(settings, vault.facts)
            blocks, keys = _tolerances(settings)
            keystore = Keystore(vault, random, tolerances=blocks, tolerated=keys)
            if journal is None:
                journal = Journal.open(home / JOURNAL_FILE, vault.facts[JOURNAL_ID], disk=disk)
                stack.callback(journal.close)
            events = EventStream()
            stack.callback(events.close)
            steady = system_steady if now is system_now else asyncio.get_running_loop().time
            step = timedelta(seconds=settings.clock_step)
            clock = HostClock(now, steady=steady, floor=RELEASED, step=step)
            session = await stack.enter_async_context(
                HostSession(settings.host, transport=transport, random=random)
            )
            client = ViopayClient(session, keystore, clock, random, settings.host)
            climb = Climb(client, keystore, vault, clock, settings, events.emit)
            exchange = Exchange(client, journal, clock, settings, events.emit, climb)
            yield cls(
                settings,
                vault=vault,
                keystore=keystore,
                journal=journal,
                clock=clock,
                random=random,
                climb=climb,
                exchange=exchange,
                events=events,
                reader=reader,
                stack=stack,
            )

    # -- what a caller asks ---------------------------------------------------------------------------------

    @property
    def level(self) -> activation.Level:
        """Where the terminal stands, on disk."""
        return self._climb.level

    @property
    def config(self) -> Config | None:
        """What the host told this terminal to be; None before it is configured."""
        kept = self._vault.get(CONFIG)
        return parse_config(kept) if kept is not None else None

    def events(self) -> AsyncIterator[Event]:
        """What happens from now on, until the terminal is closed."""
        return self._events.listen()

    def key_facts(self) -> list[KeyFacts]:
        """What is known of the keys, without the keys."""
        return self._keystore.facts()

    async def activate(self) -> None:
        """Climb from wherever the terminal stands to ``activated``; nothing to do when it is.

        Raises HostError, CryptoError, VersionTooOld; the level that was reached stays.
        """
        async with self._turn:
            await self._climb.climb()

    async def charge(
        self,
        amount: Amount,
        *,
        reference: str,
        card: ManualCard | None = None,
        pin: str | None = None,
        tip: Amount | None = None,
    ) -> Payment:
        """Take ``amount`` (which includes ``tip``) from a card: from the reader, or typed in as ``card``.

        A reference is charged once: asked again with the same amount, the payment that it has is given back,
        or gone on with where its outcome is not known. The payment's state says what came of it: approved,
        declined, pending, or in_doubt, which ``resolve`` goes on with.

        Raises PaymentRefused (same reference, another amount), AmountError, NotReady, LiveGuardError,
        HostUnreachable (no money moved), HostRefused (nor here), ReaderError, JournalError.
        """
        async with self._turn:
            standing = self._standing(reference, amount)
            if standing is not None:
                return await self._exchange.again(standing) if standing.state in UNRESOLVED else standing
            self._check_amount(amount)
            await self._be_ready()
            read = card or await self._wait_for_card(amount, reference)
            self._guard(read, pin)
            self._events.emit(
                CardRead(at=self._clock.now(), masked_pan=read.masked_pan, entry_mode=read.entry_mode)
            )

            def seal() -> SealedRequest:
                block = self._keystore.pin_block(pin, read.pan) if pin is not None else None
                sealed = self._sealed_card(read)
                return self._seal(charge_request(amount, read.entry_mode, reference, sealed, pin=block, tip=tip))

            payment = self._payment(Kind.CHARGE, amount, reference=reference)
            return await self._exchange.first(
                replace(payment, entry_mode=read.entry_mode, masked_pan=read.masked_pan), seal
            )

    async def refund(self, charge_id: str, amount: Amount | None = None, *, reason: str) -> Payment:
        """Give back ``amount`` of an approved charge, or all that is left of it.

        Raises PaymentRefused for a charge that is not ours or not approved, or for more than is left.
        """
        async with self._turn:
            charge = self._charge(charge_id)
            wanted = amount.minor if amount else charge.left
            if amount and amount.currency != charge.amount.currency:
                raise PaymentRefused(
                    f"charge {charge_id} was in {charge.amount.currency}, not in {amount.currency}"
                )
            if not charge.left:
                raise PaymentRefused(f"charge {charge_id} is {_words(charge)}: there is nothing to give back")
            if wanted > charge.left:
                left = Amount(charge.left, charge.amount.currency)
                raise PaymentRefused(
                    f"{left} is left of charge {charge_id}, and {amount} was asked for",
                    advice="Refund at most what is left.",
                )
            if (unknown := self._unresolved(charge, Kind.REFUND)) is not None:
                if unknown.amount.minor != wanted:
                    raise PaymentRefused(
                        f"the outcome of a refund of {unknown.amount} of charge {charge_id} is not known yet",
                        advice="Ask for that refund again to learn it, then for this one.",
                    )
                return await self._exchange.again(unknown)
            await self._be_ready()
            given_back = Amount(wanted, charge.amount.currency)
            payment = self._payment(Kind.REFUND, given_back, reference=reason, charge=charge)
            return await self._exchange.first(payment, lambda: self._seal(refund_request(given_back, reason)))

    async def cancel(self, charge_id: str) -> Payment:
        """Void a charge before settlement; asked again, the cancel that it has is given back.

        Raises PaymentRefused for a charge that is not ours, HostRefused after settlement (then refund).
        """
        async with self._turn:
            charge = self._charge(charge_id)
            for earlier in self.journal.concerning(charge):
                if earlier.kind is Kind.CANCEL and earlier.state is State.APPROVED:
                    return earlier
            if (unknown := self._unresolved(charge, Kind.CANCEL)) is not None:
                return await self._exchange.again(unknown)
            if charge.state not in (State.APPROVED, State.PENDING):
                raise PaymentRefused(f"charge {charge_id} is {_words(charge)}: there is nothing to cancel")
            if (unknown := self._unresolved(charge, Kind.REFUND)) is not None:
                raise PaymentRefused(
                    f"the outcome of a refund of {unknown.amount} of charge {charge_id} is not known yet",
                    advice="Ask for that refund again to learn it, then cancel.",
                )
            await self._be_ready()
            payment = self._payment(Kind.CANCEL, charge.approved or charge.amount, charge=charge)
            return await self._exchange.first(payment, None)

    async def resolve(self) -> list[Payment]:
        """Go on with every payment whose outcome is not known, oldest first; the payments as they stand then."""
        async with self._turn:
            await self._be_ready()
            return [await self._exchange.again(payment) for payment in self.journal.unresolved()]

    # -- below ----------------------------------------------------------------------------------------------

    def _standing(self, reference: str, amount: Amount) -> Payment | None:
        known = self.journal.charge_by_reference(reference)
        if known is None or known.state in WITHOUT_EFFECT:
            return None
        if known.amount != amount:
            raise PaymentRefused(
                f"reference {reference!r} stands for a charge of {known.amount}, not of {amount}",
                advice="Use a new reference for a new payment.",
            )
        return known

    def _charge(self, charge_id: str) -> Payment:
        charge = self.journal.charge_by_charge_id(charge_id)
        if charge is None:
            raise PaymentRefused(
                f"this terminal has taken no charge {charge_id!r}", advice="`till journal` lists its charges."
            )
        return charge

    def _unresolved(self, charge: Payment, kind: Kind) -> Payment | None:
        found = [p for p in self.journal.concerning(charge) if p.kind is kind and p.state in UNRESOLVED]
        return found[0] if found else None

    def _check_amount(self, amount: Amount) -> None:
        limit = self.settings.max_amounts.get(amount.currency)
        if limit is not None and amount.minor > limit:
            raise AmountError(
                f"{amount} is above this terminal's limit of {Amount(limit, amount.currency)}",
                advice="The limit is the setting max_amounts.",
            )

    async def _be_ready(self) -> None:
        if (problem := self._climb.not_ready()) is not None:
            raise problem
        expires_at = self._keystore.key_set_expires_at
        if expires_at is not None and expires_at <= self._clock.now():
            await self._climb.renew_keys()
        self._climb.tidy()

    async def _wait_for_card(self, amount: Amount, reference: str) -> Card:
        reader = await self._open_reader()
        if not reader.capabilities.encrypts and not (
            self.settings.host.loopback or self.settings.lab.clear_card_data_on_live_host
        ):
            guard.check_card(self.settings, "")
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.card_timeout
        self._events.emit(CardWanted(at=self._clock.now(), amount=amount, reference=reference))
        while True:
            try:
                return await reader.wait_for_card(timeout=max(0.0, until - loop.time()))
            except TimedOut:
                raise
            except (CardError, FramingError) as error:
                self._events.emit(CardRefused(at=self._clock.now(), reason=str(error)))

    async def _open_reader(self) -> Reader:
        if self._reader is None:
            if self.settings.reader is None:
                raise SettingsError(
                    "no reader is set, and no card was typed in",
                    advice="Set `reader`, as magstripe:///dev/ttyUSB0, or pass --reader or --manual.",
                )
            self._reader = await self._stack.enter_async_context(open_reader(self.settings.reader))
        return self._reader

    def _guard(self, read: Card, pin: str | None) -> None:
        guard.check_card(self.settings, read.pan)
        if pin is not None:
            guard.check_pin(self.settings, read.pan)

    def _sealed_card(self, read: Card) -> CardFields:
        if isinstance(read, ManualCard):
            pan = self._keystore.seal_card(read.pan.encode("ascii"))
            return CardFields(masked_pan=read.masked_pan, expiry=read.expiry, pan=pan)
        track2 = self._keystore.seal_card(read.track2_equivalent())
        return CardFields(masked_pan=read.masked_pan, expiry=read.expiry, track2=track2)

    def _seal(self, plaintext: bytes) -> SealedRequest:
        key_set_id = self._keystore.key_set_id
        if key_set_id is None:
            raise NotReady("the terminal holds no keys")
        return SealedRequest(key_set_id, self._keystore.seal(plaintext, key_set_id))

    def _payment(
        self, kind: Kind, amount: Amount, *, reference: str = "", charge: Payment | None = None
    ) -> Payment:
        return Payment(
            id=self._random(16).hex(),
            kind=kind,
            reference=reference,
            amount=amount,
            parent=charge.id if charge else "",
            charge_id=charge.charge_id if charge else "",
            created_at=self._clock.now(),
        )


def _words(payment: Payment) -> str:
    return payment.state.value.replace("_", " ")


def _tolerances(settings: Settings) -> tuple[Tolerance, policy.Tolerated]:
    """The named tolerances of ``keys.tolerate``; raises SettingsError for a name that is none."""
    blocks, keys = Tolerance.STRICT, policy.DEFAULT
    for name in settings.keys.tolerate:
        if name.upper() in Tolerance.__members__:
            blocks |= Tolerance[name.upper()]
        elif name.upper() in policy.Tolerated.__members__:
            keys |= policy.Tolerated[name.upper()]
        else:
            known = sorted(n.lower() for n in (*Tolerance.__members__, *policy.Tolerated.__members__))
            raise SettingsError(f"keys.tolerate: {name!r} is none of {', '.join(known)}")
    return blocks, keys
