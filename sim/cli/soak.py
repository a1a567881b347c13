"""``till soak``: hundreds of thousands of payments full of trouble, from one seed."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from sim.soak.day import Day
    from sim.soak.run import Lived, Report

VIOLATED, NOT_ENOUGH = 1, 4
"""Exit codes: something happened that may not; nothing did, but not everything was tried often enough."""
SHOWN = 20
"""Violations that are printed."""


@click.command()
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The day comes from it.")
@click.option("--payments", type=click.IntRange(1, 10_000_000), default=2000, show_default=True)
@click.option(
    "--faults",
    default="everything",
    show_default=True,
    metavar="everything|nothing|FILE",
    help="What goes wrong: all of it, nothing, or by rules in TOML (by the name .toml) or JSON, all day long.",
)
@click.option("--no-lookup", is_flag=True, help="The host offers no look-ups.")
@click.option(
    "--history",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write what happens into this file, a line an event.",
)
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Live through the day in this file, as a failure has written it.",
)
@click.option("--shrink/--no-shrink", default=True, help="Look for the shortest day that still fails.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def soak(
    seed: int,
    payments: int,
    faults: str,
    no_lookup: bool,
    history: Path | None,
    replay: Path | None,
    shrink: bool,
    as_json: bool,
) -> None:
    """Live through days of payments on virtual time, with everything going wrong that can, and judge them.

    Journal, ledger and what the shoppers saw are held against each other at the end. Exit code 0: nothing was
    violated. 1: something was; the seed and the shortest day that still fails are printed. 4: nothing was, but of
    20,000 payments or more some kind of trouble was seen fewer than 20 times.
    """
    from sim.soak.day import DayError, read
    from sim.soak.run import lived

    try:
        day = read(replay) if replay else _planned(seed, payments, faults, lookup=not no_lookup)
    except DayError as error:
        raise click.ClickException(str(error)) from None
    with ExitStack() as stack:
        file: TextIO | None = stack.enter_context(_opened(history)) if history else None
        shown = sys.stderr.isatty() and not as_json
        bar = stack.enter_context(click.progressbar(length=day.payments, file=sys.stderr)) if shown else None
        done = lived(
            day,
            file=file,
            progress=(lambda number: bar.update(1)) if bar else None,
            complete=faults == "everything" and not replay,
        )
    _say(done, day, as_json=as_json)
    if done.violations and shrink:
        _shrunk(day, done, as_json=as_json)
    if done.violations:
        sys.exit(VIOLATED)
    if done.report.missing:
        sys.exit(NOT_ENOUGH)


def _opened(history: Path) -> TextIO:
    try:
        return history.open("w")
    except OSError as error:
        raise click.BadParameter(f"{history}: {error.strerror}", param_hint="--history") from None


def _planned(seed: int, payments: int, faults: str, *, lookup: bool) -> Day:
    from sim.faults import FaultError, parse_document
    from sim.soak.day import Trouble
    from sim.soak.plan import planned

    if faults == "everything":
        return planned(seed, payments, lookup=lookup)
    day = planned(seed, payments, (), lookup=lookup, steady=True)
    if faults == "nothing":
        return day
    path = Path(faults)
    try:
        text = path.read_bytes()
        parsed = parse_document(text, toml=path.suffix == ".toml")
    except OSError as error:
        raise click.BadParameter(f"{faults}: {error.strerror}", param_hint="--faults") from None
    except FaultError as error:
        raise click.ClickException(f"{path}: {error}") from None
    if parsed.line:
        raise click.ClickException(f"{path}: 'line' is not for a soak: its cards come without a serial line")
    import msgspec

    rules, disk = msgspec.to_builtins(parsed.rules), msgspec.to_builtins(parsed.disk)
    day.steps.insert(0, Trouble(rules=rules, disk=disk))
    return day


def _say(done: Lived, day: Day, *, as_json: bool) -> None:
    import msgspec

    report: Report = done.report
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    click.echo(
        f"{report.payments} payments in {report.simulated_hours:.1f} simulated hours, seed {report.seed}:"
        f" {report.seconds:.1f} s, {report.payments_per_second:.0f} payments a second"
    )
    for title, counts in (("faults", report.faults), ("power cuts", report.power_cuts)):
        click.echo(f"{title}: " + (", ".join(f"{name} {count}" for name, count in counts.items()) or "none"))
    for one in done.violations[:SHOWN]:
        click.echo(f"VIOLATED {one}")
    if len(done.violations) > SHOWN:
        click.echo(f"and {len(done.violations) - SHOWN} more")
    for rare in report.missing:
        click.echo(f"too rare: {rare}")
    if report.well:
        click.echo("nothing was violated")


def _shrunk(day: Day, done: Lived, *, as_json: bool) -> None:
    """The shortest day that still fails: its steps and how it ended, on stderr, and as a file to be replayed."""
    from sim.soak.day import encode
    from sim.soak.run import lived, shortest

    first = done.violations[0]
    short = shortest(day, first)
    path = Path(f"soak-{day.seed}.json")
    path.write_bytes(encode(short))
    click.echo(f"seed {day.seed}: {first}", err=True)
    click.echo(f"the shortest day found that still fails has {len(short.steps)} steps:", err=True)
    click.echo(encode(short).decode(), err=True, nl=False)
    for line in lived(short).tail:
        click.echo(f"  {line}", err=True, nl=False)
    click.echo(f"again: till soak --replay {path}", err=True)
