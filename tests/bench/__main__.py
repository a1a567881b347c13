"""``scripts/bench``: how fast it is, as ratios to something that the reader knows.

Both sides of each ratio are measured in the same run, in batches that alternate; what is shown is the pair of
batches whose ratio is the median, and the quartiles of the ratios. The exit code is 1 where a bound does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tests.bench.charge_lines import charging
from tests.bench.crypto_lines import opening, sealing, unwrapping
from tests.bench.host_lines import hosting
from tests.bench.journal_lines import bytes_of_a_charge, committing, starting_late
from tests.bench.machine_lines import stepping
from tests.bench.measure import Figure
from tests.bench.open_lines import opening_late
from tests.bench.reader_lines import exchanging, keeping_pace, resting, unplugging
from tests.bench.start_lines import starting
from tests.bench.world_lines import living

Line = Callable[[], Iterable[Figure]]

LINES: Mapping[str, Line] = {
    "envelope": sealing,
    "tr31": unwrapping,
    "parameters": opening,
    "machine": stepping,
    "charge": charging,
    "start": starting,
    "journal": committing,
    "journal_bytes": bytes_of_a_charge,
    "start_100k": starting_late,
    "open_100k": opening_late,
    "host": hosting,
    "reader": exchanging,
    "reader_wire": keeping_pace,
    "reader_idle": resting,
    "reader_unplug": unplugging,
    "world": living,
}

HEAD = f"{'':22}{'ours':>10}{'theirs':>10}  {'unit':8}{'ratio':>7}  {'quartiles':>12}  bound"


def main(arguments: Sequence[str] | None = None, lines: Mapping[str, Line] = LINES) -> int:
    """Measure and print; 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one object a line, as each is known")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=tuple(lines), help=f"of: {', '.join(lines)}"
    )
    wanted = parser.parse_args(arguments)
    if not wanted.json:
        print(HEAD)
    broken = 0
    for figure in measured(wanted.only or lines, lines):
        broken += not figure.holds
        print(json.dumps(figure.as_dict()) if wanted.json else row(figure), flush=True)
    return 1 if broken else 0


def measured(names: Iterable[str], lines: Mapping[str, Line]) -> Iterator[Figure]:
    """The figures of the lines of these names, as each is known."""
    for name in names:
        yield from lines[name]()


def row(figure: Figure) -> str:
    """A figure for people: the numbers, and below them what they are."""
    spread = "{:.2f} to {:.2f}".format(*figure.spread) if figure.spread else ""
    bound = "" if figure.bound is None else f"{figure.bound:g} {'holds' if figure.holds else 'DOES NOT HOLD'}"
    numbers = f"{digits(figure.ours):>10}{digits(figure.theirs):>10}  {figure.unit:8}{figure.ratio:>7.3f}"
    return f"{figure.name:22}{numbers}  {spread:>12}  {bound}".rstrip() + f"\n    {figure.about}"


def digits(value: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
