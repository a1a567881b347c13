from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terminal.config import Offline, Parameters, Security, floor_limit
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
    assert may_approve(Security(offline=LIMITS), exposure, Amount(minor, "EUR"), "EUR", "swipe", None, NOW) is None


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
    told = may_approve(Security(offline=limits), exposure, amount, "EUR", mode, None, NOW)
    assert told is not None
    assert why in told


@pytest.mark.parametrize("text", ["", "-1", "1e9", "12.50", "٣٠٠", "9" * 13, " 5"])
def test_a_limit_that_is_no_amount_allows_nothing(text: str) -> None:
    limits = Offline(allowed=True, max_amount=text, max_total="10000", max_count=5, max_age_sec=3600)
    security = Security(offline=limits)
    assert may_approve(security, NOTHING, Amount(1, "EUR"), "EUR", "swipe", None, NOW) is not None


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
        security = Security(offline=limits)
        if may_approve(security, exposure_of(held, now), amount, "EUR", "swipe", None, now) is None:
            held.append(stored(minor, age=-step))
    exposure = exposure_of(held, NOW + timedelta(seconds=len(amounts)))
    assert exposure.count <= limits.max_count
    assert exposure.total.get("EUR", 0) <= int(limits.max_total)
    assert limits.allowed or not held
    if held:
        assert max(p.amount.minor for p in held) <= int(limits.max_amount)
        assert held[-1].created_at - held[0].created_at <= timedelta(seconds=limits.max_age_sec)


def why(
    minor: int, mode: str, floor: int | None = 10**9, *, contactless: str = "9999", cvm: str = "9999"
) -> str | None:
    security = Security(contactless_limit=contactless, cvm_limit=cvm, offline=LIMITS)
    return may_approve(security, NOTHING, Amount(minor, "EUR"), "EUR", mode, floor, NOW)


def test_a_tap_has_a_limit_of_its_own() -> None:
    assert why(1000, "contactless", contactless="1000") is None
    assert why(1001, "contactless", contactless="1000") == "EUR 10.01 is above the contactless limit of EUR 10.00"
    assert why(1001, "chip", contactless="1000") is None
    assert why(1001, "swipe", None, contactless="1000") is None


def test_a_tap_that_would_take_a_verification_of_the_cardholder_is_not_approved_here() -> None:
    assert why(800, "contactless", cvm="800") is None
    assert why(801, "contactless", cvm="800") == "EUR 8.01 is above the CVM limit of EUR 8.00"
    assert why(801, "chip", cvm="800") is None
    assert why(801, "swipe", None, cvm="800") is None


@pytest.mark.parametrize("limit", ["", "no number", "0", "9" * 13])
def test_a_tap_without_such_a_limit_is_not_either(limit: str) -> None:
    assert "contactless limit" in (why(1, "contactless", contactless=limit) or "")
    assert "CVM limit" in (why(1, "contactless", cvm=limit) or "")


@pytest.mark.parametrize("mode", ["chip", "contactless"])
def test_a_chip_stays_below_the_floor_limit_of_its_application(mode: str) -> None:
    assert why(999, mode, 1000) is None
    for minor, floor in ((1000, 1000), (1001, 1000), (1, 0), (1, 1)):
        assert "not below the floor limit" in (why(minor, mode, floor) or "")
    assert "have no floor limit" in (why(1, mode, None) or "")
    assert why(1000, "swipe", 1000) is None


def parameters(*entries: dict[str, Any]) -> Parameters:
    return Parameters(version="1", aids=entries, capks=())


def entry(aid: str, floor: Any, *, partial: Any = True) -> dict[str, Any]:
    return {"aid": aid, "floor_limit": floor, "partial_selection": partial}


VISA = bytes.fromhex("A0000000031010")


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([], None),
        ([entry("A0000000031010", "2500")], 2500),
        ([entry("a0000000031010", "0", partial=False)], 0),
        ([entry("A0000000041010", "2500")], None),
        ([entry("A000000003", "700")], 700),
        ([entry("A000000003", "700", partial=False)], None),
        ([entry("A000000003", "700", partial="yes")], None),
        ([entry("A000000003", "700"), entry("A0000000031010", "900", partial=False)], 900),
        ([entry("A0000000031010", "900"), entry("A000000003", "700")], 900),
        ([entry("A000000003101001", "900")], None),
        ([entry("", "900"), entry("A0", "900"), entry("no hex", "900")], None),
        ([{}, {"aid": 7, "floor_limit": "1"}, {"aid": "A0000000031010"}], None),
        ([entry("A000000003", "700"), entry("A0000000031010", None)], None),
        *(
            ([entry("A0000000031010", floor)], None)
            for floor in (2500, 25.0, "", "-1", "25.00", "000009C4h", "9" * 13, True, ["2500"])
        ),
    ],
)
def test_the_floor_limit_is_that_of_the_entry_that_fits_best(entries: list[Any], found: int | None) -> None:
    assert floor_limit(parameters(*entries), VISA) == found
