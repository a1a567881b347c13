"""``till reconcile`` and ``till totals``: the day's books, against the host's and added up."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

import click

from terminal.cli.common import Common
from terminal.cli.failures import IN_DOUBT, OK, USAGE
from terminal.cli.text import STATES, columns, counted, money, payment_facts, sums
from terminal.clock import rfc3339, system_now
from terminal.errors import SettingsError
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from terminal.totals import Line, Standing, kept_lines, net, of_day, scheme

if TYPE_CHECKING:
    from terminal.comparison import Reconciliation, Row
    from terminal.terminal import Terminal

_ZONE = click.option(
    "--zone", metavar="NAME", help="The time zone in which a day is a day, as Europe/Vienna; else this machine's."
)

STANDINGS: dict[Standing, str] = {
    Standing.CHARGED: "charged",
    Standing.REFUNDED: "refunded",
    Standing.OPEN: "not known yet whether charged",
    Standing.HELD: "held",
    Standing.REVERSING: "being taken back",
    Standing.OFFLINE: "approved offline, not yet by the host",
    Standing.LOST: "approved offline, then declined",
    Standing.CANCELED: "canceled",
    Standing.NOT_TAKEN: "not taken",
    Standing.REFUND_OPEN: "not known yet whether refunded",
    Standing.REFUND_FAILED: "not refunded",
}
"""What a line of the totals is of, in people's words."""

DIFFERENCES: dict[str, str] = {
    "status": "the host calls it {theirs}",
    "amount": "the host has another amount, {amount}",
    "refunds": "the host calls it {theirs}: other refunds than ours",
    "missing": "the host does not have it",
    "late": "it was written off here, and the host has it, {theirs}: it is being taken back",
    "unknown": "the host has another charge under this reference: {charge_id}, {theirs}, {amount}",
    "not_compared": "not compared",
}
"""Each difference in people's words."""


