"""One question to the host, and what comes of it: the Do of ``terminal.course``.

An approval is believed only if it fits what was asked (``terminal.fit``). What may have reached the host and
brought no answer that can be believed proves nothing; what a refusal proves, ``terminal.refusals`` says. What it
names and can be put right is put right once in a round: a key set that the host has replaced, a date that is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from terminal.climb import Climb
from terminal.clock import HostClock
from terminal.course import Do, Heard, Mended
from terminal.errors import (
    CryptoError,
    HostAnswerInvalid,
    HostError,
    HostRefused,
    HostSilent,
    HostUnreachable,
    JournalError,
    TillError,
)
from terminal.fit import Answer, check_fit, facts_of, reply_of
from terminal.hosts.viopay import ViopayClient
from terminal.journal import Journal, SealedRequest
from terminal.payment import PAYMENT, Happened, Kind, Payment, State
from terminal.presence import Presence
from terminal.recovery import Act, Reply, Sought
from terminal.refusals import CREDENTIALS, GONE, OLDER, SUPERSEDED, Cause, Proof, cause_of, proof_of
from terminal.settings import Settings

T = TypeVar("T")

Seal = Callable[[], SealedRequest]
"""Seals the payment's request under the key set that is current when it is called."""
Store = Callable[[], SealedRequest | None]
"""The request of a payment that is approved here, sealed; None where that is not allowed."""


class _Untold(Exception):
    """What the host has does not tell whether a payment is among it."""


@dataclass(slots=True)
class Errand:
    """What a round carries along: ``seal`` and ``store`` for the first sending, and what has come of it so far."""

    seal: Seal | None = None
    store: Store | None = None
    mended: set[Cause] = field(default_factory=set)
    error: TillError | None = None
    """Why the last question brought nothing, for a caller who waits."""
    stored: SealedRequest | None = None
    """What goes into the journal if the payment is approved here."""
    key_seen: bool = False
    """The host knew the key of a request that was never sent."""
    older: bool = False
    """What was found is older than the payment."""


