"""How two things are compared honestly on a machine that does other things as well.

Both sides run in the same process, in short batches that alternate: A B A B. What slows the machine down for a
while slows both, so it is the ratio of neighbours that counts: the pair of batches whose ratio is the median is
the figure, and the quartiles of those ratios are told beside it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

BATCH: Final = 0.01
"""Seconds that one batch should take: long beside the clock's tick, short beside what disturbs a machine."""
ROUNDS: Final = 41
"""Odd, so that one pair is in the middle."""

Clock = Callable[[], float]
Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line. ``ratio`` is ours to theirs and must not exceed ``bound``, where there is one."""

    name: str
    ours: float
    theirs: float
    unit: str
    bound: float | None = None
    about: str = ""
    """What the two sides are, for people."""
    spread: tuple[float, float] | None = field(default=None, compare=False)
    """The lower and upper quartile of the ratios of neighbouring batches."""

    @property
    def ratio(self) -> float:
        """Ours to theirs."""
        return self.ours / self.theirs

    @property
    def holds(self) -> bool:
        """Whether the bound holds; true without one."""
        return self.bound is None or self.ratio <= self.bound

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        told = asdict(self) | {"ratio": self.ratio, "holds": self.holds}
        names = ("name", "ours", "theirs", "unit", "ratio", "bound", "holds")
        return {name: round(told[name], 6) if isinstance(told[name], float) else told[name] for name in names}


@dataclass(frozen=True)
class Samples:
    """Seconds for one operation, batch by batch, of each side; the n-th batches of all sides ran together."""

    seconds: Mapping[str, list[float]]

    def figure(
        self, name: str, ours: str, theirs: str, unit: str = "us", *, bound: float | None = None, about: str = ""
    ) -> Figure:
        """Two of the sides as a line; ``unit`` is us or ms."""
        scale = {"us": 1e6, "ms": 1e3}[unit]
        pairs = sorted(
            zip(self.seconds[ours], self.seconds[theirs], strict=True), key=lambda pair: pair[0] / pair[1]
        )
        low, _, high = statistics.quantiles([a / b for a, b in pairs], n=4)
        a, b = pairs[len(pairs) // 2]
        return Figure(
            name=name,
            ours=a * scale,
            theirs=b * scale,
            unit=unit,
            bound=bound,
            about=about,
            spread=(low, high),
        )


def alternate(
    sides: Mapping[str, Work],
    *,
    operations: int = 1,
    rounds: int = ROUNDS,
    clock: Clock = time.process_time,
    between: Work = lambda: None,
) -> Samples:
    """Run a batch of each side in turn, ``rounds`` times over; each call of a side makes ``operations``.

    The order turns round with each round, so that none always runs in another's wake. ``clock`` is the CPU time of
    this process where the work is here, and the time on the wall where other processes or the disk do it.
    ``between`` is done before each round, and no part of it.
    Garbage is collected before each batch, so that none pays for another's; what was there before the rounds is
    left out of that, or going through it would empty the processor's caches for batches of less than a millisecond.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():  # the first batch fills caches and counts for nobody
        work()
    gc.collect()
    gc.freeze()
    try:
        for n in range(rounds):
            between()
            for name, work in sides.items() if n % 2 == 0 else reversed(list(sides.items())):
                gc.collect()
                start = clock()
                work()
                seconds[name].append((clock() - start) / operations)
    finally:
        gc.unfreeze()
    return Samples(seconds)


def compare(sides: Mapping[str, Work], *, rounds: int = ROUNDS, batch: float = BATCH) -> Samples:
    """As ``alternate``, for work so short that it has to be repeated to be seen: each side as often as fits."""
    repeats = {name: repeats_in(work, batch) for name, work in sides.items()}
    samples = alternate({name: _repeated(work, repeats[name]) for name, work in sides.items()}, rounds=rounds)
    return Samples({name: [s / repeats[name] for s in found] for name, found in samples.seconds.items()})


def repeats_in(work: Work, batch: float, clock: Clock = time.perf_counter) -> int:
    """How often ``work`` can be done in ``batch`` seconds, and at least once."""
    repeats = 1
    while True:
        start = clock()
        _repeated(work, repeats)()
        took = clock() - start
        if took >= batch / 4:
            return max(1, round(repeats * batch / took))
        repeats *= 4


def _repeated(work: Work, times: int) -> Work:
    def batch() -> None:
        for _ in range(times):
            work()

    return batch