@click.command()
@click.option("--since", metavar="DATE", help="From the beginning of this day on, as 2025-12-13.")
@click.option("--until", metavar="DATE", help="Up to the end of this day.")
@_ZONE
@click.pass_obj
def reconcile(common: Common, since: str | None, until: str | None, zone: str | None) -> int:
    """Compare the journal with the host, payment by payment, and report each difference.

    An approval that was written off here is taken back from then on. Ends with 0 when the two agree, 4 when they
    do not.
    """
    from terminal.cli.prompts import secret_of
    from terminal.cli.session import load, with_terminal

    where = _zone(zone)
    first = None if since is None else _begin(_date(since), where)
    last = None if until is None else _begin(_date(until) + timedelta(days=1), where)
    if first is not None and last is not None and first >= last:
        raise click.UsageError("--since comes after --until: that is no day at all.")
    told = -1

    def progress(done: int, total: int) -> None:
        nonlocal told
        if (percent := done * 100 // max(1, total)) > told:
            told = percent
            common.screen.progress("comparing", done, total)

    async def work(till: Terminal) -> Reconciliation:
        return await till.reconcile(first, last, progress=progress)

    settings = load(common.home)
    found = with_terminal(common, settings, secret_of(settings), work)
    return _show(common, found)


def _show(common: Common, found: Reconciliation) -> int:
    code = IN_DOUBT if found.differences else OK
    if not found.offered:
        code = USAGE
    if common.json:
        for row in found.differences:
            common.screen.result({"event": "difference"} | _facts(row), ())
    facts = {
        "event": "result",
        "offered": found.offered,
        "payments": found.payments,
        "differences": len(found.differences),
        "by_kind": {kind.value: count for kind, count in found.counts.items()},
        "open": sum(row.open for row in found.rows),
        "exit_code": code,
    }
    common.screen.result(facts, _lines(found))
    return code


def _lines(found: Reconciliation) -> list[str]:
    if not found.offered:
        return [f"This host offers no look-up (host.offers_lookup): {_payments(found)} could not be compared."]
    if not found.rows:
        return ["there are no payments in the journal to compare with the host"]
    text = []
    if found.differences:
        rows: list[tuple[str, ...]] = [("when", "kind", "amount", "here", "reference", "charge", "difference")]
        rows += [_row(row) for row in found.differences]
        text += columns(rows)
    still = sum(row.open for row in found.rows)
    agree = "no difference" if not found.differences else counted(len(found.differences), "difference")
    text.append(f"{_payments(found)} compared with the host: {agree}")
    if still:
        text.append(f"{counted(still, 'payment')} of them open, and not judged: till resolve")
    return text


def _payments(found: Reconciliation) -> str:
    return counted(found.payments, "payment")


def _row(row: Row) -> tuple[str, ...]:
    payment, theirs = row.payment, row.theirs
    words = {
        "theirs": "" if theirs is None else theirs.happened.value.replace("_", " "),
        "amount": "" if theirs is None else str(theirs.amount),
        "charge_id": "" if theirs is None else theirs.charge_id,
    }
    told = "; ".join(DIFFERENCES[kind].format_map(words) for kind in row.differences)
    return (
        rfc3339(payment.created_at),
        payment.kind.value,
        str(payment.approved or payment.amount),
        STATES[row.ours],
        payment.reference,
        payment.charge_id or payment.id,
        f"{told}: {row.note}" if row.note and theirs is None else told,
    )


def _facts(row: Row) -> dict[str, Any]:
    theirs = row.theirs
    return {
        "differences": [kind.value for kind in row.differences],
        "ours": row.ours.value,
        "theirs": None if theirs is None else theirs.happened.value,
        "their_amount": None
        if theirs is None or theirs.amount is None
        else {"value": str(theirs.amount.minor), "currency": theirs.amount.currency},
        "their_charge_id": None if theirs is None else theirs.charge_id,
        "written": None if row.written is None else row.written.value,
        "note": row.note,
        "payment": payment_facts(row.payment),
    }


# -- totals ---------------------------------------------------------------------------------------------------


@click.command()
@click.option("--day", metavar="DATE", help="The day, as 2025-12-13; else today.")
@_ZONE
@click.pass_obj
def totals(common: Common, day: str | None, zone: str | None) -> None:
    """Add up a day by currency, scheme and entry mode. Asks for no passphrase.

    Every cent of every charge and refund that began on that day is in one line: what was taken, what was given
    back, and what is neither (open, held, offline, lost) in lines of their own. Days whose payments were compacted
    are days in UTC.
    """
    where = _zone(zone)
    said = _date(day) if day is not None else None
    book = Journal.read(common.home / JOURNAL_FILE)
    try:
        now = system_now()
        wanted = said or max(now, book.last_at or now).astimezone(where).date()  # the device's clock may be behind
        payments = book.payments()
        gone = book.totals(scheme, gone=True)
    finally:
        book.close()
    found = of_day(payments, wanted, where, earlier=kept_lines(gone, wanted))
    sum_of = net(found)
    if common.json:
        for line in found:
            common.screen.result({"event": "line"} | _line_facts(line), ())
    facts = {
        "event": "result",
        "day": wanted.isoformat(),
        "net": [{"value": str(minor), "currency": currency} for currency, minor in sorted(sum_of.items())],
        "payments": sum(line.count for line in found),
        "exit_code": 0,
    }
    text = _table(found) if found else ["no payments"]
    common.screen.result(facts, [*text, f"{wanted.isoformat()}: net {sums(sum_of)}"])


def _table(found: list[Line]) -> list[str]:
    rows: list[tuple[str, ...]] = [("currency", "scheme", "entry", "what", "count", "sum")]
    for line in found:
        cell = line.cell
        what = STANDINGS[cell.standing]
        total = money(line.minor, cell.currency)
        rows.append((cell.currency, cell.scheme, cell.entry_mode or "-", what, str(line.count), total))
    return columns(rows)


def _line_facts(line: Line) -> dict[str, Any]:
    cell = line.cell
    return {
        "currency": cell.currency,
        "scheme": cell.scheme,
        "entry_mode": cell.entry_mode,
        "standing": cell.standing.value,
        "count": line.count,
        "sum": {"value": str(line.minor), "currency": cell.currency},
    }


# -- days -----------------------------------------------------------------------------------------------------


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is not a day: write it like 2025-12-13.") from None


def _zone(name: str | None) -> tzinfo | None:
    """None is this machine's own."""
    if name is None:
        return None
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise SettingsError(f"--zone: {name!r} is no time zone", advice="Write it like Europe/Vienna.") from None


def _begin(day: date, zone: tzinfo | None) -> datetime:
    """The first moment of a day."""
    begin = datetime.combine(day, time.min)
    return begin.astimezone() if zone is None else begin.replace(tzinfo=zone)
