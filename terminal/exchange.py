"""A payment's way to the host and back: journal, send, believe or doubt, journal.

The rules, each in one place below:

- The journal holds the payment and its sealed bytes before the first of them leaves.
- An approval is believed only if it fits what was asked.
- Whatever may have reached the host and brought no answer that can be believed leaves the payment in doubt:
  never declined, never forgotten.
- A repeat sends the same bytes under the same idempotency key. Only a refusal that names the key set, to a
  request that no earlier attempt can have delivered, lets the terminal seal again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from terminal.clock import HostClock
from terminal.errors import (
    EnvelopeError,
    HostAnswerInvalid,
    HostRefused,
    HostSilent,
    HostUnreachable,
    KeystoreError,
)
from terminal.events import Event, PaymentChanged
from terminal.hosts.viopay import ViopayClient
from terminal.journal import Journal, SealedRequest
from terminal.payment import PAYMENT, Answer, Happened, Kind, Payment, State, check_fit
from terminal.settings import Settings

Seal = Callable[[], SealedRequest]
"""Seals the payment's request under the key set that is current when it is called."""

SUPERSEDED = (401, "4011")
"""The host has replaced the key set and so cannot have acted."""


class Exchange:
    """Carries payments to the host. Every method returns the payment as the journal now knows it."""

    def __init__(
        self,
        client: ViopayClient,
        journal: Journal,
        clock: HostClock,
        settings: Settings,
        emit: Callable[[Event], None],
        renew_keys: Callable[[], Awaitable[None]],
    ) -> None:
        self._client, self._journal, self._clock = client, journal, clock
        self._settings, self._emit, self._renew_keys = settings, emit, renew_keys

    async def first(self, payment: Payment, seal: Seal | None) -> Payment:
        """Send a new payment. ``seal`` is None for a cancel, which has no body.

        Raises HostUnreachable (nothing left the device: withdrawn) or HostRefused (the host has not acted).
        Silence, or an answer that cannot be believed, is a payment in doubt.
        """
        payment = self._journal.begin(payment, seal() if seal else None)
        self._tell(payment)
        return await self._send(payment, seal=seal, repeated=False)

    async def again(self, payment: Payment) -> Payment:
        """Go on with a payment whose outcome is not known: the same bytes, the same idempotency key."""
        if payment.state is State.PENDING:
            return await self._watch(payment)
        payment = self._happened(payment, Happened.SENT_AGAIN)
        return await self._send(payment, seal=None, repeated=True)

    # -- below ----------------------------------------------------------------------------------------------

    async def _send(self, payment: Payment, *, seal: Seal | None, repeated: bool) -> Payment:
        try:
            answer = await self._ask(payment)
            self._check(payment, answer)
        except HostUnreachable:
            if repeated:
                return self._happened(payment, Happened.SILENT)
            self._happened(payment, Happened.UNREACHABLE)
            raise
        except HostRefused as refusal:
            if repeated or refusal.in_doubt:
                return self._happened(payment, Happened.SILENT, message=refusal.host_message)
            if (refusal.status, refusal.code) == SUPERSEDED and seal is not None:
                await self._renew_keys()
                payment = self._journal.seal_again(payment.id, seal(), self._clock.now())
                return await self._send(payment, seal=None, repeated=False)
            self._happened(payment, Happened.REFUSED, message=refusal.host_message)
            raise
        except (HostSilent, HostAnswerInvalid, EnvelopeError) as error:
            return self._happened(payment, Happened.SILENT, message=str(error))
        except KeystoreError as error:
            if not repeated:
                raise
            # The key set that sealed it is gone: it cannot be asked again, and those after it still can.
            return self._happened(payment, Happened.SILENT, message=str(error))
        return await self._settle(payment, answer)

    async def _ask(self, payment: Payment) -> Answer:
        if payment.kind is Kind.CANCEL:
            return (await self._client.cancel(payment.charge_id)).as_answer()
        request = self._journal.request(payment.id)
        if request is None:
            raise HostSilent(f"the sealed request of payment {payment.id} is gone")
        if payment.kind is Kind.REFUND:
            refund = await self._client.refund(payment.charge_id, request.body, payment.id, request.key_set_id)
            return refund.as_answer()
        return (await self._client.charge(request.body, payment.id, request.key_set_id)).as_answer()

    def _check(self, payment: Payment, answer: Answer) -> None:
        call = f"pos/{payment.kind}"
        if answer.happened not in PAYMENT.table[payment.state]:
            raise HostAnswerInvalid(call, "status", f"it cannot follow on {payment.state}")
        other = self._journal.charge_by_charge_id(answer.charge_id)
        check_fit(
            call,
            payment,
            answer,
            known=payment.kind is Kind.CHARGE and other is not None and other.id != payment.id,
            now=self._clock.now(),
            skew=timedelta(seconds=self._settings.answer_skew),
        )

    async def _settle(self, payment: Payment, answer: Answer) -> Payment:
        payment = self._happened(payment, answer.happened, **_facts(payment, answer))
        return await self._watch(payment) if payment.state is State.PENDING else payment

    async def _watch(self, payment: Payment) -> Payment:
        """Look a pending charge up until the host has decided, at most ``pending_wait`` seconds."""
        if not self._settings.host.offers_lookup or payment.kind is not Kind.CHARGE:
            return payment
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.pending_wait
        while loop.time() < until:
            await asyncio.sleep(self._settings.pending_poll)
            try:
                answer = (await self._client.charge_by_id(payment.charge_id)).as_answer()
                self._check(payment, answer)
            except (HostUnreachable, HostSilent, HostRefused, HostAnswerInvalid, EnvelopeError):
                continue
            if answer.happened is not Happened.PENDING:
                return self._happened(payment, answer.happened, **_facts(payment, answer))
        return payment

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
