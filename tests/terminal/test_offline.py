from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.config import Offline
from terminal.money import Amount
from terminal.offline import STORED, Exposure, exposure_of, may_approve
from terminal.payment import Kind, Payment, State

NOW = datetime(2025, 12, 13, 12, tzinfo=UTC)
LIMITS = Offline(allowed=True, max_amount="2500", max_total="10000", max_count=5, max_age_sec=3600)
NOTHING = Exposure(0, {}, None)


def stored(minor: int, state: State = State.OFFLINE, age: float = 0, currency: str = "EUR") -> Payment:
    return Payment(
        id="p",
        kind=Kind.CHARGE,
        reference="r",
        amount=Amount(minor, currency),
        state=state,
        created_at=NOW - timedelta(seconds=age),
        entry_mode="swipe",
    )


def test_nothing_is_exposed_where_nothing_is_stored() -> None:
    assert exposure_of([stored(1, state) for state in State if state not in STORED], NOW) == NOTHING


def test_the_exposure_is_what_the_host_has_not_approved() -> None:
    payments = [
        stored(100, age=60),
        stored(250, State.FORWARDING, age=90),
        stored(7, currency="USD"),
        stored(9, State.APPROVED, age=900),
    ]
    assert exposure_of(payments, NOW) == Exposure(3, {"EUR": 350, "USD": 7}, NOW - timedelta(seconds=90))


def test_a_payment_from_the_future_began_now() -> None:
    assert exposure_of([stored(1, age=-5000)], NOW).oldest == NOW


@pytest.mark.parametrize(
    ("exposure", "minor"),
    [
        (NOTHING, 2500),
        (Exposure(4, {"EUR": 7500}, NOW - timedelta(seconds=3600)), 2500),
        (Exposure(4, {"EUR": 9999, "USD": 10**9}, NOW), 1),
    ],
)
def test_up_to_its_limits_it_is_allowed(exposure: Exposure, minor: int) -> None:
    assert may_approve(LIMITS, exposure, Amount(minor, "EUR"), "EUR", "swipe", NOW) is None


@pytest.mark.parametrize(
    ("limits", "exposure", "amount", "mode", "why"),
    [
        (Offline(), NOTHING, Amount(1, "EUR"), "swipe", "allows no offline"),
        (LIMITS, NOTHING, Amount(1, "USD"), "swipe", "are in EUR, not in USD"),
        (LIMITS, NOTHING, Amount(1, "EUR"), "manual", "typed"),
        (LIMITS, NOTHING, Amount(2501, "EUR"), "swipe", "EUR 25.01 is above the offline limit of EUR 25.00"),
        (LIMITS, Exposure(5, {"EUR": 5}, NOW), Amount(1, "EUR"), "swipe", "the limit is 5"),
        (LIMITS, Exposure(1, {"EUR": 9999}, NOW), Amount(2, "EUR"), "swipe", "more than EUR 100.00"),
        (
            LIMITS,
            Exposure(1, {"EUR": 1}, NOW - timedelta(seconds=3601)),
            Amount(1, "EUR"),
            "swipe",
            "since 2025-12-13T10:59:59Z",
        ),
    ],
)
def test_beyond_a_limit_it_says_which(
    limits: Offline, exposure: Exposure, amount: Amount, mode: str, why: str
) -> None:
    told = may_approve(limits, exposure, amount, "EUR", mode, NOW)
    assert told is not None
    assert why in told


@pytest.mark.parametrize("text", ["", "-1", "1e9", "12.50", "٣٠٠", "9" * 13, " 5"])
def test_a_limit_that_is_no_amount_allows_nothing(text: str) -> None:
    limits = Offline(allowed=True, max_amount=text, max_total="10000", max_count=5, max_age_sec=3600)
    assert may_approve(limits, NOTHING, Amount(1, "EUR"), "EUR", "swipe", NOW) is not None


@given(
    amounts=st.lists(st.integers(1, 4000), max_size=30),
    limits=st.builds(
        Offline,
        allowed=st.booleans(),
        max_amount=st.integers(0, 4000).map(str),
        max_total=st.integers(0, 20_000).map(str),
        max_count=st.integers(0, 12),
        max_age_sec=st.integers(0, 20),
    ),
)
def test_whatever_is_asked_the_exposure_stays_within_its_limits(amounts: list[int], limits: Offline) -> None:
    held: list[Payment] = []
    for step, minor in enumerate(amounts):
        now = NOW + timedelta(seconds=step)
        amount = Amount(minor, "EUR")
        if may_approve(limits, exposure_of(held, now), amount, "EUR", "swipe", now) is None:
            held.append(stored(minor, age=-step))
    exposure = exposure_of(held, NOW + timedelta(seconds=len(amounts)))
    assert exposure.count <= limits.max_count
    assert exposure.total.get("EUR", 0) <= int(limits.max_total)
    assert limits.allowed or not held
    if held:
        assert max(p.amount.minor for p in held) <= int(limits.max_amount)
        assert held[-1].created_at - held[0].created_at <= timedelta(seconds=limits.max_age_sec)


def test_a_tap_has_a_limit_of_its_own() -> None:
    def why(minor: int, mode: str, limit: str) -> str | None:
        return may_approve(LIMITS, NOTHING, Amount(minor, "EUR"), "EUR", mode, NOW, contactless_limit=limit)

    assert why(1000, "contactless", "1000") is None
    assert "contactless limit" in (why(1001, "contactless", "1000") or "")
    assert why(1001, "chip", "1000") is None
    assert why(1001, "contactless", "") is None
    assert "contactless limit" in (why(1, "contactless", "no number") or "")
