"""``till prove``: every interleaving of a payment's life, to a stated bound."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sim.prove.search import Result

BROKEN = 1
"""Exit code: something that has to hold does not."""


@click.command()
@click.option("--quick", is_flag=True, help="A few of the searches, for a first look.")
@click.option("--search", "names", multiple=True, metavar="NAME", help="This search alone; may be given again.")
@click.option("--depth", type=click.IntRange(min=1), help="At most so many steps deep, and so not complete.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def prove(quick: bool, names: tuple[str, ...], depth: int | None, as_json: bool) -> None:
    """Search all that can happen to a payment, over the tables and the course that ship.

    Terminal, host, network, till and shopper, power cuts at every point, and time. Each search is complete for
    what it lets happen, any number of times. Exit code 0: everything holds. 1: something does not; the shortest
    way there is printed, and a test that lives through it in the simulated world.
    """
    from sim.prove.bounds import QUICK, SEARCHES
    from sim.prove.search import Search

    known = {bounds.name: bounds for bounds in SEARCHES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"there is no search {unknown[0]!r} (there are: {', '.join(map(repr, known))})")
    wanted = names or (QUICK if quick else tuple(known))
    began, rows = time.monotonic(), list[dict[str, Any]]()
    broken = False
    if not as_json:
        click.echo(f"{'search':<22}{'states':>10}{'transitions':>13}{'depth':>7}{'ends':>7}{'seconds':>9}")
    for name in wanted:
        started = time.monotonic()
        result = Search(known[name]).run(depth)
        rows.append(_row(result, time.monotonic() - started))
        broken = broken or result.found is not None
        if not as_json:
            _say(result, rows[-1])
    seconds = time.monotonic() - began
    if as_json:
        click.echo(json.dumps({"searches": rows, "seconds": round(seconds, 1), "holds": not broken}))
    else:
        states, transitions = sum(row["states"] for row in rows), sum(row["transitions"] for row in rows)
        click.echo(f"{'altogether':<22}{states:>10,}{transitions:>13,}{'':>14}{seconds:>9.1f}")
        complete = all(row["complete"] for row in rows)
        click.echo(_verdict(broken=broken, complete=complete))
    if broken:
        sys.exit(BROKEN)


def _row(result: Result, seconds: float) -> dict[str, Any]:
    from sim.prove.story import as_test, as_words

    row: dict[str, Any] = {
        "name": result.bounds.name,
        "states": result.states,
        "transitions": result.transitions,
        "depth": result.depth,
        "ends": result.ends,
        "complete": result.complete,
        "seconds": round(seconds, 1),
    }
    if result.found is not None:
        row["broken"] = result.found.broken
        row["path"] = as_words(result.found)
        row["test"] = as_test(result.found, result.bounds)
    return row


def _say(result: Result, row: dict[str, Any]) -> None:
    click.echo(
        f"{row['name']:<22}{row['states']:>10,}{row['transitions']:>13,}{row['depth']:>7}{row['ends']:>7}"
        f"{row['seconds']:>9.1f}"
    )
    if result.found is None:
        return
    click.echo(f"\nBroken: {result.found.broken}. The shortest way there (! is a fault):\n")
    click.echo("\n".join(row["path"]))
    click.echo("\nAs a test in the world:\n")
    click.echo(row["test"])


def _verdict(*, broken: bool, complete: bool) -> str:
    if broken:
        return "Something does not hold."
    if not complete:
        return "Nothing was broken as far as was searched."
    return "Everything holds: in every state, at every end, and every state has a way to one."
