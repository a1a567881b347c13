"""What a host said of a payment: whether it fits what was asked, what it means, and what it adds. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from terminal.errors import HostAnswerInvalid
from terminal.money import Amount
from terminal.payment import GRANTED, Happened, Kind, Payment
from terminal.recovery import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a host said of a payment, in no host's own words.

    ``happened`` is APPROVED, DECLINED, PENDING, CANCELED, REFUNDED_IN_PART or REFUNDED. A refund that failed is
    DECLINED: whether it had been approved before, the journal knows.
    """

    happened: Happened
    charge_id: str
    amount: Amount | None
    reference: str | None
    at: datetime | None
    refund_id: str = ""
    authorization_code: str = ""
    response_code: str = ""
    message: str = ""
    gateway: dict[str, str] = field(default_factory=dict)


def check_fit(call: str, asked: Payment, answer: Answer, *, known: bool, now: datetime, skew: timedelta) -> None:
    """Raise HostAnswerInvalid, naming the field, unless the answer fits what was asked.

    ``known`` says that the answer's charge id already belongs to another payment. A partial approval (less
    than asked, above zero) fits a charge; a refund is all or nothing. The answer to a repeated request bears
    the time of the first, so any moment since the payment began is near enough, give or take ``skew``; and of a
    cancel any moment before, since the host may have canceled the charge for somebody else.
    """

    def refuse(name: str, problem: str) -> None:
        raise HostAnswerInvalid(call, name, problem)

    if asked.charge_id and answer.charge_id != asked.charge_id:
        refuse("id", "it is of another charge than the one asked about")
    if known:
        refuse("id", "it belongs to another payment of this terminal")
    if answer.reference is not None and answer.reference != asked.reference:
        refuse("reference", "it is not the reference that was sent")
    if answer.amount is not None:
        if answer.amount.currency != asked.amount.currency:
            refuse("amount.currency", f"asked in {asked.amount.currency}")
        if answer.amount.minor > asked.amount.minor:
            refuse("amount.value", "it is more than was asked")
        partial = answer.amount.minor < asked.amount.minor
        if partial and not (asked.kind is Kind.CHARGE and answer.happened in GRANTED):
            refuse("amount.value", "it is less than was asked")
    early = answer.at is not None and answer.at < asked.created_at - skew and asked.kind is not Kind.CANCEL
    if early or (answer.at is not None and answer.at > now + skew):
        refuse("created_at", "it is not near the time of the payment")


def reply_of(payment: Payment, answer: Answer) -> Reply:
    """The answer, where it fits, in the words of the table."""
    asked, told = payment.amount, answer.amount
    if answer.happened is Happened.APPROVED and told is not None and told.minor < asked.minor:
        return Reply.APPROVED_IN_PART
    return Reply(answer.happened.value)


def facts_of(payment: Payment, answer: Answer) -> dict[str, Any]:
    """What the answer adds to the payment that it fits."""
    told: dict[str, Any] = {
        "charge_id": answer.charge_id,
        "refund_id": answer.refund_id,
        "authorization_code": answer.authorization_code,
        "response_code": answer.response_code,
        "message": answer.message,
    }
    if answer.happened in GRANTED:
        told["approved"] = answer.amount or payment.approved or payment.amount
    if payment.kind is Kind.CHARGE and answer.happened is Happened.REFUNDED:
        told["refunded"] = told["approved"].minor
    return {name: value for name, value in told.items() if value != getattr(payment, name)}
