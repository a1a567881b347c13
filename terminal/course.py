"""One round of a payment: decide, write, do, write, in that order, until there is nothing to do for now.

Pure. The course of a payment is a generator: it yields what is to be written and what is to be done, and is sent
what came of it. ``terminal.exchange`` drives it against the journal and the host; a model checker drives the same
one against a model of both. So the order in which things are written and sent is here, and nowhere else.

    effect = next(course)
    Write  -> the payment as the journal has it then; nothing goes on before that is on disk
    Do     -> Heard: what came of it
    Begin  -> a new payment (of state NEW), which is to cancel or to refund the one given; the journal's own Write
              of it follows
    Read   -> the payment as the journal has it now

A power cut is a course that is never sent anything again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from terminal.payment import PAYMENT, Happened, Kind, Payment, State
from terminal.recovery import WRITTEN_BEFORE, Act, Circumstances, Reply, Sought, conclude, decide


class Mended(StrEnum):
    """The host has refused a sending, and what it named has been put right."""

    KEYS = "keys"
    """It had replaced the key set: there is a new one. Comes once a round at most, and so does the other."""
    CLOCK = "clock"
    """The date was wrong: it is right. Always with doubt."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write into the journal what happened to the payment, and what changed with it, in one commit."""

    payment: Payment
    happened: Happened
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Do:
    """Talk to the host. ``act`` is LOOK_UP, SEND, SEND_TO_CANCEL or FORWARD."""

    payment: Payment
    act: Act
    sent_before: bool = True
    """An earlier attempt may have reached the host, so that a refusal of this one proves little."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Make a payment of this kind that undoes the charge."""

    charge: Payment
    kind: Kind


@dataclass(frozen=True, slots=True)
class Read:
    """Read the payment again."""

    payment: Payment


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a Do, and the payment as the journal has it now: the shopper may have left in the meantime.

    Of a look-up: ``sought`` and, where it found the payment, ``reply``; NOT_YET where no answer came. Of a sending:
    ``reply``.
    """

    payment: Payment
    reply: Reply | Mended | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    sought: Sought = Sought.NOT_YET
    doubt: bool = False
    """With Mended: all the same, an earlier attempt of this sending may have reached the host."""
    offline: bool = False
    """With UNREACHABLE: it may be approved here."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The round is over: the payment, and what would be done next. SEND and the like: in another round."""

    payment: Payment
    act: Act


Effect = Write | Do | Begin | Read
Course = Generator[Effect, Payment | Heard, Ended]
Looking = Callable[[Payment, Sought], Circumstances]
"""The circumstances of a payment at this moment, when this round's look-up has brought that much."""

SENDING = frozenset({Act.SEND, Act.SEND_TO_CANCEL, Act.FORWARD})
UNDOING = {Act.CANCEL: Kind.CANCEL, Act.REFUND: Kind.REFUND}
ENDS = frozenset({Act.REST, Act.WAIT, Act.ASK_PERSON})


def course(payment: Payment, looking: Looking, *, wary: bool = False, owed: bool = False) -> Course:
    """A round of ``payment``; of one that is NEW it begins with the first sending.

    A round sends at most once, begins each way of undoing at most once, and looks up at most once before and once
    after it sent. ``wary``: the host may know payments that the journal has lost, so that it is asked before the
    first sending. ``owed``: the payment undoes another one and is never withdrawn for want of a connection.
    """
    sought, done = Sought.NOT_YET, set[Act]()
    if payment.state is State.NEW:
        payment = yield from _write(payment, Happened.JOURNALLED)
        if wary:
            payment, sought = yield from _look_up(payment)
            if sought is Sought.NOT_YET:  # nothing of the payment has left the device
                return Ended((yield from _write(payment, Happened.UNREACHABLE)), Act.REST)
        if payment.state is State.IN_FLIGHT:
            payment, reply = yield from _send(payment, Act.SEND, fresh=True, owed=owed)
            done, sought = {Act.SEND}, Sought.NOT_YET
            if reply is Reply.UNREACHABLE:
                return Ended(payment, decide(payment, looking(payment, sought)))
    while True:
        act = decide(payment, looking(payment, sought))
        if act in ENDS or act in done or (act in SENDING and done & SENDING):
            return Ended(payment, act)
        if act is Act.LOOK_UP:
            payment, sought = yield from _look_up(payment)
            if sought is Sought.NOT_YET:
                return Ended(payment, act)
        elif act in SENDING:
            payment, reply = yield from _send(payment, act)
            sought = Sought.NOT_YET
            if reply is Reply.UNREACHABLE:
                return Ended(payment, act)
            if not isinstance(reply, Mended):
                done = done | {act}
        elif act in UNDOING:
            child = yield Begin(payment, UNDOING[act])
            assert isinstance(child, Payment)
            yield from course(child, looking, owed=True)
            done, sought = done | {act}, Sought.NOT_YET  # a cancel that is refused says that the charge has changed
            payment = yield from _read(payment)
        else:
            payment = yield from _write(payment, WRITTEN_BEFORE[act])


def _send(
    payment: Payment, act: Act, *, fresh: bool = False, owed: bool = False
) -> Generator[Effect, Payment | Heard, tuple[Payment, Reply | Mended]]:
    """Write, send, write.

    ``fresh``: this is the first sending of all. What a refusal of it lets us put right is put right, and the same
    sent once more, sealed again where the host has certainly not acted. After another sending that was mended all
    is decided anew: with the right time, the host may be known to have forgotten.
    """
    sent_before = not fresh and act is not Act.FORWARD
    before = None if fresh else WRITTEN_BEFORE[act]
    while True:
        if before is not None:
            payment = yield from _write(payment, before)
        heard = yield Do(payment, act, sent_before)
        assert isinstance(heard, Heard)
        payment, reply = heard.payment, heard.reply
        if isinstance(reply, Reply):
            break
        assert reply is not None
        if not fresh:
            return payment, reply
        sent_before = sent_before or heard.doubt
        if payment.state is not State.IN_FLIGHT:
            reply = Reply.REFUSED  # the shopper has left meanwhile: it does not go out again
            break
        sealing = reply is Mended.KEYS and not sent_before and payment.kind is not Kind.CANCEL
        before = Happened.SEALED_AGAIN if sealing else Happened.SENT_AGAIN
    offline = heard.offline and payment.state is State.IN_FLIGHT
    happened = conclude(payment, reply, sent_before=sent_before, owed=owed, offline=offline)
    return (yield from _write(payment, happened, heard.facts)), reply


def _look_up(payment: Payment) -> Generator[Effect, Payment | Heard, tuple[Payment, Sought]]:
    """Ask, and write what is news."""
    heard = yield Do(payment, Act.LOOK_UP)
    assert isinstance(heard, Heard)
    payment = heard.payment
    if isinstance(heard.reply, Reply):
        happened = conclude(payment, heard.reply, sent_before=True)
        if heard.facts or PAYMENT.table[payment.state].get(happened) is not payment.state:
            payment = yield from _write(payment, happened, heard.facts)
    return payment, heard.sought


def _write(
    payment: Payment, happened: Happened, facts: Mapping[str, Any] | None = None
) -> Generator[Effect, Payment | Heard, Payment]:
    written = yield Write(payment, happened, facts or {})
    assert isinstance(written, Payment)
    return written


def _read(payment: Payment) -> Generator[Effect, Payment | Heard, Payment]:
    found = yield Read(payment)
    assert isinstance(found, Payment)
    return found
