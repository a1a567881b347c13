"""The terminal: the one object that a caller holds.

settings = load(Path("~/.till").expanduser())
async with Terminal.open(settings) as till:
    await till.activate()
    payment = await till.charge(Amount(1250, "EUR"), reference="order-17")
    if payment.outcome is Outcome.PENDING:
        payment = await till.outcome(payment.id)
    if payment.state is State.APPROVED:
        await till.refund(payment.charge_id, Amount(500, "EUR"), reason="one returned")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from hw.card import ManualCard
from hw.reader import Reader
from terminal import activation, finding
from terminal.assembly import Parts, assembled
from terminal.clock import Now, Random, system_now, system_random
from terminal.config import Config
from terminal.crypto.keystore import KeyFacts
from terminal.crypto.vault import Secret
from terminal.disk import REAL, Disk
from terminal.errors import HostRefused, NotReady, PaymentRefused, TillError
from terminal.events import Event
from terminal.fetching import kept_config
from terminal.journal import Journal, SealedRequest
from terminal.money import Amount
from terminal.payment import UNRESOLVED, Happened, Kind, Outcome, Payment, State
from terminal.settings import Settings

if TYPE_CHECKING:
    import httpx

    from terminal.comparison import Reconciliation

GONE_ON_WITH = UNRESOLVED | {State.REVERSING}
"""Asked for again, a charge in one of these is gone on with at once."""


class Terminal:
    """See the module; made by ``open``. One payment at a time: a second call waits for the first."""

    def __init__(self, parts: Parts) -> None:
        self.settings, self.journal, self.resolver = parts.settings, parts.journal, parts.resolver
        self._vault, self._keystore, self._clock = parts.vault, parts.keystore, parts.clock
        self._climb, self._exchange, self._events = parts.climb, parts.exchange, parts.events
        self._presence, self._cards, self._turn = parts.presence, parts.cards, parts.turn
        self._keeping, self._be_ready, self._new_charges = parts.keeping, parts.be_ready, parts.new_charges

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
        async with assembled(settings, secret, now, random, transport, reader, journal, disk) as parts:
            yield cls(parts)

    # -- what a caller asks ---------------------------------------------------------------------------------

    @property
    def level(self) -> activation.Level:
        """Where the terminal stands, on disk."""
        return self._climb.level

    @property
    def config(self) -> Config | None:
        """What the host told this terminal to be; None before it is configured."""
        return kept_config(self._vault)

    def not_ready(self) -> NotReady | None:
        """Why no payment can be taken, and what to do about it; None where the terminal is activated."""
        return self._climb.not_ready()

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

    async def keep(self) -> None:
        """Keep the terminal in order between payments, until cancelled: run it as a task beside them.

        Heartbeats and what they ask for, keys renewed before they end, configuration and parameters looked for
        anew, the host's time followed, the way back climbed after a fall, the journal put in order. A payment that
        comes meanwhile waits ``terminal.turn.PATIENCE`` seconds at most. What goes wrong is an event.
        """
        await self._keeping.run()

    async def charge(
        self,
        amount: Amount,
        *,
        reference: str,
        card: ManualCard | None = None,
        pin: str | None = None,
        tip: Amount | None = None,
        hold: bool = False,
        accept_partial: bool = False,
    ) -> Payment:
        """Take ``amount`` (which includes ``tip``) from a card: from the reader, or typed in as ``card``.

        A reference is charged once: asked again with the same amount, the payment that it has is given back,
        or gone on with where its outcome is not known. ``Payment.outcome`` says what came of it: approved,
        declined, or pending: then ``outcome`` waits for one of the other two.

        ``hold``: an approval waits for ``confirm`` or ``void``, and is undone after ``confirm_within`` seconds. So
        does one for less than was asked, unless ``accept_partial``. Who cancels this call, or asks no more within
        ``shopper_wait`` seconds, has given the payment up: whatever of it exists at the host is undone.

        Raises PaymentRefused (same reference, another amount), AmountError, NotReady, LiveGuardError,
        HostUnreachable (no money moved), HostRefused (nor here), ReaderError, JournalError.
        """
        async with self._still_wanted(reference, amount), self._turn:
            standing = finding.standing(self.journal, reference, amount)
            if standing is not None:
                if standing.state in GONE_ON_WITH:
                    return await self._awaited(standing.id, self._exchange.waited_for(standing))
                return self._given(standing)
            self._new_charges.check(amount)
            await self._be_ready()
            read = await self._cards.read(amount, reference, typed=card, pin=pin)
            payment = self._new_charges.of(read, amount, reference, hold=hold, accept_partial=accept_partial)

            def seal() -> SealedRequest:
                return self._cards.charge(payment, read, pin=pin, tip=tip)

            def store() -> SealedRequest | None:
                if pin is not None or hold or not self._new_charges.may_be_approved_here(payment, read):
                    return None
                return self._cards.charge(payment, read, tip=tip, offline_approved_at=self._clock.now())

            return await self._awaited(payment.id, self._exchange.first(payment, seal, store))

    async def refund(self, charge_id: str, amount: Amount | None = None, *, reason: str) -> Payment:
        """Give back ``amount`` of an approved charge, or all that is left of it.

        Asked again with the same amount and reason before its outcome was acknowledged (``acknowledgement`` in the
        settings: given to a caller, or said to be known), it is the same refund.
        Raises PaymentRefused for a charge that is not ours or not approved, for more than is left, and while it
        is not known whether the charge is canceled.
        """
        async with self._turn:
            charge = finding.charge_by_id(self.journal, charge_id)
            if finding.open_child(self.journal, charge, Kind.CANCEL) is not None:
                raise PaymentRefused(
                    f"the outcome of a cancel of charge {charge_id} is not known yet",
                    advice="Ask for the cancel again to learn it, then refund what still stands.",
                )
            unknown = finding.open_child(self.journal, charge, Kind.REFUND)
            if unknown is None:
                ended = finding.unheard_refund(self.journal, charge, amount, reason)
                if ended is not None:
                    return await self._told_of(ended, charge)
                if self._exchange.wary and self.settings.host.offers_lookup:
                    await self._be_ready()
                    charge = await self._exchange.compared(charge)
            given_back = finding.refundable(charge, amount)
            if unknown is not None:
                if unknown.amount != given_back:
                    raise PaymentRefused(
                        f"the outcome of a refund of {unknown.amount} of charge {charge_id} is not known yet",
                        advice="Ask for that refund again to learn it, then for this one.",
                    )
                return await self._told_of(await self._exchange.waited_for(unknown), charge)
            await self._be_ready()
            payment = self._exchange.child(charge, Kind.REFUND, given_back, reason)
            try:
                return self._given(await self._exchange.first(payment, lambda: self._cards.refund(payment)))
            except TillError as error:
                self._heard_of(payment.id)
                if isinstance(error, HostRefused):
                    await self._exchange.compare_quietly(charge)  # somebody else may have given it back
                raise

    async def cancel(self, charge_id: str) -> Payment:
        """Void a charge before settlement; asked again, the cancel that it has is given back.

        Raises PaymentRefused for a charge that is not ours, HostRefused after settlement (then refund).
        """
        async with self._turn:
            charge = finding.charge_by_id(self.journal, charge_id)
            for earlier in self.journal.concerning(charge):
                if earlier.kind is Kind.CANCEL and earlier.state is State.APPROVED:
                    return earlier
            if (unknown := finding.open_child(self.journal, charge, Kind.CANCEL)) is not None:
                return self._given(await self._exchange.waited_for(unknown))
            if charge.state not in (State.APPROVED, State.PENDING):
                raise PaymentRefused(f"charge {charge_id} is {finding.words(charge)}: there is nothing to cancel")
            if (unknown := finding.open_child(self.journal, charge, Kind.REFUND)) is not None:
                raise PaymentRefused(
                    f"the outcome of a refund of {unknown.amount} of charge {charge_id} is not known yet",
                    advice="Ask for that refund again to learn it, then cancel.",
                )
            await self._be_ready()
            payment = self._exchange.child(charge, Kind.CANCEL, charge.approved or charge.amount, "")
            try:
                return self._given(await self._exchange.first(payment))
            except TillError:
                self._heard_of(payment.id)
                raise

    # -- what a till decides --------------------------------------------------------------------------------

    async def confirm(self, reference: str) -> Payment:
        """The goods are out, or less than was asked is enough: what was held is approved. Again: the same.

        Raises PaymentRefused where nothing of that reference is held, as after ``confirm_within`` seconds.
        """
        payment = finding.charge(self.journal, reference)
        if payment.state is State.HELD:
            return self._given(self._exchange.happened(payment, Happened.CONFIRMED))
        if payment.state in (State.APPROVED, State.PARTIALLY_REFUNDED):
            return payment
        raise PaymentRefused(
            f"the charge of {reference!r} is {finding.words(payment)}: it cannot be confirmed",
            advice="Only a charge that is held can: hand nothing out, or take a new payment.",
        )

    async def void(self, reference: str) -> Payment:
        """The till does not want the charge, whatever state it is in; the charge as it stands then.

        It is on disk at once that it is not to stand; where the host does not answer, ``keep`` and ``resolve`` go
        on, and so does this, asked again. One that is approved is canceled as by ``cancel``, and stands where that
        raises. Raises PaymentRefused for one that was refunded already or is being forwarded, HostRefused for one
        that is settled, HostUnreachable for one that is approved.
        """
        payment = finding.charge(self.journal, reference)
        if payment.state is State.APPROVED:
            await self.cancel(payment.charge_id)
        elif payment.state in (State.HELD, State.OFFLINE):
            payment = self._exchange.happened(payment, Happened.VOIDED)
        elif payment.state in UNRESOLVED:
            self._exchange.left(payment.id)
        elif payment.outcome is not Outcome.DECLINED:
            raise PaymentRefused(f"the charge of {reference!r} is {finding.words(payment)}: it cannot be voided")
        async with self._turn:
            payment = self.journal.payment(payment.id)
            if payment.state in GONE_ON_WITH:
                payment = await self._exchange.pushed(payment)
            return self._given(payment)

    def abandon(self, reference: str) -> Payment:
        """The till has given up, or the shopper has gone, whatever goes on at this moment. On disk at once.

        Nothing is created for it from now on; what exists at the host is undone by ``keep`` or ``resolve``. A
        charge that is approved already stays so: ``void`` it.
        """
        payment = finding.charge(self.journal, reference)
        self._exchange.left(payment.id)
        return self.journal.payment(payment.id)

    def settle_by_hand(self, payment_id: str, *, taken: bool, who: str, charge_id: str = "") -> Payment:
        """What a person has found out at the host about a payment that the terminal cannot find out about.

        ``taken``: the money has moved; a charge that is not to stand needs the host's ``charge_id`` then, and is
        undone. Not taken: there is no such payment at the host, or none any more. ``who`` is kept with it.
        """
        return self._exchange.settled_by_hand(
            self.journal.payment(payment_id), taken=taken, who=who, charge_id=charge_id
        )

    # -- what was open --------------------------------------------------------------------------------------

    async def resolve(self) -> list[Payment]:
        """Go on with every open payment, oldest first, one step each; the payments as they stand then."""
        async with self._turn:
            await self._be_ready()
        return await self.resolver.everything()

    async def outcome(self, payment_id: str, timeout: float | None = None) -> Payment:
        """The payment once it is approved, declined or waits for the till, or as it is after ``timeout`` seconds.

        Goes on with it meanwhile, as often as is sensible. To wait here is not to be there: see ``shopper_wait``.
        """
        try:
            async with asyncio.timeout(timeout):
                while (payment := self.journal.payment(payment_id)).outcome is Outcome.PENDING:
                    if payment.state is State.HELD:
                        break
                    await self.resolver.until_it_changes(payment)
        except TimeoutError:
            payment = self.journal.payment(payment_id)
        return self._given(payment)

    def outcomes(self) -> list[Payment]:
        """The final payments that no caller is known to have heard of, oldest first: a till asks when it starts."""
        return [payment for payment in self.journal.outcomes() if payment.outcome is not Outcome.PENDING]

    def acknowledge(self, payment_id: str) -> None:
        """The caller knows the outcome, and is not given it again by ``outcomes``."""
        self.journal.acknowledge([payment_id])

    async def reconcile(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Reconciliation:
        """Compare the journal with the host, payment by payment, between payments; ``progress(done, total)``.

        The payments that began at ``since`` or after, and before ``until`` (None: all). What was written off here
        and stands there is taken back by ``keep`` or ``resolve``. Raises NotReady, HostError, CryptoError.
        """
        async with self._turn:
            await self._be_ready()
        return await self._exchange.reconciler(self._turn).run(since, until, progress)

    # -- below ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _still_wanted(self, reference: str, amount: Amount) -> AsyncIterator[None]:
        """Who is cancelled inside, be it while others have their turn, has given up what there is of the charge."""
        try:
            yield
        except asyncio.CancelledError:
            standing = self.journal.charge_by_reference(reference)
            if standing is not None and standing.amount == amount and standing.state in GONE_ON_WITH:
                self._exchange.left(standing.id)
            raise

    async def _awaited(self, payment_id: str, work: Awaitable[Payment]) -> Payment:
        try:
            with self._presence.awaited(payment_id):
                payment = await work
        except asyncio.CancelledError:
            self._exchange.left(payment_id)
            raise
        except TillError:
            self._heard_of(payment_id)
            raise
        self._presence.heed(payment)
        return self._given(payment)

    async def _told_of(self, refund: Payment, charge: Payment) -> Payment:
        if refund.state is State.REFUSED:
            await self._exchange.compare_quietly(charge)
        return self._given(refund)

    def _given(self, payment: Payment) -> Payment:
        if payment.outcome is not Outcome.PENDING:
            self._heard_of(payment.id)
        return payment

    def _heard_of(self, payment_id: str) -> None:
        if self.settings.acknowledgement == "return":
            self.acknowledge(payment_id)
