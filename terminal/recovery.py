"""What to do next with a payment, how far its reversal has come, what an answer means for it: two literal tables.

Everything here is pure. ``terminal.exchange`` does what ``decide`` says and writes what ``conclude`` says;
``till prove`` searches the same two tables to the end.

The order matters. A look-up comes before anything is sent again. The same bytes go out again under the same key
only while the shopper is there and the host remembers the key. Once the shopper has left nothing may create a
payment: if the host has one, it is canceled, and refunded where it is too late for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from terminal.payment import OPEN, REVERSAL, Happened, Kind, Payment, State


class Act(StrEnum):
    """What to do next with a payment."""

    REST = "rest"
    """Nothing: it is final, or waits for somebody else."""
    LOOK_UP = "look_up"
    """Ask the host what it has: by its id where that is known, else by the reference."""
    SEND = "send"
    """The sealed request under its key; of a cancel, the cancel."""
    SEND_TO_CANCEL = "send_to_cancel"
    """The same, after the shopper has left, only to learn the id and cancel it at once: the last resort."""
    LEAVE = "leave"
    """Write down that the shopper has left."""
    GIVE_UP = "give_up"
    """Write down that the host has no such payment."""
    VOID = "void"
    """Write down that nobody has confirmed it."""
    CANCEL = "cancel"
    """Begin a cancel of the charge."""
    REFUND = "refund"
    """Begin a refund of the whole charge, which can no longer be canceled."""
    FORWARD = "forward"
    """Send what was approved offline."""
    WAIT = "wait"
    """Until nothing that was sent can still arrive, or the host has decided."""
    ASK_PERSON = "ask_person"
    """Only a person can find out what became of it."""


class Sought(StrEnum):
    """What this round's look-up brought."""

    NOT_YET = "not_yet"
    """None was made in this round."""
    NONE_YET = "none_yet"
    """The host has nothing; something that was sent may still arrive. So is a payment that was never sent."""
    NONE = "none"
    """The host has nothing, and nothing can arrive any more."""
    UNTOLD = "untold"
    """The host was asked, and what it has does not tell whether this payment is among it."""
    FOUND = "found"
    """The host has it, as the journal now says."""


class Reversal(StrEnum):
    """How far the reversal of a charge has come, by its cancels and refunds in the journal."""

    NONE = "none"
    OPEN = "open"
    """A cancel or a refund is under way and goes on by itself."""
    CANCEL_REFUSED = "cancel_refused"
    STUCK = "stuck"
    """So were the refunds that were tried."""


REVERSAL_REFUNDS: Final = 2
"""How many refunds are tried to undo a charge that is too late to cancel, before a person is asked."""


def reversal_of(charge: Payment, children: Sequence[Payment]) -> Reversal:
    """How far the reversal of a charge has come; ``children`` are all its cancels and refunds."""
    if any(child.state in OPEN for child in children):
        return Reversal.OPEN
    ended, left = (State.REFUSED, State.DECLINED, State.FAILED), to_undo(charge)
    refunds = [child for child in children if child.state in ended and child.reference == REVERSAL]
    if sum(refund.amount.minor == left for refund in refunds) >= REVERSAL_REFUNDS:
        return Reversal.STUCK  # of another amount: the host has said more since
    refused = any(child.kind is Kind.CANCEL and child.state in ended for child in children)
    return Reversal.CANCEL_REFUSED if refused else Reversal.NONE


def to_undo(charge: Payment) -> int:
    """Minor units that are left of a charge which is not to stand, as far as the host has said."""
    return (charge.approved or charge.amount).minor - charge.refunded


@dataclass(frozen=True, slots=True)
class Circumstances:
    """All that a decision depends on besides the payment's kind and state."""

    present: bool = True
    """The shopper is still there."""
    remembered: bool = True
    """The host still remembers the idempotency key, for as long as a call may take."""
    lookup: bool = True
    """The host offers look-ups."""
    sought: Sought = Sought.NOT_YET
    reversal: Reversal = Reversal.NONE
    expired: bool = False
    """The time in which the till had to confirm is over."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table: what is None fits everything."""

    kinds: frozenset[Kind]
    states: frozenset[State]
    act: Act
    present: bool | None = None
    remembered: bool | None = None
    lookup: bool | None = None
    sought: Sought | None = None
    reversal: Reversal | None = None
    expired: bool | None = None


