"""What may never happen, however often either side was killed: judged from the host's ledger, the journal as it is
on disk, and what the till had seen; from no process's memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from sim.balance import differences, journal_rows, ledger_rows
from terminal.payment import OPEN, OUTCOMES, TAKEN, Kind, Outcome, Payment, State
from tests.e2e.killing_till import Order

REPAID = {State.PARTIALLY_REFUNDED.value, State.REFUNDED.value}
TAKEN_WORDS = {state.value for state in TAKEN}


def violations(
    orders: Mapping[str, Order],
    seen: Iterable[Mapping[str, Any]],
    payments: Iterable[Payment],
    ledger: Mapping[str, Any],
    terminal_id: str,
) -> list[str]:
    """One line for each thing that is not as it must be.

    ``orders`` are those that the till asked for, by reference; ``seen`` the payments that it was given back, as
    JSON has them; ``ledger`` the answer of ``GET /sim/ledger``.
    """
    payments, seen = list(payments), list(seen)
    found = differences(journal_rows(payments), ledger_rows(ledger, terminal_id))
    found += [f"{p.kind} {p.id} of {p.reference!r} is still {p.state}" for p in payments if p.state in OPEN]
    charges = [charge for charge in ledger["charges"] if charge["terminal_id"] == terminal_id]
    found += _charged(orders, charges)
    found += _given_back(charges)
    found += _unheard(payments, {payment["id"] for payment in seen if _final(payment)})
    by_id = {charge["id"]: charge for charge in charges}
    for payment in seen:
        found += [
            f"seen {payment['kind']} of {payment['charge_id']}: {problem}" for problem in _kept(payment, by_id)
        ]
    return found


def _final(payment: Mapping[str, Any]) -> bool:
    return OUTCOMES[State(payment["state"])] is not Outcome.PENDING


def _unheard(payments: Iterable[Payment], heard: Set[str]) -> Iterable[str]:
    """Whatever ended with money moved, or was declined, the till was told: at once, or after its death."""
    for payment in payments:
        mine = payment.kind is Kind.CHARGE or payment.reference  # a cancel may be the terminal's own
        if mine and payment.id not in heard and payment.state not in (State.REFUSED, State.WITHDRAWN):
            yield f"{payment.kind} {payment.id} of {payment.reference!r} is {payment.state}, and nobody heard of it"


def _charged(orders: Mapping[str, Order], charges: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Each reference once, and nothing that nobody asked for."""
    taken = Counter(charge["reference"] for charge in charges if charge["status"] != "declined")
    for reference, times in taken.items():
        if times > 1:
            yield f"{reference} was charged {times} times"
        if reference not in orders:
            yield f"{reference} was charged, and nobody asked for it"


def _given_back(charges: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Each refund that the till wanted (its reason is its name) once."""
    for charge in charges:
        for reason, times in Counter(refund["reason"] for refund in charge["refunds"]).items():
            if times > 1:
                yield f"{reason} was given back {times} times"


def _kept(payment: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """What the till was told is what the host has."""
    if payment["state"] not in TAKEN_WORDS:
        return
    charge = by_id.get(payment["charge_id"])
    if charge is None or charge["status"] == "declined":
        yield "the host has no such approval"
        return
    yield from _CHECKS[Kind(payment["kind"])](payment, charge)


def _charge_kept(payment: Mapping[str, Any], charge: Mapping[str, Any]) -> Iterable[str]:
    if charge["reference"] != payment["reference"]:
        yield f"with the host it is {charge['reference']}"
    if payment["state"] == State.CANCELED and charge["status"] != State.CANCELED:
        yield f"it is canceled, and with the host it is {charge['status']}"
    if payment["approved"] and int(charge["amount"]["value"]) != payment["approved"]["minor"]:
        yield f"the host has {charge['amount']['value']}, the till saw {payment['approved']['minor']}"


def _refund_kept(payment: Mapping[str, Any], charge: Mapping[str, Any]) -> Iterable[str]:
    made = {refund["id"]: int(refund["amount"]["value"]) for refund in charge["refunds"]}
    if made.get(payment["refund_id"]) != payment["amount"]["minor"]:
        yield "the host has not given that back"


def _cancel_kept(payment: Mapping[str, Any], charge: Mapping[str, Any]) -> Iterable[str]:
    if charge["status"] != "canceled":
        yield f"with the host the charge is {charge['status']}"


_CHECKS: dict[Kind, Callable[[Mapping[str, Any], Mapping[str, Any]], Iterable[str]]] = {
    Kind.CHARGE: _charge_kept,
    Kind.REFUND: _refund_kept,
    Kind.CANCEL: _cancel_kept,
}
