"""A day drawn from a seed: who comes, what they buy, what they think better of, and what goes wrong meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from sim.host.outcomes import BY_LAST_DIGITS
from sim.seed import seeded
from sim.soak import day as of
from sim.soak.everything import EVERYTHING, NEXT, Kind
from terminal.clock import Random

T = TypeVar("T")

CARDS = ("visa", "visa-no-chip", "mastercard", "mastercard-no-chip", "amex", "discover", "maestro")
ENDINGS = tuple(sorted(BY_LAST_DIGITS))
IN_PART = 30
"""The ending of an amount of which half is approved."""
LATER = 8
"""At most so many shoppers later somebody comes back for what they bought."""


class Dice:
    """What is left to chance, from a source of bytes."""

    def __init__(self, random: Random) -> None:
        self._random, self._left = random, b""

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit`` - 1 (``limit`` at most 2**16: what is uneven then does not matter here)."""
        if len(self._left) < 4:
            self._left = self._random(256)
        drawn, self._left = int.from_bytes(self._left[:4], "big"), self._left[4:]
        return drawn * limit >> 32

    def one(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.below(len(values))]

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.below(1 << 20) < probability * (1 << 20)


class _After(NamedTuple):
    """What may come after a sale: how often, and the steps for the reference."""

    often: float
    steps: Callable[[str, Dice], tuple[of.AnyStep, ...]]


AFTER_A_SALE: tuple[_After, ...] = (
    _After(0.06, lambda r, d: (of.Refund(reference=r, name=f"{r}-all"),)),
    _After(0.05, lambda r, d: (of.Refund(reference=r, name=f"{r}-part", permille=1 + d.below(999)),)),
    _After(
        0.02,
        lambda r, d: (
            of.Refund(reference=r, name=f"{r}-one", permille=1 + d.below(600)),
            of.Refund(reference=r, name=f"{r}-two", permille=1 + d.below(600)),
        ),
    ),
    _After(0.05, lambda r, d: (of.Cancel(reference=r),)),
    _After(0.04, lambda r, d: (of.Again(reference=r),)),
    _After(0.01, lambda r, d: (of.Again(reference=r, minor=77_00),)),
    _After(0.005, lambda r, d: (of.Settle(), of.Cancel(reference=r))),
)
"""The first whose chance it is."""

HELD: tuple[_After, ...] = (
    _After(0.6, lambda r, d: (of.Confirm(reference=r),)),
    _After(0.5, lambda r, d: (of.Void(reference=r),)),
    _After(0.2, lambda r, d: (of.Wait(seconds=400.0), of.Confirm(reference=r))),  # too late
)
"""After a charge that waits for the till; or nothing is heard of it."""

BETWEEN: tuple[_After, ...] = (
    _After(0.002, lambda r, d: (of.PowerOff(seconds=d.one((1.0, 30.0, 600.0))),)),
    _After(0.002, lambda r, d: (of.Reopen(),)),
    _After(0.002, lambda r, d: (of.HostRestart(),)),
    _After(0.002, lambda r, d: (of.ClockJump(seconds=d.one((-90_000.0, -500.0, -40.0, 40.0, 500.0, 90_000.0))),)),
    _After(0.002, lambda r, d: (of.Settle(),)),
)
"""Between two shoppers."""


def planned(
    seed: int, payments: int, kinds: Iterable[Kind] = EVERYTHING, *, lookup: bool = True, steady: bool = False
) -> of.Day:
    """A day of so many payments. ``steady``: no power goes, nothing is started anew, no clock jumps."""
    dice = Dice(seeded(seed, "plan"))
    acknowledgement: Literal["return", "explicit"] = "explicit" if dice.chance(0.5) else "return"
    turns = [_Turn(kind, dice) for kind in kinds]
    steps: list[of.AnyStep] = []
    coming: dict[int, list[of.AnyStep]] = {}
    for number in range(payments):
        reference = f"r{number}"
        charge = _charge(dice, reference)
        for turn in turns:
            if turn.comes():
                trouble, charge = _trouble(dice, turn, charge)
                steps.append(trouble)
        if not steady:
            steps += _drawn(BETWEEN, reference, dice)
        steps.append(charge)
        if charge.hold or charge.minor % 100 == IN_PART:
            steps += _drawn(HELD, reference, dice)
        if dice.chance(0.5):
            steps.append(of.Wait(seconds=float(1 + dice.below(16))))
        if after := _drawn(AFTER_A_SALE, reference, dice):
            coming.setdefault(number + dice.below(LATER), []).extend(after)
        steps += coming.pop(number, [])
    for late in sorted(coming):
        steps += coming[late]
    return of.Day(seed=seed, steps=steps, lookup=lookup, acknowledgement=acknowledgement)


class _Turn:
    """When a kind of trouble comes: on the average as often as it should, and never long behind that."""

    def __init__(self, kind: Kind, dice: Dice) -> None:
        self.kind, self._dice = kind, dice
        self._owed = dice.below(1000) / 1000
        self.times = 0

    def comes(self) -> bool:
        """Before the next payment."""
        self._owed += 2 * self.kind.often * self._dice.below(1000) / 1000
        if self._owed < 1:
            return False
        self._owed -= 1
        self.times += 1
        return True


def _drawn(table: Sequence[_After], reference: str, dice: Dice) -> tuple[of.AnyStep, ...]:
    for after in table:
        if dice.chance(after.often):
            return after.steps(reference, dice)
    return ()


def _charge(dice: Dice, reference: str) -> of.Charge:
    ending = dice.one(ENDINGS) if dice.chance(0.25) else 0
    typed = dice.chance(0.2)
    return of.Charge(
        reference=reference,
        minor=100 * (1 + dice.below(80)) + ending,
        currency="GBP" if dice.chance(0.03) else "EUR",
        card=dice.one(CARDS),
        typed=typed,
        pin=dice.chance(0.1),
        hold=dice.chance(0.07),
        accept_partial=dice.chance(0.5),
        leaves=dice.one((0.0, 0.5, 5.0, 9.0, 20.0, 45.0)) if dice.chance(0.06) else None,
        how="cancel" if dice.chance(0.4) else "abandon",
        stays=dice.chance(0.5),
    )


def _trouble(dice: Dice, turn: _Turn, charge: of.Charge) -> tuple[of.Trouble, of.Charge]:
    """The trouble, and the next charge, which may be part of it. Of the moments at which the power may go each has
    its turn."""
    kind = turn.kind
    if charge.minor % 100 == IN_PART and any(rule.get("match", {}).get("amount") == NEXT for rule in kind.rules):
        charge = msgspec.structs.replace(charge, minor=charge.minor - IN_PART + 100)
    rules, disk = (
        [
            {name: _settled(dice, name, value, turn.times, charge.minor) for name, value in rule.items()}
            for rule in wanted
        ]
        or None
        for wanted in (kind.rules, kind.disk)
    )
    return of.Trouble(rules=rules, disk=disk), charge


def _settled(dice: Dice, name: str, value: Any, times: int, following: int) -> Any:
    if isinstance(value, list):
        return value[times % len(value)] if name == "when" else dice.one(value)
    if isinstance(value, dict):
        return {inner: _settled(dice, inner, one, times, following) for inner, one in value.items()}
    return following if value == NEXT else value
