"""A till and its host as real processes, either of them killed by SIGKILL again and again: the books agree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from terminal import Amount
from terminal.payment import Kind, Payment, State
from tests.e2e.killing_judge import violations
from tests.e2e.killing_till import Order, Wish, order

DEADLINE = 900.0


def run(kills: int, seed: int, *more: str) -> dict[str, Any]:
    """What a run of its own process ends with. Nothing that it started outlives it."""
    command = [
        sys.executable,
        "-m",
        "tests.e2e.killing_loop",
        "--kills",
        str(kills),
        "--seed",
        str(seed),
        "--json",
        *more,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            said, _ = process.communicate(timeout=DEADLINE)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    result: dict[str, Any] = json.loads(said)
    assert process.returncode == (1 if result["violations"] else 0)
    return result


def check(result: dict[str, Any], kills: int) -> None:
    assert result["violations"] == [], f"seed {result['seed']}:\n" + "\n".join(result["violations"])
    assert sum(result["kills"].values()) >= kills
    assert result["seen"] > kills
    for kind in ("charge approved", "refund approved", "cancel approved"):
        assert result["payments"][kind] > 0


def test_forty_kills() -> None:
    check(run(40, 7, "--nobody-leaves"), 40)


@pytest.mark.long
def test_five_hundred_kills() -> None:
    result = run(500, 11, "--nobody-leaves")
    check(result, 500)
    assert result["payments"]["charge canceled"] > 0
    # It is no proof unless they died where it matters: before the host had acted, and after.
    for side in ("till", "host"):
        for moment in ("charge in_flight, the host has it not", "charge in_flight, the host has it"):
            assert result["open_at_kill"][side][moment] >= 10


@pytest.mark.long
def test_kills_while_some_leave_before_they_have_their_answer() -> None:
    """Takes as long as what was sent may still arrive."""
    result = run(60, 12)
    check(result, 60)
    assert result["left"] > 0


# -- the judge ------------------------------------------------------------------------------------------------

ORDER = Order(1, 1200, "4111111111111111", Wish.REFUND, (200,), accept_partial=False, asked_twice=False, stay=0.0)
CHARGE = Payment(
    id="k1",
    kind=Kind.CHARGE,
    reference="order-1",
    amount=Amount(1200, "EUR"),
    state=State.PARTIALLY_REFUNDED,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    entry_mode="manual",
    charge_id="ch_1",
    approved=Amount(1200, "EUR"),
    refunded=200,
)
REFUND = Payment(
    id="k2",
    kind=Kind.REFUND,
    reference="order-1/1",
    amount=Amount(200, "EUR"),
    state=State.APPROVED,
    parent="k1",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    charge_id="ch_1",
    refund_id="rf_1",
)


def money(minor: int) -> dict[str, str]:
    return {"value": str(minor), "currency": "EUR"}


def ledger() -> dict[str, Any]:
    refund = {"id": "rf_1", "idempotency_key": "k2", "amount": money(200), "status": "approved"}
    refund |= {"reason": "order-1/1"}
    charge: dict[str, Any] = {
        "id": "ch_1",
        "terminal_id": "TID-1",
        "idempotency_key": "k1",
        "reference": "order-1",
        "amount": money(1200),
        "status": "partially_refunded",
        "refunds": [refund],
        "entry_mode": "manual",
    }
    return {"charges": [charge]}


def seen() -> list[dict[str, Any]]:
    charge: dict[str, Any] = {"kind": "charge", "state": "approved", "charge_id": "ch_1", "reference": "order-1"}
    charge |= {"id": "k1", "approved": {"minor": 1200, "currency": "EUR"}}
    refund: dict[str, Any] = {
        "id": "k2",
        "kind": "refund",
        "state": "approved",
        "charge_id": "ch_1",
        "refund_id": "rf_1",
    }
    return [charge, refund | {"amount": {"minor": 200, "currency": "EUR"}}]


def judged(book: dict[str, Any], **changes: Any) -> list[str]:
    known = {"orders": {"order-1": ORDER}, "seen": seen(), "payments": [CHARGE, REFUND]} | changes
    return violations(ledger=book, terminal_id="TID-1", **known)


def test_books_that_agree_are_found_to() -> None:
    assert judged(ledger()) == []


def charged_twice(book: dict[str, Any]) -> None:
    book["charges"].append(book["charges"][0] | {"id": "ch_2", "idempotency_key": "k9"})


def given_back_twice(book: dict[str, Any]) -> None:
    book["charges"][0]["refunds"].append(book["charges"][0]["refunds"][0] | {"id": "rf_2"})


def lost(book: dict[str, Any]) -> None:
    book["charges"].clear()


def another_amount(book: dict[str, Any]) -> None:
    book["charges"][0]["amount"] = money(1199)


def refund_lost(book: dict[str, Any]) -> None:
    book["charges"][0]["refunds"].clear()


def asked_by_nobody(book: dict[str, Any]) -> None:
    book["charges"][0]["reference"] = "order-2"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (charged_twice, "order-1 was charged 2 times"),
        (given_back_twice, "order-1/1 was given back 2 times"),
        (lost, "seen charge of ch_1: the host has no such approval"),
        (another_amount, "seen charge of ch_1: the host has 1199, the till saw 1200"),
        (refund_lost, "seen refund of ch_1: the host has not given that back"),
        (asked_by_nobody, "order-2 was charged, and nobody asked for it"),
    ],
)
def test_a_ledger_that_was_spoilt_is_found(spoil: Callable[[dict[str, Any]], None], told: str) -> None:
    book = ledger()
    spoil(book)
    found = judged(book)
    assert told in found
    assert len(found) > 1  # journal and ledger differ besides


def test_what_is_still_open_is_found() -> None:
    found = judged(ledger(), payments=[replace(CHARGE, state=State.IN_DOUBT), REFUND], seen=[])
    assert "charge k1 of 'order-1' is still in_doubt" in found


def test_an_outcome_of_which_nobody_heard_is_found() -> None:
    in_flight = seen()[1] | {"state": "in_flight"}
    told = "refund k2 of 'order-1/1' is approved, and nobody heard of it"
    assert judged(ledger(), seen=[seen()[0]]) == [told]
    assert judged(ledger(), seen=[seen()[0], in_flight]) == [told]


def test_a_cancel_that_the_host_does_not_know_is_found() -> None:
    cancel = {"id": "k3", "kind": "cancel", "state": "approved", "charge_id": "ch_1"}
    assert judged(ledger(), seen=[*seen(), cancel]) == [
        "seen cancel of ch_1: with the host the charge is partially_refunded"
    ]


def test_an_order_is_always_the_same_and_no_two_are_alike() -> None:
    assert order(7, 3) == order(7, 3)
    assert len({order(7, number).minor for number in range(1, 50)}) > 25
    assert order(7, 3) != order(8, 3)
