"""What a day brought, by currency, scheme and entry mode, with every cent in exactly one line. Pure.

A payment's amount stands in the line of its standing: taken, given back, or one of those that are neither (open,
held, offline, lost and so on). So the lines add up to the journal, whatever happened. A cancel has no money of its
own: its charge's standing says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, tzinfo
from enum import StrEnum
from typing import NamedTuple

from terminal.payment import Kind, Payment, State

OTHER = "other"
"""The scheme of a card that no range knows, or of which too little is known."""

SCHEMES: tuple[tuple[str, str, str], ...] = (
    ("220000", "220499", "mir"),
    ("222100", "272099", "mastercard"),
    ("300000", "305999", "diners"),
    ("309500", "309599", "diners"),
    ("340000", "349999", "amex"),
    ("352800", "358999", "jcb"),
    ("360000", "369999", "diners"),
    ("370000", "379999", "amex"),
    ("380000", "399999", "diners"),
    ("400000", "499999", "visa"),
    ("500000", "509999", "maestro"),
    ("510000", "559999", "mastercard"),
    ("560000", "589999", "maestro"),
    ("601100", "601199", "discover"),
    ("620000", "629999", "unionpay"),
    ("630400", "630499", "maestro"),
    ("639000", "639099", "maestro"),
    ("644000", "659999", "discover"),
    ("670000", "679999", "maestro"),
    ("810000", "817199", "unionpay"),
)
"""First and last six digits of the issuer identification numbers (ISO/IEC 7812-1) that each scheme has published;
no two overlap."""


def scheme(masked_pan: str) -> str:
    """The scheme to which the first six digits of a PAN belong, or ``other``."""
    start = masked_pan[:6]
    if not (len(start) == 6 and start.isascii() and start.isdigit()):
        return OTHER
    return next((name for first, last, name in SCHEMES if first <= start <= last), OTHER)


class Standing(StrEnum):
    """Which line a payment's amount stands in."""

    CHARGED = "charged"
    """Taken, and not canceled. What was given back of it is ``refunded``."""
    REFUNDED = "refunded"
    OPEN = "open"
    """Whether it was taken is not known."""
    HELD = "held"
    REVERSING = "reversing"
    """The host has it, and it is to be taken back."""
    OFFLINE = "offline"
    """Approved here; the host has not approved it yet."""
    LOST = "lost"
    """Approved here, and declined by the host."""
    CANCELED = "canceled"
    NOT_TAKEN = "not_taken"
    """Declined, refused, or never sent."""
    REFUND_OPEN = "refund_open"
    """Whether it was given back is not known."""
    REFUND_FAILED = "refund_failed"
    """Not given back."""


CHARGES: dict[State, Standing] = {
    State.NEW: Standing.NOT_TAKEN,
    State.IN_FLIGHT: Standing.OPEN,
    State.IN_DOUBT: Standing.OPEN,
    State.PENDING: Standing.OPEN,
    State.ABANDONED: Standing.OPEN,
    State.HELD: Standing.HELD,
    State.REVERSING: Standing.REVERSING,
    State.OFFLINE: Standing.OFFLINE,
    State.FORWARDING: Standing.OFFLINE,
    State.LOST: Standing.LOST,
    State.APPROVED: Standing.CHARGED,
    State.PARTIALLY_REFUNDED: Standing.CHARGED,
    State.REFUNDED: Standing.CHARGED,
    State.REVERSED: Standing.CHARGED,
    State.CANCELED: Standing.CANCELED,
    State.DECLINED: Standing.NOT_TAKEN,
    State.REFUSED: Standing.NOT_TAKEN,
    State.WITHDRAWN: Standing.NOT_TAKEN,
    State.FAILED: Standing.NOT_TAKEN,
}
"""The line of a charge by its state."""

REFUNDS: dict[State, Standing] = dict.fromkeys(State, Standing.REFUND_OPEN) | {
    State.NEW: Standing.REFUND_FAILED,
    State.APPROVED: Standing.REFUNDED,
    State.DECLINED: Standing.REFUND_FAILED,
    State.REFUSED: Standing.REFUND_FAILED,
    State.WITHDRAWN: Standing.REFUND_FAILED,
    State.CANCELED: Standing.REFUND_FAILED,
    State.FAILED: Standing.REFUND_FAILED,
}
"""The line of a refund by its state."""


