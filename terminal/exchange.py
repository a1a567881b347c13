"""Performs the course of payments: against the journal, the host, and the till that may give up meanwhile.

What is done and in which order is ``terminal.course``'s; what to do, ``terminal.recovery``'s; what an answer
proves, ``terminal.asking``'s. Here is what they need to know of the world, and what is told of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from terminal.asking import Asking, Errand, Seal, Store
from terminal.clock import HostClock
from terminal.course import Begin, Course, Do, Ended, Heard, Read, Write, course
from terminal.errors import CryptoError, HostError, HostSilent, HostUnreachable, JournalError, PaymentRefused
from terminal.events import Event, OfflineLost, PaymentChanged, RefundFailed, RestoredImageSuspected
from terminal.fit import Answer
from terminal.hosts.viopay import ViopayClient
from terminal.hosts.viopay_wire import CHARGE_ID
from terminal.journal import Journal, SealedRequest
from terminal.money import Amount
from terminal.payment import OPEN, PAYMENT, REVERSAL, Happened, Kind, Payment, State
from terminal.presence import Presence
from terminal.reconcile import HostBooks, Reconciler, patiently
from terminal.recovery import Circumstances, Reversal, Sought, reversal_of, to_undo
from terminal.settings import Settings
from terminal.turn import Turn

_DATED: Final = frozenset({Happened.SENT_AGAIN, Happened.SEALED_AGAIN, Happened.SENT_TO_CANCEL, Happened.FORWARDED})
"""Something leaves the device next."""

BY_HAND: Final[dict[tuple[Kind, State], dict[bool, Happened]]] = {
    (Kind.CHARGE, State.IN_FLIGHT): {True: Happened.APPROVED, False: Happened.NOT_FOUND},
    (Kind.CHARGE, State.IN_DOUBT): {True: Happened.APPROVED, False: Happened.NOT_FOUND},
    (Kind.CHARGE, State.PENDING): {True: Happened.APPROVED, False: Happened.DECLINED},
    (Kind.CHARGE, State.ABANDONED): {True: Happened.APPROVED, False: Happened.NOT_FOUND},
    (Kind.CHARGE, State.FORWARDING): {True: Happened.APPROVED, False: Happened.DECLINED},
    (Kind.CHARGE, State.REVERSING): {False: Happened.CANCELED},
    (Kind.REFUND, State.IN_FLIGHT): {True: Happened.APPROVED, False: Happened.NOT_FOUND},
    (Kind.REFUND, State.IN_DOUBT): {True: Happened.APPROVED, False: Happened.NOT_FOUND},
    (Kind.REFUND, State.PENDING): {True: Happened.APPROVED, False: Happened.DECLINED},
    (Kind.CANCEL, State.IN_FLIGHT): {True: Happened.APPROVED, False: Happened.REFUSED},
    (Kind.CANCEL, State.IN_DOUBT): {True: Happened.APPROVED, False: Happened.REFUSED},
}
"""What a person may say of a payment: that it was taken, or not (any more)."""


class Exchange:
    """Carries payments on. Every method returns the payment as the journal then knows it."""

    def __init__(
        self,
        asking: Asking,
        client: ViopayClient,
        journal: Journal,
        clock: HostClock,
        settings: Settings,
        emit: Callable[[Event], None],
        presence: Presence,
        refund_request: Callable[[Payment], SealedRequest],
    ) -> None:
        self._asking, self._client, self._journal, self._clock = asking, client, journal, clock
        self._settings, self._emit, self._presence = settings, emit, presence
        self._refund_request = refund_request
        self._changed = asyncio.Event()
        self._began = asyncio.get_running_loop().time()
        self._last_at = journal.last_at
        self._may_lack = journal.may_lack(timedelta(seconds=settings.host.idempotency_life))
        self.on_refund: Callable[[Payment], None] = lambda refund: None
        """Told of every refund that changed."""
        self.heard = 0
        """How many questions the host has answered, if only by a refusal."""
        self.silent = 0
        """How many it has not."""

    async def first(self, payment: Payment, seal: Seal | None = None, store: Store | None = None) -> Payment:
        """Send a new payment, and wait a little where the host has not decided. ``seal``: not for a cancel.

        Raises HostUnreachable (nothing left the device: withdrawn) or HostRefused (the host has not acted), and
        where the host wanted new keys and they could not be had, what went wrong with them (it has not acted).
        Silence, or an answer that cannot be believed, is a payment in doubt.
        """
        errand = Errand(seal=seal, store=store)
        ended = await self._drive(course(payment, self.circumstances, wary=self._asks_first(payment)), errand)
        payment = ended.payment
        if payment.state in (State.WITHDRAWN, State.REFUSED) and errand.error is not None:
            raise errand.error
        return await self._watched(payment)

    async def again(self, payment: Payment) -> Ended:
        """One round of an open payment. Raises nothing of the host's: what is still not known is still in doubt."""
        return await self._drive(course(payment, self.circumstances), Errand())

    async def pushed(self, payment: Payment) -> Payment:
        """A round of an open payment, and of what is under way to undo it, however long that was to wait."""
        for child in self._journal.concerning(payment):
            if child.state in OPEN:
                await self.again(child)
        return (await self.again(self._journal.payment(payment.id))).payment

    async def waited_for(self, payment: Payment) -> Payment:
        """The same of a payment for which somebody waits, and a little longer where the host has not decided."""
        return await self._watched(await self.pushed(payment))

    def happened(self, payment: Payment, happened: Happened, **facts: Any) -> Payment:
        """Write what somebody here has decided. Raises IllegalEvent, JournalError."""
        return self._write(Write(payment, happened, facts), Errand())

    def left(self, payment_id: str) -> None:
        """The till has gone, whatever goes on at this moment: it is in the journal when this returns.

        Raises nothing: where the journal cannot be written, the payment is given up in memory.
        """
        with contextlib.suppress(JournalError):
            payment = self._journal.payment(payment_id)
            self._presence.gone(payment_id)
            if Happened.LEFT in PAYMENT.table[payment.state]:
                self.happened(payment, Happened.LEFT)
            elif payment.state is State.HELD:
                self.happened(payment, Happened.VOIDED)

    def settled_by_hand(self, payment: Payment, *, taken: bool, who: str, charge_id: str) -> Payment:
        """Write what a person has found out. Raises PaymentRefused where that says nothing, or not enough."""
        ways = BY_HAND.get((payment.kind, payment.state))
        happened = ways.get(taken) if ways else None
        if happened is None:
            raise PaymentRefused(
                f"payment {payment.id} is {payment.state.value.replace('_', ' ')}: that is not for a person to say",
                advice="What is to be given back is undone at the host first; then it is not taken."
                if payment.state in OPEN
                else "It is over already.",
            )
        facts: dict[str, Any] = {"note": f"{who}: {'taken' if taken else 'not taken'}"}
        if taken and payment.kind is Kind.CHARGE:
            facts |= self._named(payment, charge_id)
        return self.happened(payment, happened, **facts)

    def _named(self, payment: Payment, charge_id: str) -> dict[str, Any]:
        """The host's id of a charge, as a person read it there."""
        known = self._journal.charge_by_charge_id(charge_id)
        if charge_id and (not re.match(CHARGE_ID, charge_id) or (known is not None and known.id != payment.id)):
            raise PaymentRefused(f"{charge_id[:80]!r} is no charge id of the host's, or another payment's")
        if not charge_id and not payment.charge_id and payment.state is State.ABANDONED:
            raise PaymentRefused(
                f"payment {payment.id} is not to stand: to undo it takes the host's id of it",
                advice="Look it up in the host's portal, and give it too (--charge-id).",
            )
        named = {"charge_id": charge_id} if charge_id else {}
        return named | {"approved": payment.approved or payment.amount}

    def payment_id(self, kind: Kind, of: str) -> str:
        """The id, and so the idempotency key, of the next payment of a reference, or of a charge id.

        It is always the same one: a terminal that was set back to an older journal collides with what it has done
        since, and the host tells it so, rather than doing the same twice.
        """
        ordinal = self._journal.count(kind, of)
        while self._journal.knows(found := self._name(f"{kind}\n{of}\n{ordinal}")):
            ordinal += 1  # earlier ones have left by compaction, and this one has not
        return found

    def _name(self, of: str) -> str:
        return hmac.new(self._journal.id.encode(), of.encode(), hashlib.sha256).hexdigest()[:32]

    @property
    def wary(self) -> bool:
        """The host may know payments that this journal does not, and may have forgotten their keys.

        So it is where the journal follows a damaged one, or nothing was written for longer than the host's memory,
        lately or until this began: a new reference is looked up before it is sent.
        """
        if self._may_lack or self._last_at is None:
            return self._may_lack
        up = timedelta(seconds=asyncio.get_running_loop().time() - self._began)
        return self._clock.now() - up - self._last_at > timedelta(seconds=self._settings.host.idempotency_life)

    async def changed(self) -> None:
        """Wait until something happens to any payment."""
        await self._changed.wait()

    # -- what a decision depends on -------------------------------------------------------------------------

    def circumstances(self, payment: Payment, sought: Sought) -> Circumstances:
        """Of this payment, at this moment."""
        host = self._settings.host
        under_way = host.call_timeout + host.request_life  # what is sent last may arrive that much later
        known_for = timedelta(seconds=max(0.0, host.idempotency_life - under_way))
        undoing = payment.state is State.REVERSING and payment.charge_id != ""
        return Circumstances(
            present=self._presence.there(payment),
            remembered=self._clock.now() - payment.created_at < known_for,
            lookup=host.offers_lookup,
            sought=sought,
            reversal=reversal_of(payment, self._journal.concerning(payment)) if undoing else Reversal.NONE,
            expired=payment.state is State.HELD and self._presence.confirm_left(payment) <= 0,
        )

    def _asks_first(self, payment: Payment) -> bool:
        return self.wary and payment.kind is Kind.CHARGE and self._settings.host.offers_lookup

    # -- performing -----------------------------------------------------------------------------------------

    async def _drive(self, running: Course, errand: Errand) -> Ended:
        sent: Payment | Heard | None = None
        while True:
            try:
                effect = running.send(sent) if sent is not None else next(running)
            except StopIteration as end:
                ended = end.value
                assert isinstance(ended, Ended)
                return ended
            match effect:
                case Write():
                    sent = self._write(effect, errand)
                case Do():
                    sent = await self._asking.do(effect, errand)
                    self._note(effect, sent, errand)
                case Begin():
                    sent = self._undoing(effect)
                    errand.seal = self._sealing(sent)
                case Read():
                    sent = self._journal.payment(effect.payment.id)

    def _write(self, write: Write, errand: Errand) -> Payment:
        payment, happened, facts = write.payment, write.happened, dict(write.facts)
        undoes = bool(payment.parent) and self._journal.payment(payment.parent).state is State.REVERSING
        if happened is Happened.JOURNALLED:
            after = self._journal.begin(payment, errand.seal() if errand.seal else None)
        else:
            now, request = self._clock.now(), None
            if happened in _DATED:
                facts["sent_at"] = now
                if now < payment.created_at:  # a wrong clock had dated it; no answer could fit it
                    facts["created_at"] = now
            if happened is Happened.SEALED_AGAIN and errand.seal is not None:
                request = errand.seal()
            elif happened is Happened.STORED:
                request, facts["approved"] = errand.stored, payment.amount
            after = self._journal.record(payment.id, happened, now, request=request, **facts)
        if undoes and after.state not in OPEN:
            self._journal.acknowledge([after.id])  # no till has asked for it: what it hears of is the charge
        self._told(payment, after)
        return after

    def _note(self, did: Do, heard: Heard, errand: Errand) -> None:
        if isinstance(errand.error, HostUnreachable | HostSilent):
            self.silent += 1
        else:
            self.heard += 1
        if heard.sought is Sought.FOUND and (errand.key_seen or errand.older):
            self._emit(
                RestoredImageSuspected(
                    at=self._clock.now(), payment_id=did.payment.id, reference=did.payment.reference
                )
            )
            errand.key_seen = errand.older = False

    def _undoing(self, begin: Begin) -> Payment:
        amount = Amount(to_undo(begin.charge), begin.charge.amount.currency)
        return self.child(begin.charge, begin.kind, amount, REVERSAL if begin.kind is Kind.REFUND else "")

    def child(self, charge: Payment, kind: Kind, amount: Amount, reference: str) -> Payment:
        """A new refund or cancel of a charge."""
        return Payment(
            id=self.payment_id(kind, charge.charge_id),
            kind=kind,
            reference=reference,
            amount=amount,
            parent=charge.id,
            charge_id=charge.charge_id,
            created_at=self._clock.now(),
        )

    def _sealing(self, payment: Payment) -> Seal | None:
        return (lambda: self._refund_request(payment)) if payment.kind is Kind.REFUND else None

    async def _watched(self, payment: Payment) -> Payment:
        """Look up what is pending until the host has decided, at most ``pending_wait`` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.pending_wait
        while payment.state is State.PENDING and self._settings.host.offers_lookup and loop.time() < until:
            await asyncio.sleep(self._settings.pending_poll)
            payment = (await self.again(self._journal.payment(payment.id))).payment
        return payment

    # -- comparing what is final here with the host -----------------------------------------------------------

    async def compared(self, charge: Payment) -> Payment:
        """Learn what others have done to a charge that was approved; raises what asking the host raises."""
        answer = (await self._client.charge_by_id(charge.charge_id)).as_answer()
        if answer.happened in PAYMENT.table[charge.state]:
            return self._changed_by_others(charge, answer)
        return charge

    async def compare_quietly(self, charge: Payment) -> None:
        """The same where the host can be asked, and nothing where it does not answer."""
        if self._settings.host.offers_lookup:
            with contextlib.suppress(HostError, CryptoError):
                await self.compared(charge)

    def _changed_by_others(self, charge: Payment, answer: Answer) -> Payment:
        if answer.happened is Happened.REFUNDED and charge.approved is not None:
            return self.happened(charge, answer.happened, refunded=charge.approved.minor)
        if answer.happened is Happened.REFUNDED_IN_PART and charge.state is State.PARTIALLY_REFUNDED:
            return charge
        return self.happened(charge, answer.happened)

    async def checked(self, refund: Payment) -> Payment:
        """Whether a refund that was approved still is; raises what asking the host raises."""
        status = await self._client.refund_status(refund.refund_id)
        if status.as_answer().happened is not Happened.DECLINED:
            return refund
        return self.happened(refund, Happened.FAILED)

    def reconciler(self, turn: Turn) -> Reconciler:
        """Compares the whole journal with the host, between payments."""
        host = self._settings.host
        return Reconciler(
            self._journal,
            HostBooks(self._client, self._asking.asked) if host.offers_lookup else None,
            self.happened,
            partial(patiently, turn),
            skew=timedelta(seconds=self._settings.answer_skew),
            life=timedelta(seconds=host.request_life + host.call_timeout),
        )

    # -- telling --------------------------------------------------------------------------------------------

    def _told(self, before: Payment, after: Payment) -> None:
        self._presence.heed(after)
        if after.kind is Kind.REFUND:
            self.on_refund(after)
        now = self._clock.now()
        self._tell(after, now)
        if after.state is State.LOST:
            self._emit(
                OfflineLost(
                    at=now,
                    payment_id=after.id,
                    reference=after.reference,
                    amount=after.amount,
                    response_code=after.response_code,
                )
            )
        if after.state is State.FAILED and after.kind is Kind.REFUND:
            self._emit(
                RefundFailed(
                    at=now,
                    payment_id=after.id,
                    charge_id=after.charge_id,
                    refund_id=after.refund_id,
                    amount=after.amount,
                )
            )
        if after.parent and before.state is not after.state and after.state in (State.APPROVED, State.FAILED):
            self._tell(self._journal.payment(after.parent), now)
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, payment: Payment, now: datetime) -> None:
        self._emit(
            PaymentChanged(
                at=now,
                payment_id=payment.id,
                kind=payment.kind.value,
                state=payment.state.value,
                reference=payment.reference,
                amount=payment.approved or payment.amount,
                charge_id=payment.charge_id,
                response_code=payment.response_code,
            )
        )
