"""The journal of the search: its rows as the payments that the terminal's own functions take, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sim.prove.states import UNKNOWN, Bounds, Record
from terminal.money import Amount
from terminal.payment import OUTCOMES, PAYMENT, REVERSAL, Happened, Kind, Payment, effect_on_charge

BEGUN = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CURRENCY = "EUR"
HALF = 625
"""Minor units."""
MOST = 16
"""Payments in a journal."""
REFERENCE = "order-17"

Journal = tuple[Record, ...]


def money(halves: int) -> Amount:
    """That many halves of what is asked."""
    return Amount(HALF * halves, CURRENCY)


def halves(amount: Amount) -> int:
    """And back."""
    return amount.minor // HALF


def charge_name(number: int) -> str:
    """The host's id of a charge; empty for UNKNOWN."""
    return f"ch_{number:012d}" if number != UNKNOWN else ""


def charge_number(name: str) -> int:
    """And back."""
    return int(name.removeprefix("ch_")) if name else UNKNOWN


def key_name(number: int) -> str:
    """A payment's id, which is its idempotency key."""
    return f"{number:032x}"


def slot_of(payment: Payment) -> int:
    """And back, whatever else stands in the id."""
    return int(payment.id, 16) % MOST


def key_of(payment: Payment) -> int:
    """The idempotency key that a request bears: its payment's number, unless it is another."""
    return int(payment.id, 16)


@cache
def payment_of(slot: int, record: Record, bounds: Bounds) -> Payment:
    """The payment that the journal would give back."""
    references = {
        Kind.CHARGE: REFERENCE,
        Kind.REFUND: REVERSAL if record.reversal else "returned",
        Kind.CANCEL: "",
    }
    return Payment(
        id=key_name(slot),
        kind=record.kind,
        reference=references[record.kind],
        amount=money(record.amount),
        state=record.state,
        parent=key_name(record.parent) if record.parent != UNKNOWN else "",
        created_at=BEGUN,
        hold=bounds.hold and record.kind is Kind.CHARGE,
        accept_partial=bounds.accept_partial,
        charge_id=charge_name(record.charge),
        approved=money(record.approved) if record.approved else None,
        refunded=HALF * record.refunded,
    )


def written(
    journal: Journal, payment: Payment, happened: Happened, facts: Mapping[str, Any], keys: int, bounds: Bounds
) -> Journal:
    """The journal after that commit. Raises IllegalEvent where the table does not know the event."""
    slot = slot_of(payment)
    if slot == len(journal):
        parent = slot_of_name(payment.parent)
        journal = (
            *journal,
            Record(
                payment.kind,
                payment.state,
                amount=halves(payment.amount),
                parent=parent,
                sealed=keys,
                charge=charge_number(payment.charge_id),
                reversal=payment.reference == REVERSAL,
            ),
        )
    record = journal[slot]
    after = record._replace(state=PAYMENT.step(record.state, happened))
    if happened is Happened.SEALED_AGAIN:
        after = after._replace(sealed=keys, version=record.version + 1)
    if "charge_id" in facts:
        after = after._replace(charge=charge_number(facts["charge_id"]))
    if "approved" in facts:
        after = after._replace(approved=halves(facts["approved"]))
    journal = put(journal, slot, after)
    if after.parent == UNKNOWN:
        return journal
    charge = journal[after.parent]
    effect = effect_on_charge(payment_of(slot, after, bounds), payment_of(after.parent, charge, bounds))
    if effect is None:
        return journal
    stands = charge._replace(state=PAYMENT.step(charge.state, effect[0]), refunded=effect[1] // HALF)
    return put(journal, after.parent, stands)


def put(journal: Journal, slot: int, record: Record) -> Journal:
    """The journal with another record in that place."""
    return (*journal[:slot], record, *journal[slot + 1 :])


def slot_of_name(name: str) -> int:
    """The number of a payment by its id; UNKNOWN for none."""
    return int(name, 16) if name else UNKNOWN


def last_charge(journal: Journal) -> int:
    """The charge that the reference stands for now; UNKNOWN before the first."""
    return max((slot for slot, record in enumerate(journal) if record.kind is Kind.CHARGE), default=UNKNOWN)


def outcome(record: Record) -> str:
    """What a till is told of it."""
    return OUTCOMES[record.state].value
