"""A payment's life, as one literal table, and the questions that an answer must fit.

Charges, refunds and cancels are each a payment here: each has its own idempotency key and its own sealed
request, and the same life. Everything in this module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from terminal.errors import HostAnswerInvalid
from terminal.machine import Machine
from terminal.money import Amount


class Kind(StrEnum):
    """What is asked of the host."""

    CHARGE = "charge"
    REFUND = "refund"
    CANCEL = "cancel"


class State(StrEnum):
    """Where a payment stands."""

    NEW = "new"
    IN_FLIGHT = "in_flight"
    IN_DOUBT = "in_doubt"
    PENDING = "pending"
    APPROVED = "approved"
    DECLINED = "declined"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    CANCELED = "canceled"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


class Happened(StrEnum):
    """What can happen to a payment."""

    JOURNALLED = "journalled"
    SEALED_AGAIN = "sealed_again"
    SENT_AGAIN = "sent_again"
    APPROVED = "approved"
    DECLINED = "declined"
    PENDING = "pending"
    LOOKED_UP = "looked_up"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    CANCELED = "canceled"
    REFUNDED_IN_PART = "refunded_in_part"
    REFUNDED = "refunded"


PAYMENT: Machine[State, Happened] = Machine(
    "payment",
    State.NEW,
    {
        State.NEW: {
            Happened.JOURNALLED: State.IN_FLIGHT,
        },
        # From here on the request may have left the device: what the journal holds is the truth.
        State.IN_FLIGHT: {
            Happened.APPROVED: State.APPROVED,
            Happened.DECLINED: State.DECLINED,
            Happened.PENDING: State.PENDING,
            Happened.REFUSED: State.REFUSED,
            Happened.UNREACHABLE: State.WITHDRAWN,
            Happened.SILENT: State.IN_DOUBT,
            Happened.SENT_AGAIN: State.IN_FLIGHT,
            Happened.LOOKED_UP: State.IN_FLIGHT,
            Happened.SEALED_AGAIN: State.IN_FLIGHT,
        },
        State.IN_DOUBT: {
            Happened.SENT_AGAIN: State.IN_FLIGHT,
            Happened.LOOKED_UP: State.IN_FLIGHT,
        },
        State.PENDING: {
            Happened.APPROVED: State.APPROVED,
            Happened.DECLINED: State.DECLINED,
            Happened.PENDING: State.PENDING,
            Happened.CANCELED: State.CANCELED,
        },
        State.APPROVED: {
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
        },
        State.PARTIALLY_REFUNDED: {
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
        },
        State.DECLINED: {},
        State.REFUSED: {},
        State.WITHDRAWN: {},
        State.CANCELED: {},
        State.REFUNDED: {},
    },
)

UNRESOLVED = frozenset({State.IN_FLIGHT, State.IN_DOUBT, State.PENDING})
"""The outcome is not known yet."""

WITHOUT_EFFECT = frozenset({State.NEW, State.DECLINED, State.REFUSED, State.WITHDRAWN})
"""No money moved and none will: the same reference may be tried again."""

TAKEN = frozenset({State.APPROVED, State.PARTIALLY_REFUNDED, State.REFUNDED, State.CANCELED})
"""The host approved it (and may have given it back since)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One charge, refund or cancel as the journal knows it. Holds no card data but the masked PAN."""

    id: str
    """Ours, and the idempotency key with the host."""
    kind: Kind
    reference: str
    """The till's own reference of a charge; for a refund its reason; for a cancel empty."""
    amount: Amount
    """What was asked."""
    state: State = State.NEW
    parent: str = ""
    """For a refund or a cancel: the ``id`` of the charge that it concerns."""
    created_at: datetime
    entry_mode: str = ""
    masked_pan: str = ""
    charge_id: str = ""
    """The host's id of the charge."""
    refund_id: str = ""
    approved: Amount | None = None
    """What was approved: less than asked is a partial approval."""
    refunded: int = 0
    """Minor units that approved refunds of this charge have given back."""
    authorization_code: str = ""
    response_code: str = ""
    message: str = ""

    @property
    def left(self) -> int:
        """Minor units of a charge that can still be refunded."""
        if self.approved is None or self.state not in (State.APPROVED, State.PARTIALLY_REFUNDED):
            return 0
        return self.approved.minor - self.refunded


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a host said of a payment, in no host's own words.

    ``happened`` is APPROVED, DECLINED, PENDING, CANCELED, REFUNDED_IN_PART or REFUNDED.
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
        if partial and not (asked.kind is Kind.CHARGE and answer.happened is Happened.APPROVED):
            refuse("amount.value", "it is less than was asked")
    early = answer.at is not None and answer.at < asked.created_at - skew and asked.kind is not Kind.CANCEL
    if early or (answer.at is not None and answer.at > now + skew):
        refuse("created_at", "it is not near the time of the payment")
