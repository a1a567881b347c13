"""Bugs that are planted into the code that ships, each one as a context manager, in one literal table: whoever
searches for bugs of this kind has to find every one of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from terminal import asking, cards, course, finding, new_charge, recovery
from terminal.events import CardRead
from terminal.fit import Answer
from terminal.hosts.viopay import ViopayClient
from terminal.journal import Journal, SealedRequest
from terminal.payment import PAYMENT, Happened, Kind, Payment, State
from terminal.recovery import Act, Rule

Planted = Callable[[], AbstractContextManager[Any]]


@contextmanager
def no_intent_written() -> Iterator[None]:
    """What is asked comes into the journal together with what came of it: one commit saved."""
    begin, record, known, request = Journal.begin, Journal.record, Journal.payment, Journal.request
    waiting: dict[str, tuple[Payment, SealedRequest | None]] = {}

    def only_remember(self: Journal, payment: Payment, sealed: SealedRequest | None) -> Payment:
        waiting[payment.id] = payment, sealed
        return dataclasses.replace(payment, state=State.IN_FLIGHT)

    def both(self: Journal, payment_id: str, happened: Happened, at: Any, **facts: Any) -> Payment:
        if payment_id in waiting:
            begin(self, *waiting.pop(payment_id))
        return record(self, payment_id, happened, at, **facts)

    def remembered(self: Journal, payment_id: str) -> Payment:
        if payment_id in waiting:
            return dataclasses.replace(waiting[payment_id][0], state=State.IN_FLIGHT)
        return known(self, payment_id)

    def sealed_one(self: Journal, payment_id: str) -> SealedRequest | None:
        return waiting[payment_id][1] if payment_id in waiting else request(self, payment_id)

    with mock.patch.multiple(Journal, begin=only_remember, record=both, payment=remembered, request=sealed_one):
        yield


@contextmanager
def no_outcome_written() -> Iterator[None]:
    """An approval goes to the caller, and not into the journal."""
    record = Journal.record

    def forget(self: Journal, payment_id: str, happened: Happened, at: Any, **facts: Any) -> Payment:
        payment = self.payment(payment_id)
        if happened is Happened.APPROVED and payment.kind is Kind.CHARGE:
            facts.pop("request", None)
            state = PAYMENT.step(payment.state, happened)
            return dataclasses.replace(payment, state=state, **facts)
        return record(self, payment_id, happened, at, **facts)

    with mock.patch.object(Journal, "record", forget):
        yield


def _on_retries(change: Callable[[ViopayClient, bytes, str], tuple[bytes, str]]) -> AbstractContextManager[Any]:
    """Other bytes, or another key, from the second sending of a charge on."""
    charge, sent = ViopayClient.charge, Counter[str]()

    async def changed(self: ViopayClient, body: bytes, key: str, *more: Any) -> Any:
        sent[key] += 1
        if sent[key] > 1:
            body, key = change(self, body, key)
        return await charge(self, body, key, *more)

    return mock.patch.object(ViopayClient, "charge", changed)


def new_key_on_retry() -> AbstractContextManager[Any]:
    """Every attempt has an idempotency key of its own."""
    return _on_retries(lambda client, body, key: (body, key[::-1]))


def resealed_retry() -> AbstractContextManager[Any]:
    """A repeat is sealed anew."""

    def reseal(client: ViopayClient, body: bytes, key: str) -> tuple[bytes, str]:
        keystore = client._keystore
        return keystore.seal(keystore.open(body, limit=65_536)), key

    return _on_retries(reseal)


def _rules(change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> AbstractContextManager[Any]:
    return mock.patch.object(recovery, "RULES", change(recovery.RULES))


def forgotten_cancel() -> AbstractContextManager[Any]:
    """What is to be reversed is left alone."""
    return _rules(lambda rules: tuple(rule for rule in rules if rule.act is not Act.CANCEL))


def held_for_ever() -> AbstractContextManager[Any]:
    """Silence of the till means nothing."""
    return _rules(lambda rules: tuple(rule for rule in rules if rule.act is not Act.VOID))


def sent_after_leaving() -> AbstractContextManager[Any]:
    """Once the shopper has left the charge is sent again, look-up or not."""
    rule = Rule(frozenset({Kind.CHARGE}), frozenset({State.ABANDONED}), Act.SEND_TO_CANCEL)
    return _rules(lambda rules: (rule, *rules))


@contextmanager
def renewal_in_mid_payment() -> Iterator[None]:
    """Whether keys end soon is looked at after each sending, too."""
    send = asking.Asking._send
    sent = Counter[str]()

    async def renewing(self: asking.Asking, what: course.Do, errand: asking.Errand) -> course.Heard:
        heard = await send(self, what, errand)
        sent["all"] += 1
        if sent["all"] % 50 == 0:
            await self._climb.renew_keys()
        return heard

    with mock.patch.object(asking.Asking, "_send", renewing):
        yield


def belief_in_another_amount() -> AbstractContextManager[Any]:
    """An approval is an approval, whatever it is for."""
    fit = asking.check_fit

    def believe(call: str, asked: Payment, answer: Answer, **more: Any) -> None:
        fit(call, asked, dataclasses.replace(answer, amount=None), **more)

    return mock.patch.object(asking, "check_fit", believe)


def doubt_without_effect() -> AbstractContextManager[Any]:
    """A charge that is in doubt is begun anew when it is asked for again."""
    doubtful = finding.WITHOUT_EFFECT | {State.IN_DOUBT, State.IN_FLIGHT}
    return mock.patch.object(finding, "WITHOUT_EFFECT", doubtful)


def forgotten_refund() -> AbstractContextManager[Any]:
    """A refund that is asked for again once its outcome has become known is another one."""
    return mock.patch.object(finding, "unheard_refund", return_value=None)


def no_offline_limits() -> AbstractContextManager[Any]:
    """Whatever cannot be sent is approved here."""
    return mock.patch.object(new_charge, "may_approve", return_value=None)


def card_number_told() -> AbstractContextManager[Any]:
    """The event of a card that was read has its number."""

    def told(**facts: Any) -> CardRead:
        return CardRead(**facts | {"masked_pan": "4111111111111111"})

    return mock.patch.object(cards, "CardRead", told)


def silence_is_a_refusal() -> AbstractContextManager[Any]:
    """No answer: then the host has not acted."""
    meanings = recovery.MEANINGS | {
        recovery.Reply.SILENT: recovery.Meaning(Happened.REFUSED, Happened.REFUSED),
    }
    return mock.patch.object(recovery, "MEANINGS", meanings)


PLANTED: dict[str, tuple[Planted, frozenset[str]]] = {
    # name: (the bug, the rules of which it offends at least one)
    "no intent written": (no_intent_written, frozenset({"intent", "books"})),
    "no outcome written": (no_outcome_written, frozenset({"approval_kept", "books", "left_free"})),
    "a new key on retry": (new_key_on_retry, frozenset({"intent", "books", "charged_once"})),
    "a re-sealed retry": (resealed_retry, frozenset({"same_bytes"})),
    "a forgotten cancel": (forgotten_cancel, frozenset({"stuck", "left_free", "undone"})),
    "held for ever": (held_for_ever, frozenset({"stuck", "left_free"})),
    "renewal in mid-payment": (renewal_in_mid_payment, frozenset({"renewed_meanwhile"})),
    "belief in an answer for another amount": (belief_in_another_amount, frozenset({"books", "approval_kept"})),
    "a re-send after the shopper left": (sent_after_leaving, frozenset({"sent_after_leaving"})),
    "a doubt without effect": (doubt_without_effect, frozenset({"charged_once", "one_key"})),
    "a forgotten refund": (forgotten_refund, frozenset({"refunded_once"})),
    "no limits offline": (no_offline_limits, frozenset({"offline"})),
    "a card number told": (card_number_told, frozenset({"secret"})),
    "silence is a refusal": (silence_is_a_refusal, frozenset({"books", "left_free", "charged_once"})),
}
"""Every bug, and how it is recognised."""
