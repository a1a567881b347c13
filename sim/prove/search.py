"""The search: every state that can be reached, the nearest first, and from each of them a way to rest.

Three things are asked. Does a step or a state break what always has to hold? Is something wrong where nothing is
left to happen? And does each state have a way to such a rest on which nothing goes wrong: if the faults stop, does
it end?
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sim.prove import host, judge, outside
from sim.prove.courses import IDLE
from sim.prove.states import Bounds, Move, World
from sim.prove.terminal import Step, Terminal, renews_meanwhile
from terminal.errors import IllegalEvent


class Found(NamedTuple):
    """A counterexample: what is broken, and the shortest way there."""

    broken: str
    path: tuple[tuple[Move, World], ...]


class Result(NamedTuple):
    """What a search saw."""

    bounds: Bounds
    states: int
    transitions: int
    depth: int
    ends: int
    complete: bool
    found: Found | None


class Search:
    """One search within its bounds; ``run`` it once."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._terminal = Terminal(bounds, renews_meanwhile=renews_meanwhile())
        self._numbers: dict[World, int] = {}
        self._worlds: list[World] = []
        self._from: list[tuple[int, Move]] = []
        self._transitions = 0

    def run(self, depth: int | None = None) -> Result:
        """Search to the end, or ``depth`` steps deep. Stops at the first thing that is broken."""
        start = World()
        self._numbers[start], self._worlds = 0, [start]
        self._from = [(-1, Move("nothing"))]
        onward: list[list[int]] = []
        rests: list[int] = []
        level, ends, number = 0, 1, 0
        while number < len(self._worlds):
            if number == ends:
                level, ends = level + 1, len(self._worlds)
            if depth is not None and level == depth:
                return self._result(level, len(rests), complete=False)
            world, owed = self._worlds[number], list[int]()
            resting = True
            try:
                for move, after, broken in self._steps(world):
                    self._transitions += 1
                    resting = resting and move.fault
                    other = self._number(number, move, after)
                    if not move.fault:
                        owed.append(other)
                    broken = broken or judge.always(after)
                    if broken:
                        return self._result(
                            level, len(rests), complete=False, found=self._trace(number, broken, (move, after))
                        )
            except IllegalEvent as error:
                return self._result(level, len(rests), complete=False, found=self._trace(number, str(error)))
            if resting:
                rests.append(number)
                slots = range(len(world.journal))
                persons = [slot for slot in slots if self._terminal.left_to_a_person(world, slot)]
                wrong = judge.at_rest(world, self.bounds, persons)
                if wrong:
                    return self._result(level, len(rests), complete=False, found=self._trace(number, wrong))
            onward.append(owed)
            number += 1
        stuck = without_a_way(onward, rests)
        found = self._trace(stuck, "from here nothing ever comes to rest") if stuck is not None else None
        return self._result(level, len(rests), complete=True, found=found)

    def _steps(self, world: World) -> Iterator[Step]:
        """Between a decision and the next question to the host nothing is waited for, so that nothing but a power
        cut comes between: what others do then can as well come before or after.
        """
        bounds, terminal = self.bounds, self._terminal
        yield from terminal.steps(world)
        if world.course != IDLE and not world.out:
            yield from outside.power(world, bounds)
            return
        yield from outside.network(world, bounds)
        yield from (Step(move, after) for move, after in host.by_itself(world, bounds))
        yield from outside.till(world, bounds, terminal)
        yield from outside.power(world, bounds)
        yield from outside.time(world, bounds, terminal.shipped)

    def _number(self, number: int, move: Move, after: World) -> int:
        other = self._numbers.setdefault(after, len(self._worlds))
        if other == len(self._worlds):
            self._worlds.append(after)
            self._from.append((number, move))
        return other

    def _trace(self, number: int, broken: str, *last: tuple[Move, World]) -> Found:
        path = list(last)
        while number > 0:
            before, move = self._from[number]
            path.append((move, self._worlds[number]))
            number = before
        return Found(broken, tuple(reversed(path)))

    def _result(self, level: int, rests: int, *, complete: bool, found: Found | None = None) -> Result:
        return Result(self.bounds, len(self._worlds), self._transitions, level, rests, complete, found)


def without_a_way(onward: list[list[int]], ends: list[int]) -> int | None:
    """The first state from which no way leads to one of the ends; None where there is none. Searched backwards."""
    back: list[list[int]] = [[] for _ in onward]
    for number, others in enumerate(onward):
        for other in others:
            back[other].append(number)
    reached = bytearray(len(onward))
    waiting = list(ends)
    for number in waiting:
        reached[number] = 1
    while waiting:
        for other in back[waiting.pop()]:
            if not reached[other]:
                reached[other] = 1
                waiting.append(other)
    missing = reached.find(0)
    return missing if missing >= 0 else None
