"""The terminal's journal against the host's ledger: every charge and refund on both sides, or a difference.

``rows`` puts both into one shape, ``differences`` says where they part. The journal is read from disk and the
ledger over ``GET /sim/ledger``; neither side's memory is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from terminal.payment import OPEN, Kind, Payment, State

NOTHING = "nothing"
"""What stands in place of the host's word where the host has no such charge."""

AGREEING: dict[State, frozenset[str]] = {
    State.NEW: frozenset({NOTHING}),
    State.APPROVED: frozenset({"approved"}),
    State.DECLINED: frozenset({"declined"}),
    State.REFUSED: frozenset({NOTHING, "declined"}),
    State.WITHDRAWN: frozenset({NOTHING}),
    State.CANCELED: frozenset({"canceled"}),
    State.PARTIALLY_REFUNDED: frozenset({"partially_refunded"}),
    State.REFUNDED: frozenset({"refunded"}),
    State.REVERSED: frozenset({"refunded"}),
    State.LOST: frozenset({NOTHING, "declined"}),
    State.FAILED: frozenset({"declined"}),
}
"""What the ledger may say of a charge that is final in the journal."""

_WITHOUT_AMOUNT = frozenset(
    {State.CANCELED, State.REFUNDED, State.REVERSED, State.DECLINED, State.REFUSED, State.LOST}
)
"""Where the journal may never have learnt how much the host had approved."""

_UNDONE = frozenset({State.CANCELED, State.REVERSED})
"""Of what is not to stand the amount is not checked, as a wrong one must not keep it from being undone."""


@dataclass(frozen=True, slots=True)
class Row:
    """A charge as one side knows it. ``minor`` is what was approved, or asked where nothing was."""

    charge_id: str
    idempotency_key: str
    reference: str
    minor: int
    currency: str
    status: str
    entry_mode: str
    refunds: tuple[tuple[str, int, str], ...]
    """Those that stand: (idempotency key, minor units, status), in order of their keys. One that failed has moved
    nothing, whichever side knows of it; the host's id of one whose answers were all lost is never learnt."""
    certain: bool = True
    """Whether ``minor`` and ``charge_id`` are known for sure: a charge that was undone unseen may lack them."""


def journal_rows(payments: Iterable[Payment]) -> list[Row]:
    """The journal's charges, oldest first, but for those of which the host has nothing; refunds stand with their
    charge."""
    payments = list(payments)
    refunds: dict[str, list[tuple[str, int, str]]] = {}
    for payment in payments:
        if payment.kind is Kind.REFUND and payment.state is State.APPROVED:
            entry = (payment.id, payment.amount.minor, payment.state.value)
            refunds.setdefault(payment.parent, []).append(entry)
    return [
        Row(
            charge_id=payment.charge_id,
            idempotency_key=payment.id,
            reference=payment.reference,
            minor=(payment.approved or payment.amount).minor,
            currency=payment.amount.currency,
            status=payment.state.value,
            entry_mode=payment.entry_mode,
            refunds=tuple(sorted(refunds.get(payment.id, ()))),
            certain=payment.state not in _UNDONE
            and (payment.approved is not None or payment.state not in _WITHOUT_AMOUNT),
        )
        for payment in payments
        if payment.kind is Kind.CHARGE and payment.state not in (State.REFUSED, State.WITHDRAWN)
    ]


def ledger_rows(ledger: Mapping[str, Any], terminal_id: str) -> list[Row]:
    """The ledger's charges of one terminal, oldest first, from the answer of ``GET /sim/ledger``."""
    return [
        Row(
            charge_id=charge["id"],
            idempotency_key=charge["idempotency_key"] or "",
            reference=charge["reference"],
            minor=int(charge["amount"]["value"]),
            currency=charge["amount"]["currency"],
            status=charge["status"],
            entry_mode=charge["entry_mode"],
            refunds=tuple(
                sorted(
                    (r.get("idempotency_key") or r["id"], int(r["amount"]["value"]), r["status"])
                    for r in charge["refunds"]
                    if r["status"] == "approved"
                )
            ),
        )
        for charge in ledger["charges"]
        if charge["terminal_id"] == terminal_id
    ]


def differences(journal: Iterable[Row], ledger: Iterable[Row]) -> list[str]:
    """One line for each charge on which the two do not agree; empty when they do."""
    ours = {row.idempotency_key: row for row in journal}
    theirs = {row.idempotency_key: row for row in ledger}
    found = []
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key), theirs.get(key)
        if mine is None:
            found += _unknown(other)
        elif mine.status in OPEN:
            found.append(f"{mine.reference}: not resolved ({mine.status})")
        elif other is None:
            if NOTHING not in AGREEING[State(mine.status)]:
                found.append(f"{mine.charge_id or mine.reference}: in the journal only ({mine.status})")
        elif parts := _parts(mine, other):
            found.append(f"{other.charge_id} ({other.reference}): they differ in {', '.join(parts)}")
    return found


def _unknown(other: Row | None) -> list[str]:
    """Of a charge that the journal has not, or has as one of which the host has nothing."""
    return [f"{other.charge_id} ({other.reference}): in the ledger only"] if other else []


def _parts(mine: Row, other: Row) -> list[str]:
    """The fields in which they differ."""
    unsure = set() if mine.certain else {"minor"} | (set() if mine.charge_id else {"charge_id"})
    found = [
        name
        for name in Row.__dataclass_fields__
        if name not in {"certain", "status"} | unsure and getattr(mine, name) != getattr(other, name)
    ]
    if other.status not in AGREEING[State(mine.status)]:
        found.append("status")
    return found
