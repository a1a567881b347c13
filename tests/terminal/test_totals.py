from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal import totals
from terminal.journal_compaction import totals as compacted
from terminal.money import Amount
from terminal.payment import OPEN, Kind, Payment, State
from terminal.totals import Cell, Line, Standing

AT = datetime(2025, 12, 13, 12, tzinfo=UTC)
REFUND_STATES = (
    State.IN_FLIGHT,
    State.IN_DOUBT,
    State.PENDING,
    State.APPROVED,
    State.DECLINED,
    State.REFUSED,
    State.WITHDRAWN,
    State.FAILED,
)


def charge(n: int = 1, minor: int = 1250, state: State = State.APPROVED, **facts: Any) -> Payment:
    known: dict[str, Any] = {"entry_mode": "swipe", "masked_pan": "476173******0119", "created_at": AT} | facts
    return Payment(
        id=f"c{n}",
        kind=Kind.CHARGE,
        reference=f"order-{n}",
        amount=Amount(minor, "EUR"),
        state=state,
        **known,
    )


def refund(of: Payment, minor: int, state: State = State.APPROVED, at: datetime = AT) -> Payment:
    return Payment(
        id=f"r{of.id}{minor}",
        kind=Kind.REFUND,
        reference="cold",
        amount=Amount(minor, of.amount.currency),
        state=state,
        parent=of.id,
        created_at=at,
    )


@pytest.mark.parametrize(
    ("pan", "name"),
    [
        ("476173******0119", "visa"),
        ("541333******0013", "mastercard"),
        ("222100******0000", "mastercard"),
        ("272099******0000", "mastercard"),
        ("272100******0000", "other"),
        ("374245******1234", "amex"),
        ("361234******0000", "diners"),
        ("356600******0505", "jcb"),
        ("601100******0004", "discover"),
        ("650000******0004", "discover"),
        ("621234******0000", "unionpay"),
        ("677189******0000", "maestro"),
        ("220012******0000", "mir"),
        ("909090******0000", "other"),
        ("4761******0119", "other"),
        ("", "other"),
        ("٤٧٦١٧٣******0119", "other"),
    ],
)
def test_the_scheme_of_a_card(pan: str, name: str) -> None:
    assert totals.scheme(pan) == name


def test_no_two_ranges_overlap() -> None:
    edges = [edge for first, last, _ in totals.SCHEMES for edge in (int(first), int(last))]
    assert edges == sorted(edges)
    assert all(last < first for last, first in zip(edges[1:-1:2], edges[2::2], strict=True))


def test_every_state_has_a_line_and_what_is_open_is_never_money() -> None:
    assert totals.CHARGES.keys() == totals.REFUNDS.keys() == set(State)
    for state in OPEN:
        assert totals.CHARGES[state] not in (Standing.CHARGED, Standing.CANCELED, Standing.NOT_TAKEN)
        assert totals.REFUNDS[state] not in (Standing.REFUNDED, Standing.REFUND_FAILED)


def test_a_day() -> None:
    first, second = charge(1), charge(2, 2000, approved=Amount(1500, "EUR"))
    lost = charge(3, 700, State.LOST, masked_pan="541333******0013")
    cancel = Payment(id="x", kind=Kind.CANCEL, reference="", amount=Amount(9, "EUR"), parent="c1", created_at=AT)
    got = totals.of_day([first, second, lost, refund(first, 250), cancel], date(2025, 12, 13))
    assert got == [
        Line(Cell("EUR", "mastercard", "swipe", Standing.LOST), 1, 700),
        Line(Cell("EUR", "visa", "swipe", Standing.CHARGED), 2, 2750),
        Line(Cell("EUR", "visa", "swipe", Standing.REFUNDED), 1, 250),
    ]
    assert totals.net(got) == {"EUR": 2500}


def test_a_refund_of_yesterdays_charge_is_todays_and_has_its_card() -> None:
    sold = charge(1)
    given_back = refund(sold, 250, at=AT + timedelta(days=1))
    (line,) = totals.of_day([sold, given_back], date(2025, 12, 14))
    assert line == Line(Cell("EUR", "visa", "swipe", Standing.REFUNDED), 1, 250)
    assert totals.net([line]) == {"EUR": -250}


def test_a_day_is_the_shops() -> None:
    late = charge(created_at=datetime(2025, 12, 13, 23, 30, tzinfo=UTC))
    assert totals.day_of(late) == date(2025, 12, 13)
    assert totals.of_day([late], date(2025, 12, 14), ZoneInfo("Europe/Vienna")) != []
    assert totals.of_day([late], date(2025, 12, 13), ZoneInfo("Europe/Vienna")) == []


@st.composite
def journals(draw: st.DrawFn) -> list[Payment]:
    payments = []
    for n in range(draw(st.integers(0, 12))):
        minor = draw(st.integers(1, 100_000))
        sold = charge(
            n,
            minor,
            draw(st.sampled_from(State)),
            created_at=AT + timedelta(hours=draw(st.integers(-60, 60))),
            masked_pan=draw(st.sampled_from(["476173******0119", "541333******0013", ""])),
            entry_mode=draw(st.sampled_from(["swipe", "manual"])),
            approved=draw(st.none() | st.integers(1, minor).map(lambda part: Amount(part, "EUR"))),
        )
        payments.append(sold)
        for part in draw(st.lists(st.integers(1, minor), max_size=2, unique=True)):
            at = sold.created_at + timedelta(hours=draw(st.integers(0, 40)))
            payments.append(refund(sold, part, draw(st.sampled_from(REFUND_STATES)), at))
    return payments


@given(journals())
def test_every_cent_and_every_payment_is_in_one_line_of_one_day(journal: list[Payment]) -> None:
    days = {totals.day_of(payment) for payment in journal}
    of_days = [line for day in days for line in totals.of_day(journal, day)]
    assert sum(line.count for line in of_days) == len(journal)
    assert sum(line.minor for line in of_days) == sum(totals.money_of(payment) for payment in journal)
    taken = {State.APPROVED, State.PARTIALLY_REFUNDED, State.REFUNDED, State.REVERSED}
    charged = sum(totals.money_of(p) for p in journal if p.kind is Kind.CHARGE and p.state in taken)
    refunded = sum(p.amount.minor for p in journal if p.kind is Kind.REFUND and p.state is State.APPROVED)
    assert totals.net(of_days).get("EUR", 0) == charged - refunded


@given(journals(), st.integers(0, 40))
def test_lines_add_up_in_any_parts(journal: list[Payment], cut: int) -> None:
    known = {p.id: p for p in journal}
    first = totals.lines(journal[:cut], charges=known)
    assert totals.lines(journal[cut:], charges=known, earlier=first) == totals.lines(journal)


@given(journals())
def test_what_compaction_keeps_makes_the_same_lines(journal: list[Payment]) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE totals (key TEXT, count INTEGER, minor INTEGER)")
    kept = compacted(db, journal, totals.scheme)
    db.close()
    for day in {totals.day_of(payment) for payment in journal}:
        assert totals.lines((), earlier=totals.kept_lines(kept, day)) == totals.of_day(journal, day)
