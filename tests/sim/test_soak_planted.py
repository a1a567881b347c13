"""Every planted bug is found: fast in a short day, and in every longer one too."""

from __future__ import annotations

import pytest

from sim.soak import run
from sim.soak.day import Day
from sim.soak.everything import AT_CALLS, AT_THE_DISK, EVERYTHING, Kind
from sim.soak.plan import planned
from tests.sim.planted import PLANTED

OFTEN: tuple[Kind, ...] = tuple(kind._replace(often=3 * kind.often) for kind in EVERYTHING)
SHORTER = {"no outcome written": 30, "held for ever": 120, "a forgotten cancel": 60, "a card number told": 10}
"""Payments; of what leaves charges open it takes few, and each of them takes its time."""


def often(*names: str) -> tuple[Kind, ...]:
    """These kinds of trouble, before every tenth payment."""
    return tuple(kind._replace(often=0.1) for kind in EVERYTHING if kind.name in names)


ERRORS = {"match": {"call": "charge", "times": 4}, "do": "status", "status": [500, 503]}
"""Every attempt of one call: the host has nothing then, and the same is sent by another call."""

CHANCES: dict[str, tuple[Kind, ...]] = {
    # name: what gives the bug its chance, besides what goes wrong in any day
    "a new key on retry": (Kind("errors", 0.1, (ERRORS,)),),
    "a re-sealed retry": (Kind("errors", 0.1, (ERRORS,)),),
    "belief in an answer for another amount": often("other_amount"),
    "a re-send after the shopper left": often("drop_answers"),
    "a forgotten refund": often("drop_refunds"),
}


def short(name: str) -> Day:
    """A day of a few payments, in which the bug has its chance."""
    if name == "no limits offline":  # without a connection a charge is approved offline
        return planned(7, 80, tuple(kind._replace(often=0.3) for kind in often("unreachable", "outage")))
    return planned(7, SHORTER.get(name, 160), OFTEN + CHANCES.get(name, ()))


def offended(day: Day) -> set[str]:
    return {violation.rule for violation in run.lived(day).violations}


@pytest.mark.parametrize("name", PLANTED)
def test_it_is_found(name: str) -> None:
    bug, rules = PLANTED[name]
    with bug():
        assert offended(short(name)) & rules


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_it_is_found_in_a_day_as_it_comes(name: str) -> None:
    """Within two thousand payments."""
    bug, rules = PLANTED[name]
    with bug():
        assert offended(planned(101, 4 * SHORTER[name] if name in SHORTER else 2000)) & rules


@pytest.mark.parametrize("name", ["no limits offline", "a new key on retry"])
def test_the_same_day_without_it_is_well(name: str) -> None:
    assert offended(short(name)) == set()


def test_a_failure_is_made_short() -> None:
    bug, rules = PLANTED["a forgotten cancel"]
    day = planned(3, 60, AT_CALLS, steady=True)
    with bug():
        found = next(violation for violation in run.lived(day).violations if violation.rule in rules)
        short_day = run.shortest(day, found)
        assert len(short_day.steps) <= 4
        assert found.rule in offended(short_day)


def test_there_are_enough_of_them_and_of_troubles() -> None:
    assert len(PLANTED) >= 8
    assert EVERYTHING == AT_CALLS + AT_THE_DISK
