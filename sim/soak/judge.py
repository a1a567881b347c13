"""What may never happen, whatever went wrong: one function a rule, all of them pure.

Nothing is asked of the terminal's memory. What was sent is held against what it may have sent in
``sim.soak.judge_wire``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from sim.balance import differences, journal_rows, ledger_rows
from sim.soak import judge_wire
from sim.soak.evidence import Evidence, Violation, standing
from terminal.payment import OPEN, Happened, Kind, Outcome, State


def books_agree(seen: Evidence) -> Iterator[Violation]:
    """Journal and ledger agree on every charge and refund."""
    for line in differences(journal_rows(seen.payments), ledger_rows({"charges": seen.ledger}, seen.terminal_id)):
        about, _, says = line.partition(": ")
        if about.rpartition("(")[2].rstrip(")") not in seen.for_a_person:
            yield Violation("books", about, says)


def journal_is_whole(seen: Evidence) -> Iterator[Violation]:
    """The journal's chain holds, and its payments are what it adds up to."""
    for says in seen.damage:
        yield Violation("journal", "the journal", says)


def charged_once(seen: Evidence) -> Iterator[Violation]:
    """A reference has at most one standing approval, for the amount that was asked, and nobody pays unasked."""
    for reference, charges in seen.by_reference.items():
        taken = [charge for charge in charges if standing(charge)]
        sale = seen.record.sales.get(reference)
        if len(taken) > 1:
            yield Violation("charged_once", reference, f"it was charged {len(taken)} times")
        if sale is None:
            yield Violation("charged_once", reference, "it was charged, and nobody asked for it")
            continue
        for charge in charges:
            fits = (sale.minor, sale.minor // 2) if charge["status"] != "declined" else (sale.minor,)
            amount = charge["amount"]
            if int(amount["value"]) not in fits or amount["currency"] != sale.currency:
                yield Violation("charged_once", reference, "the host has another amount than was asked")


def approvals_are_kept(seen: Evidence) -> Iterator[Violation]:
    """What the till was told is approved is in the ledger, for that amount, and stands unless it was undone."""
    lost = {p.reference for p in seen.payments if p.kind is Kind.CHARGE and p.state is State.LOST}
    for told in seen.record.told:
        sale = seen.record.sales.get(told.reference)
        if told.kind is not Kind.CHARGE or told.outcome is not Outcome.APPROVED or sale is None:
            continue
        if told.reference in seen.mistaken:
            continue
        if told.state in (State.OFFLINE, State.FORWARDING, State.LOST):
            found = [
                charge for charge in seen.by_reference.get(told.reference, ()) if charge["status"] != "declined"
            ]
            if not found and told.reference not in lost and not sale.undone:
                yield Violation("approval_kept", told.reference, "approved offline, and the host never got it")
            continue
        charge = seen.by_charge_id.get(told.charge_id)
        if charge is None or charge["reference"] != told.reference or charge["status"] == "declined":
            yield Violation("approval_kept", told.reference, "the host has no such approval")
        elif int(charge["amount"]["value"]) != told.minor:
            yield Violation("approval_kept", told.reference, f"the till was told {told.minor}")
        elif sale.saw is not None and not standing(charge) and not sale.undone and not sale.given_back:
            yield Violation("approval_kept", told.reference, f"the shopper saw it, and it is {charge['status']}")


def who_left_does_not_pay(seen: Evidence) -> Iterator[Violation]:
    """A shopper who left without seeing an approval pays nothing in the end."""
    for sale in seen.record.sales.values():
        if sale.reference in seen.for_a_person or sale.reference in seen.failed_later:
            continue
        if sale.saw is None and any(map(standing, seen.by_reference.get(sale.reference, ()))):
            yield Violation("left_free", sale.reference, "the shopper saw no approval, and pays")


def undone_is_undone(seen: Evidence) -> Iterator[Violation]:
    """What was canceled or voided does not stand; what was to be reversed was reversed."""
    for payment in seen.payments:
        if payment.reference in seen.for_a_person:
            continue
        states = [entry.happened for entry in seen.events.get(payment.id, ())]
        charge = seen.by_charge_id.get(payment.charge_id)
        if payment.kind is Kind.CANCEL and payment.state is State.APPROVED:
            if charge is None or charge["status"] != "canceled":
                yield Violation("undone", payment.charge_id, "its cancel was approved, and it is not canceled")
        elif charge is not None and standing(charge) and not {Happened.VOIDED, Happened.LEFT}.isdisjoint(states):
            yield Violation("undone", payment.reference, "it was to be reversed, and it stands")


def refunds_are_made_once(seen: Evidence) -> Iterator[Violation]:
    """A refund that the till asked for was made once at most, and what it was told was made is in the ledger."""
    for charge in seen.ledger:
        made = Counter(refund["reason"] for refund in charge["refunds"] if refund["status"] == "approved")
        for reason, times in made.items():
            if times > 1:
                yield Violation("refunded_once", charge["reference"], f"{reason!r} was made {times} times")
        if sum(int(r["amount"]["value"]) for r in charge["refunds"] if r["status"] == "approved") > int(
            charge["amount"]["value"]
        ):
            yield Violation("refunded_once", charge["reference"], "more went back than was taken")
    for told in seen.record.told:
        if told.kind is Kind.REFUND and told.state is State.APPROVED:
            owner = seen.by_charge_id.get(told.charge_id)
            if owner is None or told.payment_id not in {refund["idempotency_key"] for refund in owner["refunds"]}:
                yield Violation(
                    "refunded_once", told.reference, "the till was told of a refund that the host has not"
                )


def nothing_is_stuck(seen: Evidence) -> Iterator[Violation]:
    """When the trouble is over everything is resolved; what was held is confirmed or reversed."""
    for payment in seen.payments:
        if payment.state in OPEN and payment.reference not in seen.for_a_person:
            yield Violation(
                "stuck", payment.reference or payment.id, f"the {payment.kind} is still {payment.state}"
            )
    for reference in seen.record.undo:
        yield Violation("stuck", reference, "the till could not undo what nobody saw")
    for says in seen.record.failures:
        yield Violation("failure", "the terminal", says)


def offline_in_order(seen: Evidence) -> Iterator[Violation]:
    """What was approved offline was within the limits, and was forwarded in the order in which it was approved."""
    stored: dict[str, int] = {}
    order: list[str] = []
    for entry in seen.entries:
        charge = seen.charges.get(entry.payment_id)
        if charge is None:
            continue
        if entry.happened is Happened.STORED:
            stored[charge.id] = charge.amount.minor
            order.append(charge.id)
            limits = seen.offline
            if (
                charge.amount.minor > limits.get("max_amount", 0)
                or len(stored) > limits.get("max_count", 0)
                or sum(stored.values()) > limits.get("max_total", 0)
            ):
                yield Violation("offline", charge.reference, "it was approved offline beyond the limits")
        elif charge.id in stored and entry.happened is Happened.FORWARDED:
            if order and order[0] != charge.id and charge.id in order:
                yield Violation("offline", charge.reference, "it was forwarded before an older one")
            if charge.id in order:
                order.remove(charge.id)
        elif entry.happened in _ENDS_FORWARDING:
            stored.pop(charge.id, None)
            if charge.id in order:
                order.remove(charge.id)


_ENDS_FORWARDING = frozenset(
    {
        Happened.APPROVED, Happened.HELD, Happened.DECLINED, Happened.REFUSED, Happened.CANCELED, Happened.REFUNDED,
        Happened.REFUNDED_IN_PART, Happened.VOIDED,
    }
)  # fmt: skip


def nothing_leaks(seen: Evidence) -> Iterator[Violation]:
    """Nothing secret in any output."""
    for where in seen.record.leaks:
        yield Violation("secret", where, "something secret is in it")


RULES: tuple[Callable[[Evidence], Iterator[Violation]], ...] = (
    books_agree,
    journal_is_whole,
    charged_once,
    approvals_are_kept,
    who_left_does_not_pay,
    undone_is_undone,
    refunds_are_made_once,
    nothing_is_stuck,
    offline_in_order,
    nothing_leaks,
    judge_wire.written_before_sent,
    judge_wire.one_key_a_reference,
    judge_wire.same_bytes_under_a_key,
    judge_wire.nothing_is_sent_after_leaving,
    judge_wire.nothing_is_renewed_meanwhile,
)


def violations(seen: Evidence) -> list[Violation]:
    """All that is not as it must be; empty when all is well."""
    return [found for rule in RULES for found in rule(seen)]
