"""How fast the world lives: payments a second on one core with everything going wrong, and where the time goes."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from types import FrameType
from typing import Final

from sim.soak.plan import planned
from sim.soak.run import lived
from tests.bench.measure import Figure

WANTED: Final = 300
"""Payments in a second of one core."""
PAYMENTS: Final = 800
SEEDS: Final = (7, 7, 8, 9)
"""The first two are to have the same history."""
SAMPLE: Final = 0.002
"""Seconds of the processor between two samples."""
ROOT: Final = f"{Path(__file__).parents[2]}/"

PARTS: Final = (
    # part       files, of which the innermost that is running counts
    ("disk",     ("terminal/journal", "terminal/side_store", "terminal/disk", "terminal/crypto/vault",
                  "sim/disk", "sim/crash_connection", "sim/wal")),
    ("crypto",   ("terminal/crypto/", "sim/host/hsm", "sim/seed")),
    ("http",     ("terminal/hosts/", "sim/network", "sim/connection", "sim/station", "sim/host/wire",
                  "sim/host/app", "sim/host/call", "sim/faults/")),
    ("terminal", ("terminal/", "hw/", "sim/reader/")),
    ("host",     ("sim/host/",)),
    ("judge",    ("sim/soak/", "sim/balance")),
    ("loop",     ("sim/world", "sim/virtual_time", "sim/power")),
)  # fmt: skip
ABOUT: Final = {
    "disk": "the journal, the vault and their disk, SQLite in them",
    "crypto": "envelopes, key sets, signatures, everybody's random numbers",
    "http": "requests made, carried, routed and answered, and their faults",
    "terminal": "what else the terminal does",
    "host": "what else the host does, its ledger in SQLite",
    "judge": "the till, the history, the judge",
    "loop": "the event loop and what belongs to nobody else",
}


def living(payments: int = PAYMENTS, seeds: tuple[int, ...] = SEEDS) -> Iterator[Figure]:
    """CPU time of whole days, their evening and their judge included."""
    lived(planned(1, 5))  # imports, and what is made once
    spent, passed, histories = [], [], []
    for seed in seeds:
        day = planned(seed, payments)
        began, at = time.process_time(), time.perf_counter()
        done = lived(day)
        spent.append((time.process_time() - began) / payments)
        passed.append((time.perf_counter() - at) / payments)
        assert not done.violations, done.violations
        histories.append(done.report.history_sha256)
    assert histories[0] == histories[1], "the same seed has lived two days"
    each, (low, _, high) = median(spent), quantiles(spent, n=4)
    yield Figure(
        name="world_payment",
        ours=each * 1e3,
        theirs=1e3 / WANTED,
        unit="ms",
        bound=1.0,
        about=f"CPU of a payment in the world, everything going wrong: {1 / each:.0f} a second of one core, "
        f"{1 / median(passed):.0f} on the wall / the {WANTED} that are wanted",
        spread=(low * WANTED, high * WANTED),
    )
    for part, share in shares(payments, seeds[-1]).items():
        yield Figure(
            name=f"world_of_{part}",
            ours=share * each * 1e3,
            theirs=each * 1e3,
            unit="ms",
            about=f"of that, by samples: {ABOUT[part]}",
        )


def shares(payments: int, seed: int) -> dict[str, float]:
    """The parts of a day, by the innermost function of ours that ran at each sample: libraries count for whoever
    called them."""
    day = planned(seed, payments)
    with sampled() as seen:
        lived(day)
    return {part: seen[part] / max(1, seen.total()) for part, _ in PARTS}


@contextmanager
def sampled() -> Iterator[Counter[str]]:
    """Samples of what is inside, by part."""
    seen: Counter[str] = Counter()

    def look(_number: int, frame: FrameType | None) -> None:
        seen[part_of(frame)] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE, SAMPLE)
    try:
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def part_of(frame: FrameType | None) -> str:
    """Whose time it is."""
    while frame is not None:
        name = frame.f_code.co_filename.removeprefix(ROOT)
        for part, files in PARTS:
            if name.startswith(files):
                return part
        frame = frame.f_back
    return "loop"
