"""A payment's way to the host and back: journal, send, believe or doubt, journal.

The rules, each in one place below:

- The journal holds the payment and its sealed bytes before the first of them leaves.
- An approval is believed only if it fits what was asked.
- Whatever may have reached the host and brought no answer that can be believed leaves the payment in doubt:
  never declined, never forgotten.
- A repeat sends the same bytes under the same idempotency key. Only a refusal that names the key set, to a
  request that no earlier attempt can have delivered, lets the terminal seal again; otherwise the bytes stay and
  are signed under the new set, since a host looks the key up by the bytes before it opens them.
- Once the host has forgotten the key, nothing is sent again: the host is asked what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from terminal.climb import Climb
from terminal.clock import HostClock
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
from terminal.events import Event, PaymentChanged
from terminal.hosts.viopay import ViopayClient
from terminal.journal import Journal, SealedRequest
from terminal.payment import PAYMENT, Answer, Happened, Kind, Payment, State, check_fit
from terminal.settings import Settings

T = TypeVar("T")

Seal = Callable[[], SealedRequest]
"""Seals the payment's request under the key set that is current when it is called."""

_Cause = tuple[int, str]
"""HTTP status and code of a refusal."""

SUPERSEDED: _Cause = (401, "4011")
"""The host has replaced the key set and so has not acted on this attempt."""
CREDENTIALS: _Cause = (401, "4010")
"""Nor has it on one whose signature it does not take, of which the date may be at fault."""


