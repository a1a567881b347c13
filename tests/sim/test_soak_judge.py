"""The judge's rules, each on evidence that is well and on evidence that is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from sim.soak.evidence import Evidence
from sim.soak.judge import violations
from sim.soak.record import Judged, Record, Sale, Sent
from terminal.journal import Record as Entry
from terminal.money import Amount
from terminal.payment import Happened, Kind, Payment, State

AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
KEY = "a" * 32
EUR = Amount(1250, "EUR")


def charge(**changes: Any) -> Payment:
    facts = {
        "id": KEY, "kind": Kind.CHARGE, "reference": "r", "amount": EUR, "state": State.APPROVED, "created_at": AT,
        "entry_mode": "swipe", "charge_id": "ch_1", "approved": EUR,
    }  # fmt: skip
    return Payment(**facts | changes)


def booked(**changes: Any) -> dict[str, Any]:
    return {
        "id": "ch_1", "terminal_id": "T", "idempotency_key": KEY, "reference": "r", "status": "approved",
        "amount": {"value": "1250", "currency": "EUR"}, "refunds": [], "entry_mode": "swipe",
    } | changes  # fmt: skip


def entries(*happened: Happened, payment_id: str = KEY) -> list[Entry]:
    return [Entry(n, "", payment_id, one, {}) for n, one in enumerate(happened, 1)]


def evidence(**changes: Any) -> Evidence:
    """One sale, approved and seen."""
    record = Record()
    sale = record.sales["r"] = Sale("r", 1250, "EUR", began=1.0)
    record.sent.append(Sent(1.0, "charge", KEY, "d1", 1))
    record.judged.append(Judged(1.0, "charge", KEY, "d1", 200))
    record.turns.append((0, 1))
    payment = charge()
    record.tell(1.0, payment)
    assert sale.saw == 1.0
    seen = Evidence(
        [payment], entries(Happened.JOURNALLED, Happened.APPROVED), [booked()], record, "T",
        offline={"max_amount": 1000, "max_total": 3000, "max_count": 2},
    )  # fmt: skip
    return replace(seen, **changes)


def rules(seen: Evidence) -> set[str]:
    return {violation.rule for violation in violations(seen)}


def test_a_plain_sale_is_well() -> None:
    assert violations(evidence()) == []


def left(**changes: Any) -> Evidence:
    """The shopper was told nothing, and has left."""
    seen = evidence(**changes)
    sale = seen.record.sales["r"]
    sale.saw, sale.left = None, 5.0
    seen.record.told.clear()
    return seen


@pytest.mark.parametrize(
    ("seen", "rule"),
    [
        (evidence(payments=[]), "books"),
        (evidence(payments=[]), "intent"),
        (evidence(ledger=[]), "approval_kept"),
        (evidence(ledger=[booked(amount={"value": "1251", "currency": "EUR"})]), "charged_once"),
        (evidence(ledger=[booked(), booked(id="ch_2", idempotency_key="b" * 32)]), "charged_once"),
        (evidence(ledger=[booked(reference="nobody's")]), "charged_once"),
        (evidence(ledger=[booked(status="canceled")]), "approval_kept"),
        (evidence(damage=["the chain breaks"]), "journal"),
        (left(), "left_free"),
        (evidence(payments=[charge(state=State.IN_DOUBT)]), "stuck"),
        (evidence(payments=[charge(state=State.HELD)]), "stuck"),
        (evidence(entries=entries(Happened.JOURNALLED, Happened.LEFT, Happened.APPROVED)), "undone"),
        (evidence(entries=entries(Happened.JOURNALLED, Happened.STORED)), "offline"),
    ],
)
def test_what_may_not_be(seen: Evidence, rule: str) -> None:
    assert rule in rules(seen)


def test_a_refund_that_was_made_twice() -> None:
    made = [
        {
            "id": f"rf_{n}",
            "idempotency_key": str(n),
            "amount": {"value": "100", "currency": "EUR"},
            "status": "approved",
            "reason": "cold",
        }
        for n in range(2)
    ]
    assert "refunded_once" in rules(evidence(ledger=[booked(status="partially_refunded", refunds=made)]))


def test_other_bytes_under_the_same_key() -> None:
    seen = evidence()
    seen.record.sent.append(Sent(2.0, "charge", KEY, "d2", 1))
    assert rules(seen) == {"same_bytes"}


def test_other_bytes_where_the_host_has_not_judged_the_first() -> None:
    """They may be under way; unless no connection was made, and the charge was approved offline for that."""
    seen = evidence(payments=[charge(amount=Amount(900, "EUR"), approved=Amount(900, "EUR"))])
    seen.record.judged[:] = [Judged(2.0, "charge", KEY, "d2", 200)]
    seen.record.sent.append(Sent(2.0, "charge", KEY, "d2", 1))
    assert "same_bytes" in rules(seen)
    stored = entries(Happened.JOURNALLED, Happened.STORED, Happened.FORWARDED, Happened.APPROVED)
    assert "same_bytes" not in rules(replace(seen, entries=stored))
    seen.record.judged.append(Judged(2.0, "charge", KEY, "d1", 500))
    assert "same_bytes" in rules(replace(seen, entries=stored))


@pytest.mark.parametrize(
    ("statuses", "well"), [((401,), True), ((429, 401), True), ((429,), False), ((500, 401), False)]
)
def test_other_bytes_where_the_host_had_refused_the_keys(statuses: tuple[int, ...], well: bool) -> None:
    seen = evidence()
    told = [Judged(1.0, "charge", KEY, "d1", status) for status in statuses]
    seen.record.judged[:] = [*told, Judged(2.0, "charge", KEY, "d2", 200)]
    seen.record.sent.append(Sent(2.0, "charge", KEY, "d2", 1))
    assert ("same_bytes" not in rules(seen)) is well


def test_a_sending_after_the_shopper_has_left() -> None:
    seen = left(ledger=[booked(status="canceled")], payments=[charge(state=State.CANCELED)])
    assert rules(seen) == set()
    seen.record.sent.append(Sent(5.0, "charge", KEY, "d1", 1))
    assert rules(seen) == set()
    seen.record.sent.append(Sent(5.1, "charge", KEY, "d1", 1))
    assert rules(seen) == {"sent_after_leaving"}


def test_the_last_resort_is_for_hosts_without_look_ups() -> None:
    seen = left(
        ledger=[booked(status="canceled")],
        payments=[charge(state=State.CANCELED)],
        entries=entries(Happened.JOURNALLED, Happened.LEFT, Happened.SENT_TO_CANCEL, Happened.CANCELED),
    )
    seen.record.sent.append(Sent(6.0, "charge", KEY, "d1", 1))
    assert rules(replace(seen, lookup=False)) == set()
    assert rules(seen) == {"sent_after_leaving"}


def test_a_renewal_between_the_sending_and_the_answer() -> None:
    seen = evidence()
    seen.record.sent.append(Sent(1.5, "keys", "", "", 1))
    assert rules(seen) == set()  # after the till had its answer
    seen.record.turns[:] = [(0, 2)]
    assert rules(seen) == {"renewed_meanwhile"}
    seen.record.judged.append(Judged(1.2, "charge", KEY, "d1", 401))
    assert rules(seen) == set()  # the host wanted it


def test_what_was_approved_offline_goes_in_order() -> None:
    keys = ["b" * 32, "c" * 32]
    both = [charge(id=key, reference=key[0], amount=Amount(100, "EUR"), charge_id="") for key in keys]
    stored = [Entry(n, "", key, Happened.STORED, {}) for n, key in enumerate(keys)]
    forwarded = [Entry(9, "", key, Happened.FORWARDED, {}) for key in reversed(keys)]
    seen = evidence()
    seen = replace(seen, payments=[*seen.payments, *both], entries=[*seen.entries, *stored, *forwarded])
    assert "offline" in rules(seen)
    seen = replace(seen, entries=[*seen.entries[:4], *reversed(forwarded)])
    assert "offline" not in rules(seen)


def test_a_second_attempt_while_the_first_is_in_doubt() -> None:
    second = "b" * 32
    seen = evidence(
        payments=[charge(), charge(id=second, charge_id="", state=State.DECLINED)],
        entries=[*entries(Happened.JOURNALLED), *entries(Happened.JOURNALLED, payment_id=second)],
    )
    assert "one_key" in rules(seen)


def test_secrets_failures_and_what_the_till_could_not_undo() -> None:
    seen = evidence()
    seen.record.leaks.append("journal.db")
    seen.record.failures.append("it does not come up")
    seen.record.undo["r9"] = "ch_9"
    assert rules(seen) == {"secret", "failure", "stuck"}


def test_with_what_only_a_person_can_go_on() -> None:
    failed = [
        {
            "id": "rf_1",
            "idempotency_key": "k",
            "amount": {"value": "1250", "currency": "EUR"},
            "status": "failed",
            "reason": "reversal",
        }
    ]
    seen = left(ledger=[booked(refunds=failed)], payments=[charge(state=State.REVERSING)])
    assert {"left_free", "stuck"} <= rules(seen)
    seen = left(ledger=[booked(refunds=failed)], payments=[charge(state=State.REVERSING)])
    seen.record.for_a_person[KEY] = None
    assert rules(seen) == set()


def test_a_refund_that_failed_later_is_the_tills_to_make_again() -> None:
    """The till gave back what nobody saw approved; the host failed that later, and the terminal has told it."""
    refund = charge(id="c" * 32, kind=Kind.REFUND, parent=KEY, reference="r-undo", state=State.APPROVED)
    assert "left_free" in rules(left(payments=[charge(), refund]))
    assert rules(left(payments=[charge(), replace(refund, state=State.FAILED)])) == set()


def test_a_refund_that_failed_later_is_not_seen_where_the_host_cannot_be_asked() -> None:
    refund = charge(id="c" * 32, kind=Kind.REFUND, parent=KEY, reference="r-all", state=State.APPROVED)
    paid = charge(state=State.REFUNDED, refunded=1250)
    amount = {"value": "1250", "currency": "EUR"}
    failed = {"id": "rf_1", "idempotency_key": refund.id, "amount": amount, "status": "failed", "reason": "r-all"}
    for lookup in (True, False):
        seen = evidence(payments=[paid, refund], ledger=[booked(refunds=[failed])], lookup=lookup)
        assert ("books" in rules(seen)) is lookup


@pytest.mark.parametrize(("statuses", "well"), [((409,), True), ((409, 200), False), ((500,), False), ((), False)])
def test_a_reversal_that_the_host_refused_is_for_a_person(statuses: tuple[int, ...], well: bool) -> None:
    refund = charge(id="c" * 32, kind=Kind.REFUND, parent=KEY, reference="reversal", state=State.REFUSED)
    seen = left(payments=[charge(state=State.REVERSING), refund])
    seen.record.for_a_person[KEY] = None
    seen.record.judged += [Judged(2.0, "refund", refund.id, "d2", status) for status in statuses]
    assert ("stuck" not in rules(seen)) is well


def test_one_charge_that_the_host_told_under_two_references_is_for_a_person() -> None:
    """The till was told the charge of "lost" for "r"; when that is looked up it is nobody's any more."""
    lost = charge(id="b" * 32, reference="lost", state=State.ABANDONED, charge_id="", approved=None)
    ledger = [booked(reference="lost", idempotency_key=lost.id), booked(id="ch_2")]
    seen = evidence(payments=[charge(), lost], ledger=ledger)
    seen.record.sales["lost"] = Sale("lost", 1250, "EUR", began=1.0, left=5.0)
    assert {"approval_kept", "stuck", "books", "left_free"} <= rules(seen)
    seen = replace(seen, payments=[charge(), lost])  # nothing of the first look is kept
    seen.record.for_a_person[lost.id] = None
    assert rules(seen) <= {"intent"}


def test_a_host_that_cannot_be_asked_and_has_forgotten_leaves_it_to_a_person() -> None:
    """What was forwarded and never decided is as open as what was sent at once."""
    for state in (State.PENDING, State.FORWARDING):
        seen = evidence(payments=[charge(state=state)], lookup=False)
        seen.record.told.clear()
        assert "stuck" in rules(seen)
        seen = replace(seen, payments=[charge(state=state)])  # nothing of the first look is kept
        seen.record.for_a_person[KEY] = None
        assert rules(seen) == set()
        assert "stuck" in rules(replace(seen, lookup=True))
