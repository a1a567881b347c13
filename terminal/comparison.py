"""One payment of the journal against what the host says of it. Pure.

``judge`` says in what they differ, ``to_write`` what the journal has to learn of that, ``pick`` which of the host's
charges a payment may be that has no id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from terminal.fit import Answer
from terminal.payment import OPEN, PAYMENT, Happened, Kind, Payment, State


class Difference(StrEnum):
    """In what the two do not agree."""

    STATUS = "status"
    AMOUNT = "amount"
    REFUNDS = "refunds"
    """The host has given back another part of the charge than the journal has."""
    MISSING = "missing"
    """The host has no such payment."""
    LATE = "late"
    """Written off here, and it stands there. It is taken back now."""
    UNKNOWN = "unknown"
    """It stands there under one of our references, and no payment of the journal is it."""
    NOT_COMPARED = "not_compared"
    """The host could not be asked."""


@dataclass(frozen=True, slots=True)
class Row:
    """One payment, and what the host says of it."""

    payment: Payment
    """As the journal has it after the comparison. With UNKNOWN, the last one of the same reference."""
    ours: State
    """As the journal had it before."""
    theirs: Answer | None
    """None where the host has none, was not asked, or cannot be."""
    differences: tuple[Difference, ...] = ()
    written: Happened | None = None
    """What was written into the journal because of it."""
    note: str = ""

    @property
    def open(self) -> bool:
        """Not final here, so that it is not compared: it is for ``till resolve``."""
        return self.ours in OPEN


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of it."""

    since: datetime | None
    until: datetime | None
    rows: tuple[Row, ...]
    offered: bool = True
    """The host offers look-ups; where it does not, nothing was compared and there are no rows."""
    payments: int = 0
    """How many were to be compared."""

    @property
    def differences(self) -> tuple[Row, ...]:
        """The rows on which the two do not agree."""
        return tuple(row for row in self.rows if row.differences)

    @property
    def counts(self) -> dict[Difference, int]:
        """How many rows have each kind of difference."""
        found = {kind: sum(kind in row.differences for row in self.rows) for kind in Difference}
        return {kind: count for kind, count in found.items() if count}


STANDING = frozenset({Happened.APPROVED, Happened.PENDING, Happened.REFUNDED_IN_PART})
"""The host's words for a charge of which money was, or will be, taken."""

_NOT_HELD = frozenset({None, Happened.DECLINED, Happened.CANCELED})
_NOT_GIVEN = frozenset({Happened.DECLINED, Happened.FAILED})

AGREEING: dict[State, frozenset[Happened | None]] = {
    State.APPROVED: frozenset({Happened.APPROVED}),
    State.PARTIALLY_REFUNDED: frozenset({Happened.REFUNDED_IN_PART}),
    State.REFUNDED: frozenset({Happened.REFUNDED}),
    State.REVERSED: frozenset({Happened.REFUNDED}),
    State.CANCELED: frozenset({Happened.CANCELED}),
    State.DECLINED: frozenset({Happened.DECLINED}),
    State.NEW: _NOT_HELD,
    State.REFUSED: _NOT_HELD,
    State.WITHDRAWN: _NOT_HELD,
    State.LOST: _NOT_HELD,
    State.FAILED: _NOT_GIVEN,
}
"""What a host may say of a payment that is final here; None: that it has none."""

GIVEN_BACK = frozenset({Happened.APPROVED, Happened.REFUNDED_IN_PART, Happened.REFUNDED})


def judge(payment: Payment, theirs: Answer | None, *, busy: bool = False) -> tuple[Difference, ...]:
    """How a final payment differs from what the host has. ``busy``: a refund or a cancel of it is under way, which
    may have reached the host already, so that its status says nothing.
    """
    if payment.state in OPEN:
        return ()
    happened = None if theirs is None else theirs.happened
    found = []
    if happened in AGREEING[payment.state] or (busy and theirs is not None):
        pass
    elif happened is None:
        found.append(Difference.MISSING)
    elif happened in STANDING and Happened.LATE in PAYMENT.table[payment.state] and payment.kind is Kind.CHARGE:
        found.append(Difference.LATE)
    elif happened in GIVEN_BACK and payment.state in _AGREE_BUT_FOR_REFUNDS:
        found.append(Difference.REFUNDS)
    else:
        found.append(Difference.STATUS)
    ours = payment.approved or payment.amount
    if theirs is not None and theirs.amount is not None and theirs.amount != ours:
        found.append(Difference.AMOUNT)
    return tuple(found)


_AGREE_BUT_FOR_REFUNDS = frozenset({State.APPROVED, State.PARTIALLY_REFUNDED, State.REFUNDED, State.REVERSED})


def to_write(payment: Payment, theirs: Answer | None, differences: tuple[Difference, ...]) -> Happened | None:
    """What the journal has to learn of a difference, or None."""
    if theirs is None:
        return None
    if Difference.LATE in differences:
        return Happened.LATE
    failed = payment.kind is Kind.REFUND and theirs.happened in _NOT_GIVEN
    if failed and payment.state is State.APPROVED and differences == (Difference.STATUS,):
        return Happened.FAILED
    if payment.state is State.LOST and differences == (Difference.STATUS,) and theirs.happened is Happened.APPROVED:
        return Happened.APPROVED
    return None


def pick(payment: Payment, among: Sequence[Answer], *, before: timedelta, after: timedelta) -> Answer | None:
    """The charge that a payment without an id may be: made near the time at which it was sent.

    Of several the one of its amount. The rest are of payments that the journal has lost, if of any.
    """
    first, last = payment.created_at - before, (payment.sent_at or payment.created_at) + after
    near = [answer for answer in among if answer.at is None or first <= answer.at <= last]
    same = [answer for answer in near if answer.amount == payment.amount]
    return next(iter(same or near), None)
