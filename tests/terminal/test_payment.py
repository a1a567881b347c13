"""An answer is believed only if it fits the question."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from terminal.errors import HostAnswerInvalid
from terminal.fit import Answer, check_fit
from terminal.money import Amount
from terminal.payment import Happened, Kind, Payment, State

NOON = datetime(2025, 12, 13, 12, 0, tzinfo=UTC)
SKEW = timedelta(minutes=5)
ASKED = Payment(id="0" * 32, kind=Kind.CHARGE, reference="order-17", amount=Amount(1250, "EUR"), created_at=NOON)
REFUND = replace(ASKED, kind=Kind.REFUND, charge_id="ch_1", amount=Amount(500, "EUR"))
FITS = Answer(
    happened=Happened.APPROVED, charge_id="ch_1", amount=Amount(1250, "EUR"), reference="order-17", at=NOON
)
FITS_REFUND = replace(FITS, amount=Amount(500, "EUR"), reference=None)


def check(asked: Payment, answer: Answer, *, known: bool = False, now: datetime = NOON) -> None:
    check_fit("pos/charge", asked, answer, known=known, now=now, skew=SKEW)


def test_what_fits_is_believed():
    check(ASKED, FITS)
    check(REFUND, FITS_REFUND)


def test_a_partial_approval_of_a_charge_fits():
    check(ASKED, replace(FITS, amount=Amount(625, "EUR")))


def test_a_repeat_hours_later_brings_the_first_answer_and_fits():
    check(ASKED, FITS, now=NOON + timedelta(hours=20))


@pytest.mark.parametrize(
    ("asked", "changed", "field"),
    [
        (ASKED, {"amount": Amount(1251, "EUR")}, "amount.value"),
        (ASKED, {"amount": Amount(1250, "USD")}, "amount.currency"),
        (ASKED, {"reference": "order-18"}, "reference"),
        (ASKED, {"at": NOON - timedelta(minutes=6)}, "created_at"),
        (ASKED, {"at": NOON + timedelta(minutes=6)}, "created_at"),
        (ASKED, {"happened": Happened.DECLINED, "amount": Amount(625, "EUR")}, "amount.value"),
        (REFUND, {"charge_id": "ch_2", "amount": Amount(500, "EUR"), "reference": None}, "id"),
        (REFUND, {"amount": Amount(499, "EUR"), "reference": None}, "amount.value"),
    ],
)
def test_what_does_not_fit_is_named(asked, changed, field):
    with pytest.raises(HostAnswerInvalid) as caught:
        check(asked, replace(FITS, **changed))
    assert caught.value.field == field


def test_a_charge_id_that_another_payment_has_is_refused():
    with pytest.raises(HostAnswerInvalid, match="belongs to another payment"):
        check(ASKED, FITS, known=True)


def test_only_what_is_left_of_a_taken_charge_can_be_refunded():
    taken = replace(ASKED, state=State.PARTIALLY_REFUNDED, approved=Amount(625, "EUR"), refunded=600)
    assert taken.left == 25
    assert replace(taken, state=State.CANCELED).left == 0
    assert ASKED.left == 0
