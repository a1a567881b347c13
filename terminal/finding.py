"""What the journal has of what a caller asks about; each raises PaymentRefused where it cannot be done."""

from __future__ import annotations

from terminal.errors import PaymentRefused
from terminal.journal import Journal
from terminal.money import Amount
from terminal.payment import OPEN, WITHOUT_EFFECT, Kind, Outcome, Payment, State


def standing(journal: Journal, reference: str, amount: Amount) -> Payment | None:
    """The charge that a reference stands for; None where it may be charged (again)."""
    known = journal.charge_by_reference(reference)
    if known is None or known.state in WITHOUT_EFFECT:
        return None
    if known.amount != amount:
        raise PaymentRefused(
            f"reference {reference!r} stands for a charge of {known.amount}, not of {amount}",
            advice="Use a new reference for a new payment.",
        )
    return known


def charge(journal: Journal, reference: str) -> Payment:
    """The charge of a reference."""
    payment = journal.charge_by_reference(reference)
    if payment is None:
        raise PaymentRefused(
            f"this terminal knows no charge of {reference!r}", advice="`till journal` lists its charges."
        )
    return payment


def charge_by_id(journal: Journal, charge_id: str) -> Payment:
    """The charge to which the host gave this id."""
    charge = journal.charge_by_charge_id(charge_id)
    if charge is None:
        raise PaymentRefused(
            f"this terminal has taken no charge {charge_id!r}", advice="`till journal` lists its charges."
        )
    return charge


def refundable(charge: Payment, amount: Amount | None) -> Amount:
    """What is to be given back of a charge: ``amount``, or all that is left."""
    wanted = amount.minor if amount else charge.left
    if amount and amount.currency != charge.amount.currency:
        raise PaymentRefused(f"charge {charge.charge_id} was in {charge.amount.currency}, not in {amount.currency}")
    if not charge.left:
        raise PaymentRefused(f"charge {charge.charge_id} is {words(charge)}: there is nothing to give back")
    if wanted > charge.left:
        left = Amount(charge.left, charge.amount.currency)
        raise PaymentRefused(
            f"{left} is left of charge {charge.charge_id}, and {amount} was asked for",
            advice="Refund at most what is left.",
        )
    return Amount(wanted, charge.amount.currency)


def open_child(journal: Journal, charge: Payment, kind: Kind) -> Payment | None:
    """A refund or cancel of the charge whose outcome is not known."""
    found = [p for p in journal.concerning(charge) if p.kind is kind and p.state in OPEN]
    return found[0] if found else None


def unheard_refund(journal: Journal, charge: Payment, amount: Amount | None, reason: str) -> Payment | None:
    """The refund whose outcome nobody has acknowledged: to ask for just that again is to ask how it ended."""
    for refund in journal.outcomes():
        if refund.kind is not Kind.REFUND or refund.parent != charge.id or refund.outcome is Outcome.PENDING:
            continue
        left = charge.left + (refund.amount.minor if refund.state is State.APPROVED else 0)
        if refund.reference == reason and refund.amount == (amount or Amount(left, charge.amount.currency)):
            return refund
    return None


def words(payment: Payment) -> str:
    """The payment's state, for people."""
    return payment.state.value.replace("_", " ")
