"""A payment's life, as one literal table.

Charges, refunds and cancels are each a payment here: each has its own idempotency key and its own sealed
request, and the same life. Everything in this module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

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
    """On disk; the request may have left the device."""
    IN_DOUBT = "in_doubt"
    """It may have reached the host, no usable answer came, and the shopper is still there."""
    PENDING = "pending"
    """The host has it and has not decided."""
    HELD = "held"
    """Approved, and waits for the till to confirm it or to void it."""
    APPROVED = "approved"
    DECLINED = "declined"
    REFUSED = "refused"
    """The host has not acted: the request broke a rule."""
    WITHDRAWN = "withdrawn"
    """The host has no such payment and will have none."""
    ABANDONED = "abandoned"
    """The shopper has left, and it is not known whether the host has a payment: if so, it is not to stand."""
    REVERSING = "reversing"
    """The host has a payment that is not to stand, and has not yet taken it back."""
    CANCELED = "canceled"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    REVERSED = "reversed"
    """It was not to stand and could no longer be canceled: a refund of all of it has undone it."""
    OFFLINE = "offline"
    """Approved here, and not yet sent."""
    FORWARDING = "forwarding"
    """Approved here and sent; what the host makes of it is not known."""
    LOST = "lost"
    """Approved here, and declined by the host afterwards: the goods are gone and the money is not coming."""
    FAILED = "failed"
    """A refund that the host had approved, and failed later."""


class Happened(StrEnum):
    """What can happen to a payment."""

    JOURNALLED = "journalled"
    SEALED_AGAIN = "sealed_again"
    SENT_AGAIN = "sent_again"
    SENT_TO_CANCEL = "sent_to_cancel"
    """Sent again after the shopper had left, only to learn its id and cancel it: the host offers no look-up."""
    APPROVED = "approved"
    HELD = "held"
    DECLINED = "declined"
    PENDING = "pending"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """Nothing has ever left the device."""
    SILENT = "silent"
    NOT_FOUND = "not_found"
    """The host was asked when nothing could arrive any more, and has no such payment."""
    LEFT = "left"
    """The shopper has left, or the till gave up."""
    CONFIRMED = "confirmed"
    VOIDED = "voided"
    """The till does not want it: by its word, or by its silence."""
    CANCELED = "canceled"
    REFUNDED_IN_PART = "refunded_in_part"
    REFUNDED = "refunded"
    FAILED = "failed"
    REFUND_FAILED = "refund_failed"
    """A refund failed later, and nothing of the charge is given back any more."""
    REFUND_FAILED_IN_PART = "refund_failed_in_part"
    REVERSAL_FAILED = "reversal_failed"
    """The refund that was to undo the charge failed later."""
    LATE = "late"
    """The host was found to hold an approval that we had written off."""
    STORED = "stored"
    FORWARDED = "forwarded"


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
            Happened.HELD: State.HELD,
            Happened.DECLINED: State.DECLINED,
            Happened.PENDING: State.PENDING,
            Happened.REFUSED: State.REFUSED,
            Happened.UNREACHABLE: State.WITHDRAWN,
            Happened.NOT_FOUND: State.WITHDRAWN,
            Happened.SILENT: State.IN_DOUBT,
            Happened.LEFT: State.ABANDONED,
            Happened.STORED: State.OFFLINE,
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
            Happened.SENT_AGAIN: State.IN_FLIGHT,
            Happened.SEALED_AGAIN: State.IN_FLIGHT,
        },
        State.IN_DOUBT: {
            Happened.APPROVED: State.APPROVED,
            Happened.HELD: State.HELD,
            Happened.DECLINED: State.DECLINED,
            Happened.PENDING: State.PENDING,
            Happened.REFUSED: State.REFUSED,
            Happened.NOT_FOUND: State.WITHDRAWN,
            Happened.LEFT: State.ABANDONED,
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
            Happened.SENT_AGAIN: State.IN_FLIGHT,
        },
        State.PENDING: {
            Happened.APPROVED: State.APPROVED,
            Happened.HELD: State.HELD,
            Happened.DECLINED: State.DECLINED,
            Happened.PENDING: State.PENDING,
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
            Happened.LEFT: State.REVERSING,
        },
        State.HELD: {
            Happened.CONFIRMED: State.APPROVED,
            Happened.VOIDED: State.REVERSING,
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
        },
        # No way leads from here to an approved payment.
        State.ABANDONED: {
            Happened.APPROVED: State.REVERSING,
            Happened.HELD: State.REVERSING,
            Happened.PENDING: State.REVERSING,
            Happened.REFUNDED_IN_PART: State.REVERSING,
            Happened.DECLINED: State.DECLINED,
            Happened.REFUSED: State.REFUSED,
            Happened.NOT_FOUND: State.WITHDRAWN,
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED: State.REVERSED,
            Happened.UNREACHABLE: State.WITHDRAWN,
            Happened.SENT_TO_CANCEL: State.ABANDONED,
            Happened.SILENT: State.ABANDONED,
        },
        State.REVERSING: {
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED: State.REVERSED,
            Happened.DECLINED: State.DECLINED,
            Happened.APPROVED: State.REVERSING,
            Happened.HELD: State.REVERSING,
            Happened.PENDING: State.REVERSING,
            Happened.REFUNDED_IN_PART: State.REVERSING,
            Happened.REVERSAL_FAILED: State.REVERSING,
        },
        State.APPROVED: {
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
            Happened.FAILED: State.FAILED,
        },
        State.PARTIALLY_REFUNDED: {
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
            Happened.REFUND_FAILED: State.APPROVED,
            Happened.REFUND_FAILED_IN_PART: State.PARTIALLY_REFUNDED,
        },
        State.REFUNDED: {
            Happened.REFUND_FAILED: State.APPROVED,
            Happened.REFUND_FAILED_IN_PART: State.PARTIALLY_REFUNDED,
        },
        State.REVERSED: {
            Happened.REVERSAL_FAILED: State.REVERSING,
        },
        State.OFFLINE: {
            Happened.FORWARDED: State.FORWARDING,
            Happened.VOIDED: State.WITHDRAWN,
        },
        State.FORWARDING: {
            Happened.APPROVED: State.APPROVED,
            Happened.HELD: State.APPROVED,
            Happened.DECLINED: State.LOST,
            Happened.REFUSED: State.LOST,
            Happened.CANCELED: State.CANCELED,
            Happened.REFUNDED_IN_PART: State.PARTIALLY_REFUNDED,
            Happened.REFUNDED: State.REFUNDED,
            Happened.UNREACHABLE: State.OFFLINE,
            Happened.NOT_FOUND: State.OFFLINE,
            Happened.PENDING: State.FORWARDING,
            Happened.SILENT: State.FORWARDING,
            Happened.SENT_AGAIN: State.FORWARDING,
            Happened.SEALED_AGAIN: State.FORWARDING,
        },
        # Nothing was taken. Should the host be found to have taken it all the same, it has to give it back.
        State.DECLINED: {Happened.LATE: State.REVERSING},
        State.REFUSED: {Happened.LATE: State.REVERSING},
        State.WITHDRAWN: {Happened.LATE: State.REVERSING},
        State.CANCELED: {Happened.LATE: State.REVERSING},
        State.LOST: {Happened.APPROVED: State.APPROVED},
        State.FAILED: {},
    },
)

UNRESOLVED = frozenset({State.IN_FLIGHT, State.IN_DOUBT, State.PENDING, State.ABANDONED})
"""Whether money was taken is not known yet."""

OPEN = UNRESOLVED | {State.REVERSING, State.HELD, State.OFFLINE, State.FORWARDING}
"""Something is still to be done, and recovery goes on with it."""

SENT_FROM_HERE = frozenset({State.IN_FLIGHT, State.IN_DOUBT, State.ABANDONED, State.OFFLINE, State.FORWARDING})
"""Its sealed request may have to be sent again. In every other state the host has answered: nothing of the card may
be kept any more, however long the payment stays open (PCI DSS 3.3.1)."""

WITHOUT_EFFECT = frozenset({State.NEW, State.DECLINED, State.REFUSED, State.WITHDRAWN})
"""No money moved and none will: the same reference may be tried again."""

TAKEN = frozenset({State.APPROVED, State.PARTIALLY_REFUNDED, State.REFUNDED, State.REVERSED, State.CANCELED})
"""The host approved it (and may have given it back since)."""


class Outcome(StrEnum):
    """What a till is told: one of three, and pending becomes one of the other two."""

    APPROVED = "approved"
    DECLINED = "declined"
    PENDING = "pending"


OUTCOMES: dict[State, Outcome] = {
    State.NEW: Outcome.PENDING,
    State.IN_FLIGHT: Outcome.PENDING,
    State.IN_DOUBT: Outcome.PENDING,
    State.PENDING: Outcome.PENDING,
    State.ABANDONED: Outcome.PENDING,
    State.HELD: Outcome.APPROVED,
    State.APPROVED: Outcome.APPROVED,
    State.PARTIALLY_REFUNDED: Outcome.APPROVED,
    State.REFUNDED: Outcome.APPROVED,
    State.OFFLINE: Outcome.APPROVED,
    State.FORWARDING: Outcome.APPROVED,
    State.LOST: Outcome.APPROVED,
    State.DECLINED: Outcome.DECLINED,
    State.REFUSED: Outcome.DECLINED,
    State.WITHDRAWN: Outcome.DECLINED,
    State.REVERSING: Outcome.DECLINED,
    State.CANCELED: Outcome.DECLINED,
    State.REVERSED: Outcome.DECLINED,
    State.FAILED: Outcome.DECLINED,
}

GRANTED = frozenset({Happened.APPROVED, Happened.REFUNDED_IN_PART, Happened.REFUNDED, Happened.CANCELED})
"""What a host says of a charge that it has approved, whatever became of it since."""

REVERSAL = "reversal"
"""The reason of the refund with which a terminal undoes a charge that can no longer be canceled."""


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
    sent_at: datetime | None = None
    """When it was last sent, where that was not at ``created_at``."""
    entry_mode: str = ""
    masked_pan: str = ""
    card: str = ""
    """A keyed hash of the PAN, by which a second charge of the same card is noticed."""
    duplicate_of: str = ""
    """The ``id`` of an earlier charge of the same card and amount: perhaps the same sale."""
    hold: bool = False
    """An approval waits for the till to confirm it."""
    accept_partial: bool = False
    """The till takes less than it asked for; else a partial approval waits for it to confirm."""
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
    note: str = ""
    """What a person decided of it, or a rule that is out of the ordinary."""

    @property
    def outcome(self) -> Outcome:
        """What the till is told. Less than was asked for is not approved before the till has taken it."""
        if self.state is State.HELD and not self.hold:
            return Outcome.PENDING
        return OUTCOMES[self.state]

    @property
    def left(self) -> int:
        """Minor units of a charge that can still be refunded."""
        if self.approved is None or self.state not in (State.APPROVED, State.PARTIALLY_REFUNDED):
            return 0
        return self.approved.minor - self.refunded


def effect_on_charge(child: Payment, charge: Payment) -> tuple[Happened, int] | None:
    """What a refund or a cancel that has just changed does to its charge: the event, and the charge's new
    ``refunded``. None where it does nothing. Both are written in one commit.
    """
    if child.state is State.APPROVED and child.kind is Kind.CANCEL:
        return None if charge.state is State.CANCELED else (Happened.CANCELED, charge.refunded)
    if child.state is State.APPROVED and child.kind is Kind.REFUND:
        refunded = charge.refunded + child.amount.minor
        whole = refunded == (charge.approved or charge.amount).minor  # nobody may have told what was approved
        return (Happened.REFUNDED if whole else Happened.REFUNDED_IN_PART), refunded
    if child.state is State.FAILED:
        refunded = charge.refunded - child.amount.minor
        if charge.state in (State.REVERSED, State.REVERSING):
            return Happened.REVERSAL_FAILED, refunded
        return (Happened.REFUND_FAILED_IN_PART if refunded else Happened.REFUND_FAILED), refunded
    return None