class Bucket(NamedTuple):
    """Payments that compaction removes from the journal, by what is kept of them.

    ``day`` is the UTC date on which the payment began, as 2025-12-13. A refund has its charge's scheme and mode.
    """

    day: str
    currency: str
    scheme: str
    entry_mode: str
    kind: str
    state: str


@dataclass(frozen=True, slots=True)
class Total:
    """How many payments, and their sum in minor units: what was approved, else what was asked."""

    count: int
    minor: int


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """What a line is of. A refund has the scheme and the entry mode of its charge."""

    currency: str
    scheme: str
    entry_mode: str
    standing: Standing


@dataclass(frozen=True, slots=True)
class Line:
    """So many payments, and so many minor units."""

    cell: Cell
    count: int
    minor: int


def day_of(payment: Payment, zone: tzinfo | None = UTC) -> date:
    """The day on which a payment began; None is this machine's own zone. A refund has a day of its own."""
    return payment.created_at.astimezone(zone).date()


def cell_of(payment: Payment, charges: Mapping[str, Payment]) -> Cell | None:
    """The line that a payment belongs to; ``charges`` by our ids. None for a cancel."""
    if payment.kind is Kind.CANCEL:
        return None
    of, table = (payment, CHARGES) if payment.kind is Kind.CHARGE else (charges.get(payment.parent), REFUNDS)
    card, mode = (of.masked_pan, of.entry_mode) if of else ("", "")
    return Cell(payment.amount.currency, scheme(card), mode, table[payment.state])


def money_of(payment: Payment) -> int:
    """Minor units for which a payment stands in its line: what was approved, else what was asked."""
    return (payment.approved or payment.amount).minor


def lines(
    payments: Iterable[Payment], *, charges: Mapping[str, Payment] | None = None, earlier: Iterable[Line] = ()
) -> list[Line]:
    """The lines of these payments (and of ``earlier`` lines, which they add to), sorted.

    ``charges`` by our ids are where the refunds' charges are found, by default among the payments themselves.
    """
    payments = list(payments)
    known = {p.id: p for p in payments} if charges is None else charges
    sums: dict[Cell, tuple[int, int]] = {}

    def add(cell: Cell, count: int, minor: int) -> None:
        before = sums.get(cell, (0, 0))
        sums[cell] = before[0] + count, before[1] + minor

    for line in earlier:
        add(line.cell, line.count, line.minor)
    for payment in payments:
        if (cell := cell_of(payment, known)) is not None:
            add(cell, 1, money_of(payment))
    return [Line(cell, *sums[cell]) for cell in sorted(sums)]


def of_day(
    payments: Iterable[Payment], day: date, zone: tzinfo | None = UTC, *, earlier: Iterable[Line] = ()
) -> list[Line]:
    """The lines of one day, of all payments of the journal, added to ``earlier`` lines of that day."""
    payments = list(payments)
    known = {p.id: p for p in payments if p.kind is Kind.CHARGE}
    return lines((p for p in payments if day_of(p, zone) == day), charges=known, earlier=earlier)


def kept_lines(gone: Mapping[Bucket, Total], day: date) -> list[Line]:
    """The lines of a day (in UTC: no other is kept) of what compaction has removed from the journal."""
    found = []
    for bucket, total in gone.items():
        if bucket.day != day.isoformat() or bucket.kind == Kind.CANCEL:
            continue
        standing = (CHARGES if bucket.kind == Kind.CHARGE else REFUNDS)[State(bucket.state)]
        cell = Cell(bucket.currency, bucket.scheme, bucket.entry_mode, standing)
        found.append(Line(cell, total.count, total.minor))
    return found


def net(of: Iterable[Line]) -> dict[str, int]:
    """Minor units by currency: what was charged less what was refunded. It may be below zero."""
    sums: dict[str, int] = {}
    for line in of:
        sign = {Standing.CHARGED: 1, Standing.REFUNDED: -1}.get(line.cell.standing, 0)
        sums[line.cell.currency] = sums.get(line.cell.currency, 0) + sign * line.minor
    return sums