class Asking:
    """Asks the host on behalf of payments. Raises JournalError, and nothing of the host's."""

    def __init__(
        self,
        client: ViopayClient,
        journal: Journal,
        clock: HostClock,
        settings: Settings,
        climb: Climb,
        presence: Presence,
    ) -> None:
        self._client, self._journal, self._clock = client, journal, clock
        self._settings, self._climb, self._presence = settings, climb, presence

    async def do(self, what: Do, errand: Errand) -> Heard:
        """Look up or send, and say what came of it."""
        errand.error = None
        if what.act is Act.LOOK_UP:
            return await self._look_up(what.payment, errand)
        return await self._send(what, errand)

    # -- sending --------------------------------------------------------------------------------------------

    async def _send(self, what: Do, errand: Errand) -> Heard:
        payment, doubt = what.payment, what.sent_before
        request = self._journal.request(payment.id)
        held = request is not None and self._client.holds(request.key_set_id)
        mended = not errand.mended.isdisjoint({SUPERSEDED, OLDER})
        signer = request.key_set_id if request and held and not (mended and doubt) else None
        try:
            answer = await self._ask(what, request, signer)
            self.check(payment, answer)
        except HostUnreachable as error:
            errand.error = error
            if errand.store is not None and not doubt:
                errand.stored = errand.store()
            offline = errand.stored is not None
            return self._heard(payment, Reply.UNREACHABLE, offline=offline, message=str(error))
        except HostRefused as refusal:
            return await self._refused(what, errand, refusal, signer)
        except (HostError, CryptoError) as error:
            errand.error = error
            return self._heard(payment, Reply.SILENT, message=str(error))
        return self._heard(payment, reply_of(payment, answer), **facts_of(payment, answer))

    async def _ask(self, what: Do, request: SealedRequest | None, signer: str | None) -> Answer:
        """``signer`` is the key set that signs; None for the one in use."""
        payment = what.payment
        if payment.kind is Kind.CANCEL:
            return (await self._client.cancel(payment.charge_id)).as_answer()
        if request is None:
            raise HostSilent(f"the sealed request of payment {payment.id} is gone")
        if payment.kind is Kind.REFUND:
            refund = await self._client.refund(payment.charge_id, request.body, payment.id, signer)
            return refund.as_answer()

        def wanted() -> bool:
            now = self._journal.payment(payment.id)
            if what.act is Act.SEND_TO_CANCEL or now.state is State.FORWARDING:
                return True
            return now.state is not State.ABANDONED and self._presence.there(now)

        return (await self._client.charge(request.body, payment.id, signer, wanted)).as_answer()

    async def _refused(self, what: Do, errand: Errand, refusal: HostRefused, signer: str | None) -> Heard:
        payment, doubt = what.payment, what.sent_before or refusal.in_doubt
        errand.error = refusal
        self._climb.heed(refusal)
        refused = Reply.SILENT if refusal.in_doubt else Reply.REFUSED
        try:
            if await self._mended(refusal, errand.mended, older=self._client.has_newer_than(signer)):
                if cause_of(refusal) == SUPERSEDED:
                    return self._heard(payment, Mended.KEYS, doubt=refusal.in_doubt)
                return self._heard(payment, Mended.CLOCK, doubt=True)
        except JournalError:
            raise
        except TillError as error:
            errand.error = error
            return self._heard(payment, refused, message=str(error) if doubt else refusal.host_message)
        cause, resigned = cause_of(refusal), signer is None
        proof = proof_of(cause, payment.kind, what.act, repeat=doubt, resigned=resigned)
        if proof is Proof.CHARGE_TELLS:
            return await self._above_what_is_left(payment, refusal, errand)
        if proof is Proof.KEY_SEEN:
            errand.key_seen = not doubt
        if proof in (Proof.NOTHING, Proof.KEY_SEEN):
            refused = Reply.SILENT
        elif await self._disproved(proof, payment, errand):
            refused = Reply.DISPROVED
        return self._heard(payment, refused, message=refusal.host_message)

    async def _disproved(self, proof: Proof, payment: Payment, errand: Errand) -> bool:
        """Whether no attempt has acted: the table leaves some of that to the host, and to the time."""
        match proof:
            case Proof.NEVER:
                return True
            case Proof.NEVER_IF_IT_STANDS:
                return not self._settings.host.offers_lookup or await self._stands(payment, errand)
            case Proof.NEVER_ONCE_KEYS_ARE_OVER:
                return self._older_keys_are_over()
        return False

    def _older_keys_are_over(self) -> bool:
        since, host = self._client.keys_since(), self._settings.host
        life = timedelta(seconds=host.request_life + host.call_timeout)
        return since is not None and self._clock.now() - since > life

    async def _above_what_is_left(self, refund: Payment, refusal: HostRefused, errand: Errand) -> Heard:
        """What it means that a refund which may have been made is refused for more than is left.

        The host is asked for the charge. Where all of it was given back there is nothing left to be done, whoever
        did it. What was given back in part may be this very refund, and one that was not made may still be.
        """
        if self._settings.host.offers_lookup:
            try:
                found, _ = await self._found_refund(refund, errand)
                if found is not None:
                    self.check(refund, found, looked_up=True)
                    return self._heard(refund, reply_of(refund, found), **facts_of(refund, found))
            except (_Untold, HostError, CryptoError):
                pass
        return self._heard(refund, Reply.SILENT, message=refusal.host_message)

    async def _stands(self, cancel: Payment, errand: Errand) -> bool:
        try:
            found, _ = await self._mending(lambda: self._client.charge_by_id(cancel.charge_id), errand)
        except (HostError, CryptoError):
            return False
        return found.as_answer().happened is not Happened.CANCELED

    # -- looking up -----------------------------------------------------------------------------------------

    async def _look_up(self, payment: Payment, errand: Errand) -> Heard:
        try:
            answer, asked_at = await self._found(payment, errand)
            payment = self._journal.payment(payment.id)
            if answer is None:
                return self._heard(payment, None, sought=self._proof(payment, asked_at))
            self.check(payment, answer, looked_up=True)
        except _Untold:
            return self._heard(payment, None, sought=Sought.UNTOLD)
        except JournalError:
            raise
        except TillError as error:
            errand.error = error
            gone = isinstance(error, HostRefused) and error.status == GONE and payment.charge_id != ""
            return self._heard(payment, None, sought=Sought.UNTOLD if gone else Sought.NOT_YET)
        early = payment.created_at - timedelta(seconds=self._settings.answer_skew)
        errand.older = answer.at is not None and answer.at < early
        return self._heard(payment, reply_of(payment, answer), sought=Sought.FOUND, **facts_of(payment, answer))

    async def _found(self, payment: Payment, errand: Errand) -> tuple[Answer | None, datetime]:
        """What the host has of the payment, and when it was asked."""
        if payment.kind is Kind.REFUND:
            return await self._found_refund(payment, errand)
        if payment.charge_id:
            charge, at = await self._mending(lambda: self._client.charge_by_id(payment.charge_id), errand)
            return charge.as_answer(), at
        charges, at = await self._mending(lambda: self._client.charges_by_reference(payment.reference), errand)
        found = [charge.as_answer() for charge in charges]
        if any(self._is_claimed(payment, told) for told in found):
            raise _Untold
        ours = [told for told in found if self._may_be(payment, told)]
        if len(ours) > 1:
            raise HostAnswerInvalid("pos/charges", "charges", "more than one may be this payment")
        return (ours[0] if ours else None), at

    async def _found_refund(self, refund: Payment, errand: Errand) -> tuple[Answer | None, datetime]:
        """By its id, where an answer brought one; else it is certain only that a charge of which nothing was given
        back has no refund, and that one which was given back whole needs none."""
        if refund.refund_id:
            status, at = await self._mending(lambda: self._client.refund_status(refund.refund_id), errand)
            return status.as_answer(), at
        charge, at = await self._mending(lambda: self._client.charge_by_id(refund.charge_id), errand)
        told = charge.as_answer()
        if told.happened is Happened.APPROVED:
            return None, at
        ours = self._journal.payment(refund.parent)
        if told.happened is Happened.REFUNDED and ours.approved == refund.amount and not ours.refunded:
            return replace(told, happened=Happened.APPROVED, amount=None, reference=None, at=None), at
        raise _Untold

    def _may_be(self, payment: Payment, answer: Answer) -> bool:
        """A charge under our reference is this payment's unless it is another's, or a sale of long before.

        One of before is this payment's where the journal has lost it, but not where it may have left by compaction.
        """
        if self._is_of_another(payment, answer):
            return False
        skew = timedelta(seconds=self._settings.answer_skew)
        if answer.at is None or answer.at >= payment.created_at - skew:
            return True
        kept_since = self._journal.kept_since
        return answer.amount == payment.amount and (kept_since is None or answer.at > kept_since + skew)

    def _proof(self, payment: Payment, asked_at: datetime) -> Sought:
        """A host takes a request for as long as its date is near: once that is over, none can arrive any more."""
        host = self._settings.host
        last = (payment.sent_at or payment.created_at) + timedelta(seconds=host.call_timeout)
        return Sought.NONE if asked_at - last > timedelta(seconds=host.request_life) else Sought.NONE_YET

    # -- what both need -------------------------------------------------------------------------------------

    def check(self, payment: Payment, answer: Answer, *, looked_up: bool = False) -> None:
        """Raise HostAnswerInvalid, naming the field, unless the answer fits the payment.

        What was looked up was asked for by its id or its reference, and may be of any time. Of a charge that is
        not to stand it does not matter for how much it is.
        """
        call = f"pos/{payment.kind}"
        payment = self._journal.payment(payment.id)  # the shopper may have left since
        if answer.happened not in PAYMENT.table[payment.state]:
            raise HostAnswerInvalid(call, "status", f"it cannot follow on {payment.state}")
        if payment.parent:
            self._check_parent(call, payment, answer)
        if payment.state in (State.ABANDONED, State.REVERSING):
            answer = replace(answer, amount=None)
        check_fit(
            call,
            payment,
            replace(answer, at=None) if looked_up else answer,
            known=payment.kind is Kind.CHARGE and self._is_of_another(payment, answer),
            now=self._clock.now(),
            skew=timedelta(seconds=self._settings.answer_skew),
        )

    def _is_of_another(self, payment: Payment, answer: Answer) -> bool:
        known = self._journal.charge_by_charge_id(answer.charge_id)
        return known is not None and known.id != payment.id

    def _is_claimed(self, payment: Payment, answer: Answer) -> bool:
        """It bears the payment's reference, and the id that another reference's charge has by an earlier answer.

        One of the two answers was wrong, and nobody here can tell which.
        """
        known = self._journal.charge_by_charge_id(answer.charge_id)
        return known is not None and known.reference != payment.reference

    def _check_parent(self, call: str, payment: Payment, answer: Answer) -> None:
        charge = self._journal.payment(payment.parent)
        effect = Happened.CANCELED if payment.kind is Kind.CANCEL else Happened.REFUNDED_IN_PART
        learned = payment.kind is Kind.CANCEL and charge.state is State.CANCELED  # by a look-up, meanwhile
        if answer.happened is Happened.APPROVED and effect not in PAYMENT.table[charge.state] and not learned:
            raise HostAnswerInvalid(call, "status", f"the charge is {charge.state} already")
        others = [other for other in self._journal.concerning(charge) if other.id != payment.id]
        if answer.refund_id and answer.refund_id in {other.refund_id for other in others}:
            raise HostAnswerInvalid(call, "id", "it belongs to another refund of this charge")

    def _heard(
        self,
        payment: Payment,
        reply: Reply | Mended | None,
        *,
        sought: Sought = Sought.NOT_YET,
        doubt: bool = False,
        offline: bool = False,
        **facts: Any,
    ) -> Heard:
        payment = self._journal.payment(payment.id)
        return Heard(payment, reply, facts=facts, sought=sought, doubt=doubt, offline=offline)

    async def asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        """A question that belongs to no payment's round; raises what asking the host raises."""
        found, _ = await self._mending(ask, Errand())
        return found

    async def _mending(self, ask: Callable[[], Awaitable[T]], errand: Errand) -> tuple[T, datetime]:
        """What is asked, again after each refusal that names what could be put right; and when it was asked."""
        while True:
            asked_at = self._clock.now()
            try:
                return await ask(), asked_at
            except HostRefused as refusal:
                self._climb.heed(refusal)
                if not await self._mended(refusal, errand.mended):
                    raise

    async def _mended(self, refusal: HostRefused, mended: set[Cause], *, older: bool = False) -> bool:
        """Whether what the refusal names was put right: a key set that the host replaced, a date that is wrong.

        ``older``: the request was signed under an older key set than the one in use. Raises HostError and
        CryptoError where new keys cannot be had.
        """
        cause = cause_of(refusal)
        if cause == SUPERSEDED and older:
            cause = OLDER
        if cause in mended:
            return False
        mended.add(cause)
        if cause == OLDER:
            return True
        if cause == SUPERSEDED:
            await self._climb.renew_keys()
            return True
        try:
            return cause == CREDENTIALS and await self._climb.follow_clock()
        except TillError:
            return False
