"""The order in which a round writes and sends: every course, driven by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from terminal.course import SENDING, Begin, Do, Heard, Mended, Read, Write, course
from terminal.money import Amount
from terminal.payment import PAYMENT, Happened, Kind, Payment, State
from terminal.recovery import WRITTEN_BEFORE, Act, Circumstances, Reply, Reversal, Sought

CHARGE = Payment(
    id="0" * 32,
    kind=Kind.CHARGE,
    reference="order-17",
    amount=Amount(1250, "EUR"),
    created_at=datetime(2026, 1, 5, 9, 0, tzinfo=UTC),
)


def run(payment, answers, *, wary=False, reversal=Reversal.NONE, **seen):
    """Drive a round: `answers` are what each Do hears; a pair also says the state that the payment has by then.

    Gives back the steps, as words, and how the round ended.
    """
    answers = iter(answers)
    steps, journal = [], {payment.id: payment}
    reversals = iter(reversal) if isinstance(reversal, list) else None

    def looking(payment, sought):
        now = next(reversals) if reversals and payment.state is State.REVERSING else reversal
        return Circumstances(sought=sought, reversal=now if reversals or reversal else Reversal.NONE, **seen)

    running, sent = course(payment, looking, wary=wary), None
    while True:
        try:
            effect = running.send(sent)
        except StopIteration as end:
            return steps, end.value
        match effect:
            case Write(about, happened):
                before = journal[about.id]
                sent = journal[about.id] = replace(before, state=PAYMENT.step(before.state, happened))
                steps.append(f"{about.kind}: {happened}" if about.kind is not payment.kind else str(happened))
            case Do(about, act):
                steps.append(act.name)
                heard = next(answers)
                if isinstance(heard, tuple):
                    heard, state = heard
                    journal[about.id] = replace(journal[about.id], state=state)
                sent = answer(journal[about.id], heard)
            case Begin(about, kind):
                sent = journal["1" * 32] = replace(CHARGE, id="1" * 32, kind=kind, parent=about.id)
            case Read(about):
                sent = journal[about.id]


def answer(payment, heard):
    match heard:
        case Heard():
            return replace(heard, payment=payment)
        case Sought():
            return Heard(payment, sought=heard)
        case _:
            return Heard(payment, heard, sought=Sought.FOUND)


def test_a_charge_is_written_sent_and_written():
    steps, ended = run(CHARGE, [Reply.APPROVED])
    assert steps == ["journalled", "SEND", "approved"]
    assert (ended.payment.state, ended.act) == (State.APPROVED, Act.REST)


def test_silence_is_followed_by_a_look_up_and_not_by_a_second_sending():
    steps, ended = run(CHARGE, [Reply.SILENT, Sought.NONE_YET])
    assert steps == ["journalled", "SEND", "silent", "LOOK_UP"]
    assert (ended.payment.state, ended.act) == (State.IN_DOUBT, Act.SEND)


def test_a_later_round_looks_up_sends_and_looks_up_again():
    steps, ended = run(replace(CHARGE, state=State.IN_DOUBT), [Sought.NONE_YET, Reply.SILENT, Reply.APPROVED])
    assert steps == ["LOOK_UP", "sent_again", "SEND", "silent", "LOOK_UP", "approved"]
    assert ended.act is Act.REST


def test_a_look_up_that_brings_nothing_ends_the_round():
    steps, ended = run(replace(CHARGE, state=State.IN_DOUBT), [Sought.NOT_YET])
    assert (steps, ended.act) == (["LOOK_UP"], Act.LOOK_UP)


def test_what_was_mended_is_sealed_again_only_where_the_host_has_certainly_not_acted():
    assert run(CHARGE, [Mended.KEYS, Reply.APPROVED])[0] == [
        "journalled",
        "SEND",
        "sealed_again",
        "SEND",
        "approved",
    ]
    assert run(CHARGE, [Mended.CLOCK, Reply.APPROVED])[0] == [
        "journalled",
        "SEND",
        "sent_again",
        "SEND",
        "approved",
    ]
    doubtful = Heard(CHARGE, Mended.KEYS, doubt=True)
    assert run(CHARGE, [doubtful, Reply.APPROVED])[0] == ["journalled", "SEND", "sent_again", "SEND", "approved"]


def test_after_another_sending_was_mended_all_is_decided_anew():
    steps, _ = run(replace(CHARGE, state=State.IN_DOUBT), [Sought.NONE_YET, Mended.CLOCK, Reply.APPROVED])
    assert steps == ["LOOK_UP", "sent_again", "SEND", "LOOK_UP", "approved"]


def test_what_was_mended_does_not_go_out_again_once_the_shopper_has_left():
    steps, ended = run(CHARGE, [(Mended.KEYS, State.ABANDONED)])
    assert steps == ["journalled", "SEND", "refused"]
    assert ended.payment.state is State.REFUSED


def test_an_approval_after_the_shopper_has_left_is_canceled_in_the_same_round():
    steps, ended = run(
        CHARGE,
        [(Reply.APPROVED, State.ABANDONED), Reply.APPROVED],
        reversal=[Reversal.NONE, Reversal.OPEN],
        present=False,
    )
    assert steps == ["journalled", "SEND", "approved", "cancel: journalled", "SEND", "cancel: approved"]
    assert ended.act is Act.WAIT  # the journal has changed the charge with the cancel


def test_a_cancel_that_is_owed_stays_open_without_a_connection():
    steps, ended = run(
        replace(CHARGE, state=State.REVERSING), [Reply.UNREACHABLE], reversal=[Reversal.NONE, Reversal.OPEN]
    )
    assert steps == ["cancel: journalled", "SEND", "cancel: silent"]
    assert ended.act is Act.WAIT


def test_a_cancel_that_was_refused_is_followed_by_a_look_up_and_a_refund():
    steps, _ = run(
        replace(CHARGE, state=State.REVERSING),
        [Reply.DISPROVED, Reply.APPROVED, Reply.APPROVED],
        reversal=[Reversal.NONE, Reversal.CANCEL_REFUSED, Reversal.CANCEL_REFUSED, Reversal.OPEN],
    )
    assert steps[:3] == ["cancel: journalled", "SEND", "cancel: refused"]
    assert steps[3:] == ["LOOK_UP", "refund: journalled", "SEND", "refund: approved"]


def test_a_cancel_that_was_refused_is_followed_by_a_look_up_even_where_one_came_before_it():
    steps, _ = run(
        replace(CHARGE, state=State.ABANDONED),
        [Reply.PENDING, Reply.DISPROVED, Reply.DECLINED],
        reversal=[Reversal.NONE, Reversal.CANCEL_REFUSED],
        present=False,
    )
    assert steps == ["LOOK_UP", "pending", "cancel: journalled", "SEND", "cancel: refused", "LOOK_UP", "declined"]


def test_a_cancel_that_is_owed_and_was_not_judged_goes_on():
    steps, ended = run(
        replace(CHARGE, state=State.REVERSING), [Reply.REFUSED], reversal=[Reversal.NONE, Reversal.OPEN]
    )
    assert steps == ["cancel: journalled", "SEND", "cancel: silent"]
    assert ended.act is Act.WAIT


@pytest.mark.parametrize(
    ("offline", "state", "last"),
    [
        (True, State.IN_FLIGHT, "stored"),
        (False, State.IN_FLIGHT, "unreachable"),
        (True, State.ABANDONED, "unreachable"),
    ],
)
def test_without_a_connection_it_is_approved_here_where_that_is_allowed_and_somebody_waits(offline, state, last):
    heard = Heard(CHARGE, Reply.UNREACHABLE, offline=offline)
    steps, _ = run(CHARGE, [(heard, state)])
    assert steps == ["journalled", "SEND", last]


@pytest.mark.parametrize(
    ("sought", "steps"),
    [
        (Sought.NOT_YET, ["journalled", "LOOK_UP", "unreachable"]),
        (Sought.NONE_YET, ["journalled", "LOOK_UP", "SEND", "approved"]),
        (Reply.DECLINED, ["journalled", "LOOK_UP", "declined"]),
    ],
)
def test_a_wary_terminal_asks_before_it_sends(sought, steps):
    assert run(CHARGE, [sought, Reply.APPROVED], wary=True)[0] == steps


def test_a_pending_charge_that_is_still_pending_is_not_written_again():
    steps, ended = run(replace(CHARGE, state=State.PENDING), [Reply.PENDING])
    assert (steps, ended.act) == (["LOOK_UP"], Act.WAIT)


def test_nothing_but_the_first_sending_leaves_before_it_is_written():
    """The one exception is written by JOURNALLED."""
    for act in SENDING:
        assert act in WRITTEN_BEFORE
    steps, _ = run(replace(CHARGE, state=State.OFFLINE), [Reply.APPROVED])
    assert steps == ["forwarded", "FORWARD", "approved"]
    steps, _ = run(
        replace(CHARGE, state=State.ABANDONED),
        [Reply.DECLINED],
        lookup=False,
        present=False,
    )
    assert steps == ["sent_to_cancel", "SEND_TO_CANCEL", "declined"]
    assert Happened.JOURNALLED not in WRITTEN_BEFORE.values()
