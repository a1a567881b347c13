"""The shortest day that still fails: steps are left out as long as the same rule is offended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sim.soak.day import AnyStep, Day

Fails = Callable[[Day], bool]
"""Whether a day, lived through, offends the same rule."""


def shrunk(day: Day, fails: Fails, *, about: str = "", tries: int = 200) -> Day:
    """A shorter day that still fails; the day itself where none was found. ``about``: the reference it is about.

    First all that came after that reference, then all that came long before it, then halves, quarters and so on
    down to single steps (ddmin), at most ``tries`` days in all.
    """
    budget = _Budget(fails, day, tries)
    steps = list(day.steps)
    if about:
        last = max((n for n, step in enumerate(steps) if getattr(step, "reference", None) == about), default=None)
        if last is not None:
            steps = budget.shorter(steps[: last + 1], steps)
            for back in (1, 3, 10, 40):
                first = next((n for n, s in enumerate(steps) if getattr(s, "reference", None) == about), 0)
                near = steps[max(0, first - back) :]
                if len(near) < len(steps) and budget.fails(near):
                    steps = near
                    break
    size = len(steps) // 2
    while size >= 1:
        place, before = 0, len(steps)
        while place < len(steps):
            without = steps[:place] + steps[place + size :]
            if without and budget.fails(without):
                steps = without
            else:
                place += size
        if size == 1 and len(steps) == before:
            break
        size = max(1, size // 2) if size > 1 or len(steps) == before else 1
    return budget.day(steps)


class _Budget:
    def __init__(self, fails: Fails, day: Day, tries: int) -> None:
        self._fails, self._day, self._left = fails, day, tries

    def day(self, steps: Sequence[AnyStep]) -> Day:
        return msgspec.structs.replace(self._day, steps=list(steps))

    def fails(self, steps: Sequence[AnyStep]) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        return self._fails(self.day(steps))

    def shorter(self, wanted: list[AnyStep], otherwise: list[AnyStep]) -> list[AnyStep]:
        return wanted if len(wanted) < len(otherwise) and self.fails(wanted) else otherwise