_CHARGE, _REFUND, _CANCEL = frozenset({Kind.CHARGE}), frozenset({Kind.REFUND}), frozenset({Kind.CANCEL})
_SENT = frozenset({State.IN_FLIGHT, State.IN_DOUBT})
_PENDING, _ABANDONED = frozenset({State.PENDING}), frozenset({State.ABANDONED})
_REVERSING, _HELD = frozenset({State.REVERSING}), frozenset({State.HELD})
_OFFLINE, _FORWARDING = frozenset({State.OFFLINE}), frozenset({State.FORWARDING})

RULES: tuple[Rule, ...] = (
    # A charge whose outcome is not known, while the shopper waits for it.
    Rule(_CHARGE, _SENT, Act.LEAVE, present=False),
    Rule(_CHARGE, _SENT, Act.LOOK_UP, lookup=True, sought=Sought.NOT_YET),
    Rule(_CHARGE, _SENT, Act.SEND, remembered=True),
    Rule(_CHARGE, _SENT, Act.GIVE_UP, sought=Sought.NONE),
    Rule(_CHARGE, _SENT, Act.ASK_PERSON, sought=Sought.UNTOLD),
    Rule(_CHARGE, _SENT, Act.WAIT, lookup=True),
    Rule(_CHARGE, _SENT, Act.ASK_PERSON),
    # One that the host has not decided.
    Rule(_CHARGE, _PENDING, Act.LEAVE, present=False),
    Rule(_CHARGE, _PENDING, Act.LOOK_UP, lookup=True, sought=Sought.NOT_YET),
    Rule(_CHARGE, _PENDING, Act.WAIT),
    # One whose shopper has left: learn whether the host has it.
    Rule(_CHARGE, _ABANDONED, Act.LOOK_UP, lookup=True, sought=Sought.NOT_YET),
    Rule(_CHARGE, _ABANDONED, Act.GIVE_UP, sought=Sought.NONE),
    Rule(_CHARGE, _ABANDONED, Act.ASK_PERSON, sought=Sought.UNTOLD),
    Rule(_CHARGE, _ABANDONED, Act.WAIT, lookup=True),
    Rule(_CHARGE, _ABANDONED, Act.SEND_TO_CANCEL, remembered=True),
    Rule(_CHARGE, _ABANDONED, Act.ASK_PERSON),
    # One that is not to stand.
    Rule(_CHARGE, _REVERSING, Act.CANCEL, reversal=Reversal.NONE),
    Rule(_CHARGE, _REVERSING, Act.WAIT, reversal=Reversal.OPEN),
    Rule(_CHARGE, _REVERSING, Act.LOOK_UP, lookup=True, sought=Sought.NOT_YET),
    Rule(_CHARGE, _REVERSING, Act.REFUND, reversal=Reversal.CANCEL_REFUSED),
    Rule(_CHARGE, _REVERSING, Act.ASK_PERSON),
    # One that waits for the till.
    Rule(_CHARGE, _HELD, Act.VOID, expired=True),
    # One that was approved here: it is sent sooner or later, whoever is there.
    Rule(_CHARGE, _OFFLINE, Act.FORWARD),
    Rule(_CHARGE, _FORWARDING, Act.LOOK_UP, lookup=True, sought=Sought.NOT_YET),
    Rule(_CHARGE, _FORWARDING, Act.WAIT, sought=Sought.FOUND),
    Rule(_CHARGE, _FORWARDING, Act.SEND, remembered=True),
    Rule(_CHARGE, _FORWARDING, Act.GIVE_UP, sought=Sought.NONE),
    Rule(_CHARGE, _FORWARDING, Act.ASK_PERSON, sought=Sought.UNTOLD),
    Rule(_CHARGE, _FORWARDING, Act.WAIT, lookup=True),
    Rule(_CHARGE, _FORWARDING, Act.ASK_PERSON),
    # A refund is owed, whoever is there. Hosts look it up by an id that only the lost answer has.
    Rule(_REFUND, _PENDING, Act.LOOK_UP, lookup=True, sought=Sought.NOT_YET),
    Rule(_REFUND, _PENDING, Act.WAIT),
    Rule(_REFUND, _SENT, Act.SEND, remembered=True),
    Rule(_REFUND, _SENT, Act.LOOK_UP, lookup=True, sought=Sought.NOT_YET),
    Rule(_REFUND, _SENT, Act.GIVE_UP, sought=Sought.NONE),
    Rule(_REFUND, _SENT, Act.WAIT, sought=Sought.NONE_YET),
    Rule(_REFUND, _SENT, Act.ASK_PERSON),
    # A cancel may be repeated for ever: a second one gives the same answer.
    Rule(_CANCEL, _SENT, Act.SEND),
)
"""The first row that fits decides; where none does, there is nothing to do."""


