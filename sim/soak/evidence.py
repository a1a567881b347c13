"""What a day is judged by: the journal as it is on disk, the host's ledger, and the world's own record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sim.soak.record import Record
from terminal.journal import Record as Entry
from terminal.payment import REVERSAL, UNRESOLVED, Kind, Payment, State

SERVER_ERROR = 500
JUDGED = frozenset({404, 409, 422})
"""By these the host says no to what it has read."""
STANDING = frozenset({"approved", "partially_refunded", "pending"})
"""The ledger's words for a charge of which the shopper pays something."""
_UNKNOWN = UNRESOLVED | {State.FORWARDING}
"""Only the host knows how it ended."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that may never happen: ``rule`` is what it offends, ``about`` which payment, ``says`` how."""

    rule: str
    about: str
    says: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.about}: {self.says}"


@dataclass(frozen=True)
class Evidence:
    """All that the judge may look at; see the module.

    ``entries`` is the journal's chain, ``ledger`` the answer of ``GET /sim/ledger`` with this terminal's charges
    only; ``offline`` the limits of the configuration, in minor units; ``damage`` what was wrong with the journal.
    """

    payments: Sequence[Payment]
    entries: Sequence[Entry]
    ledger: Sequence[Mapping[str, Any]]
    record: Record
    terminal_id: str
    lookup: bool = True
    offline: Mapping[str, int] = field(default_factory=dict)
    damage: Sequence[str] = ()

    @cached_property
    def charges(self) -> dict[str, Payment]:
        """The journal's charges by idempotency key."""
        return {payment.id: payment for payment in self.payments if payment.kind is Kind.CHARGE}

    @cached_property
    def by_charge_id(self) -> dict[str, Mapping[str, Any]]:
        """The ledger's charges by their ids."""
        return {charge["id"]: charge for charge in self.ledger}

    @cached_property
    def by_reference(self) -> dict[str, list[Mapping[str, Any]]]:
        """The ledger's charges by reference."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for charge in self.ledger:
            found.setdefault(charge["reference"], []).append(charge)
        return found

    @cached_property
    def for_a_person(self) -> frozenset[str]:
        """References of charges, and reasons of refunds, with which only a person can go on: the terminal has
        called one, and the host's own word shows that it could do no more.

        Either it is too late to cancel, and the host has failed or refused the refund that was to undo the charge.
        Or it has answered a refund with a server error each time, and cannot be asked for a refund without its id.
        Or it offers no look-ups at all, and has forgotten the key, or has failed a refund later. Or it has told of
        one charge under two references.
        """
        called = [payment for payment in self.payments if payment.id in self.record.for_a_person]
        found = set(self.mistaken | (frozenset() if self.lookup else self.failed_unseen))
        for payment in called:
            if payment.state is State.REVERSING:
                if self._is_refused(payment):
                    found.add(payment.reference)
            elif not self.lookup and payment.state in _UNKNOWN:
                found.add(payment.reference)
            elif payment.kind is Kind.REFUND and payment.state in (State.IN_FLIGHT, State.IN_DOUBT):
                statuses = [one.status for one in self.record.judged if one.key == payment.id]
                if 200 not in statuses and any(status >= SERVER_ERROR for status in statuses):
                    found |= {payment.reference, self.charges[payment.parent].reference}
        return frozenset(found)

    def _is_refused(self, charge: Payment) -> bool:
        """Whether the host has failed the refund that was to undo the charge, or judged it and said no."""
        refunds = self.by_charge_id.get(charge.charge_id, {}).get("refunds", ())
        if any(refund["reason"] == REVERSAL and refund["status"] == "failed" for refund in refunds):
            return True
        ours = {p.id for p in self.payments if p.parent == charge.id and p.reference == REVERSAL}
        statuses = {one.status for one in self.record.judged if one.key in ours}
        return 200 not in statuses and not statuses.isdisjoint(JUDGED)

    @cached_property
    def failed_later(self) -> frozenset[str]:
        """References of charges of which the host has failed a refund, as the terminal knows and has told."""
        parents = {p.parent for p in self.payments if p.kind is Kind.REFUND and p.state is State.FAILED}
        return frozenset(self.charges[parent].reference for parent in parents)

    @cached_property
    def failed_unseen(self) -> frozenset[str]:
        """References of charges of which the host has failed a refund that the journal still has as approved."""
        approved = {p.id for p in self.payments if p.kind is Kind.REFUND and p.state is State.APPROVED}
        return frozenset(
            charge["reference"]
            for charge in self.ledger
            for refund in charge["refunds"]
            if refund["status"] == "failed" and refund.get("idempotency_key") in approved
        )

    @cached_property
    def mistaken(self) -> frozenset[str]:
        """References of charges in pairs: the terminal has called a person for the first, as the host has told the
        id of its charge under the second before."""
        told = {p.charge_id: p.reference for p in self.charges.values() if p.charge_id}
        found = set[str]()
        for payment in self.charges.values():
            if payment.id in self.record.for_a_person and not payment.charge_id:
                for charge in self.by_reference.get(payment.reference, ()):
                    other = told.get(charge["id"], payment.reference)
                    if other != payment.reference:
                        found |= {payment.reference, other}
        return frozenset(found)

    @cached_property
    def events(self) -> dict[str, list[Entry]]:
        """The chain's entries by payment."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.payment_id, []).append(entry)
        return found


def standing(charge: Mapping[str, Any]) -> bool:
    """Whether the shopper pays something of it."""
    return charge["status"] in STANDING