class Exchange:
    """Carries payments to the host. Every method returns the payment as the journal now knows it."""

    def __init__(
        self,
        client: ViopayClient,
        journal: Journal,
        clock: HostClock,
        settings: Settings,
        emit: Callable[[Event], None],
        climb: Climb,
    ) -> None:
        self._client, self._journal, self._clock = client, journal, clock
        self._settings, self._emit, self._climb = settings, emit, climb

    async def first(self, payment: Payment, seal: Seal | None) -> Payment:
        """Send a new payment. ``seal`` is None for a cancel, which has no body.

        Raises HostUnreachable (nothing left the device: withdrawn) or HostRefused (the host has not acted), and
        where the host wanted new keys and they could not be had, what went wrong with them (it has not acted).
        Silence, or an answer that cannot be believed, is a payment in doubt.
        """
        payment = self._journal.begin(payment, seal() if seal else None)
        self._tell(payment)
        return await self._send(payment, seal=seal, repeated=False)

    async def again(self, payment: Payment) -> Payment:
        """Go on with a payment whose outcome is not known: the same bytes, the same idempotency key.

        Raises nothing of the host's: what is still not known is still in doubt.
        """
        if payment.state is State.PENDING:
            return await self._watch(payment)
        if self._is_forgotten(payment):
            return await self._look_up(payment)
        return await self._send(self._sent_again(payment), seal=None, repeated=True)

    # -- below ----------------------------------------------------------------------------------------------

    async def _send(self, payment: Payment, *, seal: Seal | None, repeated: bool) -> Payment:
        """``repeated``: an earlier attempt may have reached the host, so that a refusal of this one proves little.

        What a refusal lets us put right is put right once, and the request sent once more.
        """
        doubt, mended = repeated, set[_Cause]()
        request = self._journal.request(payment.id)
        while True:
            held = request is not None and self._client.holds(request.key_set_id)
            signer = request.key_set_id if request and held and (SUPERSEDED not in mended or not doubt) else None
            try:
                answer = await self._ask(payment, request, signer)
                self._check(payment, answer)
                break
            except HostUnreachable:
                if doubt:
                    return self._happened(payment, Happened.SILENT)
                self._happened(payment, Happened.UNREACHABLE)
                raise
            except HostRefused as refusal:
                doubt = doubt or refusal.in_doubt
                self._climb.heed(refusal)
                try:
                    if await self._mended(refusal, mended):
                        if SUPERSEDED in mended and seal is not None and not doubt:
                            request, seal = seal(), None
                            payment = self._journal.seal_again(payment.id, request, self._clock.now())
                        elif (refusal.status, refusal.code) == CREDENTIALS:
                            payment = self._sent_again(payment)
                        continue
                except JournalError:
                    raise
                except TillError as error:
                    if doubt:
                        return self._happened(payment, Happened.SILENT, message=str(error))
                    self._happened(payment, Happened.REFUSED, message=refusal.host_message)
                    raise
                if doubt and not await self._disproved(payment, refusal, resigned=signer is None):
                    return self._happened(payment, Happened.SILENT, message=refusal.host_message)
                payment = self._happened(payment, Happened.REFUSED, message=refusal.host_message)
                if repeated:
                    return payment
                raise
            except (HostError, CryptoError) as error:
                return self._happened(payment, Happened.SILENT, message=str(error))
        return await self._settle(payment, answer)

    def _sent_again(self, payment: Payment) -> Payment:
        """A payment that a wrong clock dated in the future begins now: no answer could fit it otherwise."""
        now = self._clock.now()
        earlier = {"created_at": now} if now < payment.created_at else {}
        return self._happened(payment, Happened.SENT_AGAIN, **earlier)

    async def _ask(self, payment: Payment, request: SealedRequest | None, signer: str | None) -> Answer:
        """``signer`` is the key set that signs; None for the one in use."""
        if payment.kind is Kind.CANCEL:
            return (await self._client.cancel(payment.charge_id)).as_answer()
        if request is None:
            raise HostSilent(f"the sealed request of payment {payment.id} is gone")
        if payment.kind is Kind.REFUND:
            refund = await self._client.refund(payment.charge_id, request.body, payment.id, signer)
            return refund.as_answer()
        return (await self._client.charge(request.body, payment.id, signer)).as_answer()

    async def _mending(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What is asked, asked again after each refusal that names what could be put right."""
        mended = set[_Cause]()
        while True:
            try:
                return await ask()
            except HostRefused as refusal:
                self._climb.heed(refusal)
                if not await self._mended(refusal, mended):
                    raise

    async def _mended(self, refusal: HostRefused, mended: set[_Cause]) -> bool:
        """Whether what the refusal names was put right: a key set that the host replaced, a date that is wrong.

        Raises HostError and CryptoError where new keys cannot be had.
        """
        cause = (refusal.status, refusal.code)
        if cause in mended:
            return False
        mended.add(cause)
        if cause == SUPERSEDED:
            await self._climb.renew_keys()
            return True
        try:
            return cause == CREDENTIALS and await self._climb.follow_clock()
        except TillError:
            return False

    async def _disproved(self, payment: Payment, refusal: HostRefused, *, resigned: bool) -> bool:
        """Whether the refusal of a repeat proves that no earlier attempt acted.

        A host that had acted would know the idempotency key, and finds it by the bytes before it opens them: so
        it has not, where it says that they break a rule, or (signed under a newer key set than the one that
        sealed them) that they do not open. A refund that is above what is left proves nothing: it may be the one
        that was made. A cancel that is refused has not been, if the charge still stands.
        """
        if payment.kind is Kind.CANCEL:
            return refusal.status == 409 and await self._stands(payment)
        return (resigned and refusal.status == 400) or (payment.kind is Kind.CHARGE and refusal.status == 422)

    async def _stands(self, cancel: Payment) -> bool:
        if not self._settings.host.offers_lookup:
            return False
        try:
            found = await self._mending(lambda: self._client.charge_by_id(cancel.charge_id))
        except (HostError, CryptoError):
            return False
        return found.as_answer().happened in (Happened.APPROVED, Happened.REFUNDED_IN_PART, Happened.REFUNDED)

    def _is_forgotten(self, payment: Payment) -> bool:
        """Whether the host may have forgotten the idempotency key before a repeat is through. A cancel has none."""
        host = self._settings.host
        known_for = timedelta(seconds=max(0.0, host.idempotency_life - host.call_timeout))
        return payment.kind is not Kind.CANCEL and self._clock.now() - payment.created_at >= known_for

    async def _look_up(self, payment: Payment) -> Payment:
        """What became of a charge that cannot be sent again, as that might make a second one."""
        payment = self._happened(payment, Happened.LOOKED_UP)
        if not self._settings.host.offers_lookup or payment.kind is not Kind.CHARGE:
            message = "the host may have forgotten it, so that it is not sent again, and cannot be asked"
            return self._happened(payment, Happened.SILENT, message=message)
        try:
            found = await self._mending(lambda: self._client.charges_by_reference(payment.reference))
            if not self._is_forgotten(payment):  # only a wrong clock had made it old
                return await self.again(payment)
            ours = [told for one in found if not self._is_of_another(payment, told := one.as_answer())]
            if not ours:
                return self._happened(payment, Happened.REFUSED, message="the host has no such charge")
            if len(ours) > 1:
                raise HostAnswerInvalid("pos/charges", "charges", "more than one may be this payment")
            self._check(payment, ours[0])
        except (HostError, CryptoError) as error:
            return self._happened(payment, Happened.SILENT, message=str(error))
        return await self._settle(payment, ours[0])

    def _is_of_another(self, payment: Payment, answer: Answer) -> bool:
        known = self._journal.charge_by_charge_id(answer.charge_id)
        return known is not None and known.id != payment.id

    def _check(self, payment: Payment, answer: Answer) -> None:
        call = f"pos/{payment.kind}"
        if answer.happened not in PAYMENT.table[payment.state]:
            raise HostAnswerInvalid(call, "status", f"it cannot follow on {payment.state}")
        if payment.parent:
            self._check_parent(call, payment, answer)
        check_fit(
            call,
            payment,
            answer,
            known=payment.kind is Kind.CHARGE and self._is_of_another(payment, answer),
            now=self._clock.now(),
            skew=timedelta(seconds=self._settings.answer_skew),
        )

    def _check_parent(self, call: str, payment: Payment, answer: Answer) -> None:
        charge = self._journal.payment(payment.parent)
        effect = Happened.CANCELED if payment.kind is Kind.CANCEL else Happened.REFUNDED_IN_PART
        if answer.happened is Happened.APPROVED and effect not in PAYMENT.table[charge.state]:
            raise HostAnswerInvalid(call, "status", f"the charge is {charge.state} already")
        others = [other for other in self._journal.concerning(charge) if other.id != payment.id]
        if answer.refund_id and answer.refund_id in {other.refund_id for other in others}:
            raise HostAnswerInvalid(call, "id", "it belongs to another refund of this charge")

    async def _settle(self, payment: Payment, answer: Answer) -> Payment:
        payment = self._happened(payment, answer.happened, **_facts(payment, answer))
        return await self._watch(payment) if payment.state is State.PENDING else payment

    async def _watch(self, payment: Payment) -> Payment:
        """Look up what is pending until the host has decided, at most ``pending_wait`` seconds."""
        if not self._settings.host.offers_lookup:
            return payment
        loop, mended = asyncio.get_running_loop(), set[_Cause]()
        until = loop.time() + self._settings.pending_wait
        while loop.time() < until:
            await asyncio.sleep(self._settings.pending_poll)
            try:
                answer = await self._found(payment)
                self._check(payment, answer)
            except HostRefused as refusal:
                self._climb.heed(refusal)
                with contextlib.suppress(HostError, CryptoError):
                    await self._mended(refusal, mended)
                continue
            except (HostError, CryptoError):
                continue
            if answer.happened is not Happened.PENDING:
                return self._happened(payment, answer.happened, **_facts(payment, answer))
        return payment

    async def _found(self, payment: Payment) -> Answer:
        if payment.kind is Kind.REFUND:
            return (await self._client.refund_status(payment.refund_id)).as_answer()
        return (await self._client.charge_by_id(payment.charge_id)).as_answer()

    def _happened(self, payment: Payment, happened: Happened, **facts: Any) -> Payment:
        after = self._journal.record(payment.id, happened, self._clock.now(), **facts)
        self._tell(after)
        return after

    def _tell(self, payment: Payment) -> None:
        self._emit(
            PaymentChanged(
                at=self._clock.now(),
                payment_id=payment.id,
                kind=payment.kind.value,
                state=payment.state.value,
                reference=payment.reference,
                amount=payment.approved or payment.amount,
                charge_id=payment.charge_id,
                response_code=payment.response_code,
            )
        )


def _facts(payment: Payment, answer: Answer) -> dict[str, Any]:
    """What an answer adds to the payment that it fits."""
    told = {
        "charge_id": answer.charge_id,
        "refund_id": answer.refund_id,
        "authorization_code": answer.authorization_code,
        "response_code": answer.response_code,
        "message": answer.message,
    }
    facts: dict[str, Any] = {name: value for name, value in told.items() if value != getattr(payment, name)}
    if answer.happened is Happened.APPROVED:
        facts["approved"] = answer.amount or payment.amount
    return facts
