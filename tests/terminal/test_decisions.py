"""What to do next with a payment: the table of decisions, searched whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from terminal.money import Amount
from terminal.payment import OPEN, PAYMENT, Happened, Kind, Payment, State, effect_on_charge
from terminal.recovery import (
    RULES,
    WRITTEN_BEFORE,
    Act,
    Circumstances,
    Reply,
    Reversal,
    Sought,
    conclude,
    decide,
    reversal_of,
)

CHARGE = Payment(
    id="0" * 32,
    kind=Kind.CHARGE,
    reference="order-17",
    amount=Amount(1250, "EUR"),
    created_at=datetime(2026, 1, 5, 9, 0, tzinfo=UTC),
)
ALL_CIRCUMSTANCES = [
    Circumstances(*values)
    for values in product((True, False), (True, False), (True, False), Sought, Reversal, (True, False))
]
STATES = {
    Kind.CHARGE: OPEN,
    Kind.REFUND: {State.IN_FLIGHT, State.IN_DOUBT, State.PENDING},
    Kind.CANCEL: {State.IN_FLIGHT, State.IN_DOUBT},
}
EVERYTHING = [
    (replace(CHARGE, kind=kind, state=state), seen)
    for kind, states in STATES.items()
    for state in sorted(states)
    for seen in ALL_CIRCUMSTANCES
]


def test_what_is_open_always_goes_on_and_only_the_till_may_be_waited_for():
    for payment, seen in EVERYTHING:
        resting = decide(payment, seen) is Act.REST
        assert resting == (payment.state is State.HELD and not seen.expired)


def test_what_is_final_rests():
    for state in set(State) - OPEN - {State.NEW}:
        assert {decide(replace(CHARGE, state=state), seen) for seen in ALL_CIRCUMSTANCES} == {Act.REST}


def test_every_row_decides_something():
    used = {id(next(rule for rule in RULES if _fits(rule, p, seen))) for p, seen in EVERYTHING if _acts(p, seen)}
    assert [rule for rule in RULES if id(rule) not in used] == []


def test_nothing_that_could_create_a_payment_is_sent_once_the_shopper_has_left():
    creating = {Act.SEND, Act.FORWARD}
    for payment, seen in EVERYTHING:
        if (
            payment.kind is Kind.CHARGE
            and not seen.present
            and payment.state not in (State.OFFLINE, State.FORWARDING)
        ):
            assert decide(payment, seen) not in creating


def test_the_last_resort_is_for_hosts_that_cannot_be_asked_and_still_remember():
    for payment, seen in EVERYTHING:
        if decide(payment, seen) is Act.SEND_TO_CANCEL:
            assert payment.state is State.ABANDONED
            assert seen.remembered
            assert not seen.lookup


def test_nothing_goes_out_again_under_a_key_that_the_host_may_have_forgotten():
    for payment, seen in EVERYTHING:
        if not seen.remembered and payment.kind is not Kind.CANCEL:
            assert decide(payment, seen) not in (Act.SEND, Act.SEND_TO_CANCEL)


def test_a_charge_that_can_be_looked_up_is_looked_up_before_it_is_sent_again():
    for payment, seen in EVERYTHING:
        looked = seen.sought is not Sought.NOT_YET
        if payment.kind is Kind.CHARGE and seen.lookup and decide(payment, seen) is Act.SEND:
            assert looked


def test_only_a_proof_ends_a_payment_as_never_made():
    for payment, seen in EVERYTHING:
        if decide(payment, seen) is Act.GIVE_UP:
            assert seen.sought is Sought.NONE


def test_what_is_written_before_an_act_is_known_to_every_state_that_decides_on_it():
    for payment, seen in EVERYTHING:
        happened = WRITTEN_BEFORE.get(decide(payment, seen))
        if happened is not None:
            assert happened in PAYMENT.table[payment.state]


@pytest.mark.parametrize("reply", Reply)
@pytest.mark.parametrize("sent_before", [True, False])
@pytest.mark.parametrize("state", [State.IN_FLIGHT, State.FORWARDING])
def test_every_reply_to_a_charge_that_was_sent_has_a_place_in_the_table(state, reply, sent_before):
    assert conclude(CHARGE, reply, sent_before=sent_before) in PAYMENT.table[state]


def test_a_refusal_of_a_repeat_proves_nothing_and_a_connection_that_fails_then_neither():
    assert conclude(CHARGE, Reply.REFUSED, sent_before=True) is Happened.SILENT
    assert conclude(CHARGE, Reply.UNREACHABLE, sent_before=True) is Happened.SILENT
    assert conclude(CHARGE, Reply.DISPROVED, sent_before=True) is Happened.REFUSED
    assert conclude(CHARGE, Reply.UNREACHABLE, sent_before=False) is Happened.UNREACHABLE


@pytest.mark.parametrize("reply", [Reply.UNREACHABLE, Reply.REFUSED])
@pytest.mark.parametrize("sent_before", [True, False])
def test_what_is_owed_is_given_up_only_where_the_host_has_judged_it(reply, sent_before):
    cancel = replace(CHARGE, kind=Kind.CANCEL)
    assert conclude(cancel, reply, sent_before=sent_before, owed=True) is Happened.SILENT
    assert conclude(cancel, Reply.DISPROVED, sent_before=sent_before, owed=True) is Happened.REFUSED


def test_an_approval_waits_for_the_till_where_it_was_asked_to_or_is_for_less():
    held, takes_less = replace(CHARGE, hold=True), replace(CHARGE, accept_partial=True)
    assert conclude(CHARGE, Reply.APPROVED, sent_before=False) is Happened.APPROVED
    assert conclude(held, Reply.APPROVED, sent_before=False) is Happened.HELD
    assert conclude(CHARGE, Reply.APPROVED_IN_PART, sent_before=False) is Happened.HELD
    assert conclude(takes_less, Reply.APPROVED_IN_PART, sent_before=False) is Happened.APPROVED
    assert conclude(replace(takes_less, hold=True), Reply.APPROVED_IN_PART, sent_before=False) is Happened.HELD


def test_a_refund_that_fails_later_gives_its_amount_back_to_the_charge():
    charge = replace(CHARGE, state=State.REFUNDED, approved=Amount(1250, "EUR"), refunded=1250)
    refund = replace(CHARGE, kind=Kind.REFUND, amount=Amount(500, "EUR"), reference="broken", state=State.FAILED)
    assert effect_on_charge(refund, charge) == (Happened.REFUND_FAILED_IN_PART, 750)
    whole = replace(refund, amount=Amount(1250, "EUR"))
    assert effect_on_charge(whole, charge) == (Happened.REFUND_FAILED, 0)
    assert effect_on_charge(replace(whole, reference="reversal"), charge) == (Happened.REFUND_FAILED, 0)
    undone = replace(charge, state=State.REVERSED)
    assert effect_on_charge(replace(whole, reference="reversal"), undone) == (Happened.REVERSAL_FAILED, 0)


def test_a_cancel_of_what_a_look_up_found_canceled_ends_and_changes_nothing():
    charge = replace(CHARGE, state=State.CANCELED)
    cancel = replace(CHARGE, kind=Kind.CANCEL, state=State.APPROVED)
    assert effect_on_charge(cancel, charge) is None


@pytest.mark.parametrize(("sent_before", "happened"), [(False, Happened.UNREACHABLE), (True, Happened.SILENT)])
def test_what_was_approved_here_is_not_lost_because_the_host_would_not_judge_it_now(sent_before, happened):
    forwarding = replace(CHARGE, state=State.FORWARDING)
    assert conclude(forwarding, Reply.REFUSED, sent_before=sent_before) is happened
    assert conclude(forwarding, Reply.DISPROVED, sent_before=sent_before) is Happened.REFUSED


def test_a_reversal_of_what_was_never_told_to_be_approved_is_whole():
    charge = replace(CHARGE, state=State.REVERSING)
    refund = replace(CHARGE, kind=Kind.REFUND, reference="reversal", state=State.APPROVED)
    assert effect_on_charge(refund, charge) == (Happened.REFUNDED, 1250)


CANCEL = replace(CHARGE, kind=Kind.CANCEL, reference="")
REFUND = replace(CHARGE, kind=Kind.REFUND, reference="reversal")
REFUSED_CANCEL, REFUSED_REFUND = replace(CANCEL, state=State.REFUSED), replace(REFUND, state=State.REFUSED)
IN_PART = replace(REFUSED_REFUND, amount=Amount(500, "EUR"))
"""A refund of what the host then said was left."""
BY_THE_TILL = replace(REFUSED_REFUND, reference="broken")


@pytest.mark.parametrize(
    ("children", "reversal"),
    [
        ([], Reversal.NONE),
        ([replace(CANCEL, state=State.WITHDRAWN)], Reversal.NONE),
        ([replace(CANCEL, state=State.IN_DOUBT)], Reversal.OPEN),
        ([REFUSED_CANCEL], Reversal.CANCEL_REFUSED),
        ([REFUSED_CANCEL, replace(REFUND, state=State.PENDING)], Reversal.OPEN),
        ([REFUSED_CANCEL, REFUSED_REFUND], Reversal.CANCEL_REFUSED),
        ([REFUSED_CANCEL, REFUSED_REFUND, replace(REFUND, state=State.FAILED)], Reversal.STUCK),
        ([REFUSED_CANCEL, REFUSED_REFUND, IN_PART], Reversal.CANCEL_REFUSED),
        ([REFUSED_CANCEL, REFUSED_REFUND, BY_THE_TILL], Reversal.CANCEL_REFUSED),
    ],
)
def test_a_cancel_is_tried_then_two_refunds_of_what_is_left_then_a_person(children, reversal):
    charge = replace(CHARGE, state=State.REVERSING, charge_id="ch_abc123def456")
    assert reversal_of(charge, children) is reversal


def _acts(payment, seen):
    return decide(payment, seen) is not Act.REST


def _fits(rule, payment, seen):
    return (
        decide(payment, seen) is rule.act
        and all(
            getattr(rule, name) in (None, getattr(seen, name))
            for name in ("present", "remembered", "lookup", "sought", "reversal", "expired")
        )
        and payment.kind in rule.kinds
        and payment.state in rule.states
    )