def decide(payment: Payment, seen: Circumstances) -> Act:
    """What to do next."""
    for rule in RULES:
        if (
            payment.kind in rule.kinds
            and payment.state in rule.states
            and (rule.present is None or rule.present is seen.present)
            and (rule.remembered is None or rule.remembered is seen.remembered)
            and (rule.lookup is None or rule.lookup is seen.lookup)
            and (rule.sought is None or rule.sought is seen.sought)
            and (rule.reversal is None or rule.reversal is seen.reversal)
            and (rule.expired is None or rule.expired is seen.expired)
        ):
            return rule.act
    return Act.REST


WRITTEN_BEFORE: dict[Act, Happened] = {
    Act.SEND: Happened.SENT_AGAIN,
    Act.SEND_TO_CANCEL: Happened.SENT_TO_CANCEL,
    Act.FORWARD: Happened.FORWARDED,
    Act.LEAVE: Happened.LEFT,
    Act.GIVE_UP: Happened.NOT_FOUND,
    Act.VOID: Happened.VOIDED,
}
"""What is on disk before the first byte of an act leaves. The first sending of all, a cancel and a refund that
begin are written by JOURNALLED."""


class Reply(StrEnum):
    """What came of a sending or a look-up, once it was held against what was asked."""

    APPROVED = "approved"
    APPROVED_IN_PART = "approved_in_part"
    DECLINED = "declined"
    PENDING = "pending"
    CANCELED = "canceled"
    REFUNDED_IN_PART = "refunded_in_part"
    REFUNDED = "refunded"
    UNREACHABLE = "unreachable"
    """This attempt has certainly not left the device."""
    SILENT = "silent"
    """No answer, one that cannot be believed, a status of 500 and above, or a key that the host has seen (409)."""
    REFUSED = "refused"
    """The host has not acted on this attempt."""
    DISPROVED = "disproved"
    """A refusal which proves that the host has not acted on any attempt."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reply to a sending means: to the first one of all, and to one that may have been sent before."""

    first: Happened
    again: Happened


MEANINGS: dict[Reply, Meaning] = {
    Reply.APPROVED: Meaning(Happened.APPROVED, Happened.APPROVED),
    Reply.APPROVED_IN_PART: Meaning(Happened.HELD, Happened.HELD),
    Reply.DECLINED: Meaning(Happened.DECLINED, Happened.DECLINED),
    Reply.PENDING: Meaning(Happened.PENDING, Happened.PENDING),
    Reply.CANCELED: Meaning(Happened.CANCELED, Happened.CANCELED),
    Reply.REFUNDED_IN_PART: Meaning(Happened.REFUNDED_IN_PART, Happened.REFUNDED_IN_PART),
    Reply.REFUNDED: Meaning(Happened.REFUNDED, Happened.REFUNDED),
    Reply.UNREACHABLE: Meaning(Happened.UNREACHABLE, Happened.SILENT),
    Reply.SILENT: Meaning(Happened.SILENT, Happened.SILENT),
    Reply.REFUSED: Meaning(Happened.REFUSED, Happened.SILENT),
    Reply.DISPROVED: Meaning(Happened.REFUSED, Happened.REFUSED),
}


def conclude(
    payment: Payment, reply: Reply, *, sent_before: bool, owed: bool = False, offline: bool = False
) -> Happened:
    """What is written of a reply.

    ``sent_before``: an earlier attempt may have reached the host. ``owed``: the payment undoes another one, and is
    not given up because there was no connection, or the host would not judge it now; nor is one that was approved
    here. ``offline``: without a connection, it may be approved here.
    """
    if reply is Reply.APPROVED_IN_PART and payment.accept_partial:
        reply = Reply.APPROVED
    if reply is Reply.APPROVED and payment.hold:
        reply = Reply.APPROVED_IN_PART
    if reply in (Reply.UNREACHABLE, Reply.REFUSED) and owed:
        return Happened.SILENT
    if reply is Reply.UNREACHABLE and offline and not sent_before:
        return Happened.STORED
    if reply is Reply.REFUSED and payment.state is State.FORWARDING and not sent_before:
        return Happened.UNREACHABLE  # the host would not judge it now: the goods are out, and it is sent again
    meaning = MEANINGS[reply]
    return meaning.again if sent_before else meaning.first
