"""The course that ships, as something that can be put into a state: its inputs so far, replayed when it goes on.

A generator cannot be copied. What it was given can, and given the same again it stands where it stood. Positions
are numbered; two ways to the same position have one number, by the frames of the generator: where each stands, and
what its variables hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import GeneratorType
from typing import Any, NamedTuple

from terminal import course as shipped
from terminal.payment import Payment
from terminal.recovery import Circumstances, Sought

Input = Payment | shipped.Heard
IDLE = 0
Reached = tuple[int, Payment | None]
"""A position; at the end of a course IDLE, and the payment as the course left it."""

FORGOTTEN = frozenset({"looking", "heard", "facts", "written", "found"})
"""Variables that hold nothing which a course still goes by when it waits: what it heard is in what it writes."""


class Start(NamedTuple):
    """How a course begins."""

    payment: Payment
    wary: bool = False
    owed: bool = False


class _Position(NamedTuple):
    start: Start
    inputs: tuple[Input, ...]
    seen: tuple[Circumstances, ...]
    """What each look around brought, in order."""
    effect: shipped.Effect


class Looking:
    """The circumstances of this moment: those remembered first, then those that ``now`` tells."""

    def __init__(self, seen: tuple[Circumstances, ...], now: shipped.Looking) -> None:
        self.seen, self._now, self._next = list(seen), now, 0

    def __call__(self, payment: Payment, sought: Sought) -> Circumstances:
        """What a decision depends on."""
        if self._next == len(self.seen):
            self.seen.append(self._now(payment, sought))
        self._next += 1
        return self.seen[self._next - 1]


class Courses:
    """All positions that a search has met."""

    def __init__(self) -> None:
        self._positions: list[_Position | None] = [None]
        self._numbers: dict[Any, int] = {}
        self._onward: dict[Any, Reached] = {}
        self._payments: dict[Payment, int] = {}
        self._met: dict[int, tuple[Payment, int]] = {}

    def effect(self, number: int) -> shipped.Effect:
        """What the course at this position wants done."""
        position = self._positions[number]
        assert position is not None
        return position.effect

    def begin(self, start: Start, now: shipped.Looking) -> Reached:
        """The first position; IDLE where there is nothing to do."""
        return self._replay(start, (), (), now)

    def onward(self, number: int, given: Input, now: shipped.Looking, moment: object) -> Reached:
        """The position after this one, once it was given that; IDLE when the course is over, with the payment.

        ``moment`` stands for all that ``now`` depends on.
        """
        position = self._positions[number]
        assert position is not None
        asked = (number, self._plain(given), moment)
        if asked not in self._onward:
            self._onward[asked] = self._replay(position.start, (*position.inputs, given), position.seen, now)
        return self._onward[asked]

    def _replay(
        self, start: Start, inputs: tuple[Input, ...], seen: tuple[Circumstances, ...], now: shipped.Looking
    ) -> Reached:
        looking = Looking(seen, now)
        running = shipped.course(start.payment, looking, wary=start.wary, owed=start.owed)
        try:
            effect = next(running)
            for given in inputs:
                effect = running.send(given)
        except StopIteration as end:
            return IDLE, end.value.payment
        stands = (self._stands(running), self._plain(effect))
        running.close()
        if stands not in self._numbers:
            self._numbers[stands] = len(self._positions)
            self._positions.append(_Position(start, inputs, tuple(looking.seen), effect))
        return self._numbers[stands], None

    def _stands(self, running: Any) -> tuple[Any, ...]:
        frames = []
        while isinstance(running, GeneratorType):
            frame = running.gi_frame
            assert frame is not None
            held = {name: self._plain(value) for name, value in frame.f_locals.items() if name not in FORGOTTEN}
            frames.append((frame.f_code.co_name, frame.f_lasti, tuple(held.items())))
            running = running.gi_yieldfrom
        return tuple(frames)

    def _plain(self, value: Any) -> Any:
        """The same, such that it can be a key."""
        if isinstance(value, Payment):
            return self._number(value)
        if isinstance(value, Mapping):
            return tuple((name, self._plain(value[name])) for name in sorted(value))
        if isinstance(value, set | frozenset):
            return tuple(sorted(value))
        if is_dataclass(value):
            return (type(value).__name__, *(self._plain(getattr(value, each.name)) for each in fields(value)))
        return value

    def _number(self, payment: Payment) -> int:
        """The same for equal payments. To hash one takes long, so that each object is hashed once."""
        met = self._met.get(id(payment))
        if met is None:
            met = payment, self._payments.setdefault(payment, len(self._payments))
            self._met[id(payment)] = met
        return met[1]
