"""The counter of the soak: what its till makes of what the terminal tells it by itself."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from sim.soak.counter import Counter
from sim.soak.history import History
from sim.soak.record import Record, Sale
from terminal.money import Amount
from terminal.payment import Kind, Payment, State

EUR = Amount(1250, "EUR")


class Telling:
    """A terminal that has outcomes, and can do nothing else."""

    def __init__(self, *outcomes: Payment) -> None:
        self.left = {payment.id: payment for payment in outcomes}

    def outcomes(self) -> list[Payment]:
        return list(self.left.values())

    def acknowledge(self, payment_id: str) -> None:
        del self.left[payment_id]


@pytest.mark.parametrize(("state", "owed"), [(State.APPROVED, {}), (State.REFUSED, {"r": "ch_1"})])
def test_what_the_terminal_undid_after_the_power_went_is_not_owed_any_more(
    state: State, owed: dict[str, str]
) -> None:
    record = Record()
    record.sales["r"] = Sale("r", 1250, "EUR", began=1.0)
    record.undo["r"] = "ch_1"
    counter = Counter(record, History(io.StringIO()), lambda: 2.0)
    counter.news, counter._undo_at = True, 100.0
    refund = Payment(
        id="a" * 32,
        kind=Kind.REFUND,
        reference="r-undo",
        amount=EUR,
        state=state,
        created_at=datetime(2026, 1, 5, tzinfo=UTC),
        charge_id="ch_1",
    )
    till = Telling(refund)
    asyncio.run(counter.hear(cast(Any, till)))
    assert (record.undo, till.left) == (owed, {})
