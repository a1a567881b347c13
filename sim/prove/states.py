"""What a state of the search is made of: small tuples, equal when nothing tells them apart.

Money is counted in halves of the amount that is asked: a charge is of 2. Payments are numbered in the order in
which they began, and the number is the idempotency key as well; charges at the host are numbered likewise.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

from terminal import payment
from terminal.payment import Kind

WHOLE = 2
"""What a charge is asked for; 1 is a part of it."""

ANY = -1
"""Of how often something may happen: any number of times."""

UNKNOWN = -1
"""Of a charge's number at the host: the terminal does not know it."""


class Record(NamedTuple):
    """A payment as the journal has it."""

    kind: Kind
    state: payment.State
    amount: int = WHOLE
    parent: int = UNKNOWN
    sealed: int = 0
    """Under which key set."""
    version: int = 0
    """How often it was sealed anew: other bytes."""
    charge: int = UNKNOWN
    """The host's number of the charge."""
    approved: int = 0
    refunded: int = 0
    reversal: bool = False
    """A refund that undoes a charge which is not to stand."""


class Booked(NamedTuple):
    """A charge in the host's ledger."""

    key: int
    status: str
    """pending, approved, declined or canceled."""
    amount: int
    settled: bool = False
    refunded: int = 0
    last_refund: int = 0
    """The part of it that can still fail,"""
    last_key: int = UNKNOWN
    """and its key."""
    by_others: bool = False
    """The back office has canceled it."""
    others: int = 0
    """What somebody else has given back of it."""

    @property
    def stands(self) -> bool:
        """The shopper pays for it, or may yet."""
        return self.status in ("approved", "pending") and self.refunded < self.amount


class Said(NamedTuple):
    """What the host has said, in its own words."""

    word: str
    charge: int = UNKNOWN
    amount: int = WHOLE
    proof: bool = False
    """Of a look-up: when it was sent, nothing that was sent before could still arrive."""


class Known(NamedTuple):
    """What the host keeps under an idempotency key: the bytes, and what it answered."""

    key: int
    version: int
    said: Said
    late: bool = False
    """It acted hours after the payment began, and remembers it that much longer."""


class Packet(NamedTuple):
    """A request on its way to the host."""

    slot: int
    key: int
    kind: Kind
    version: int
    sealed: int
    signed: int
    charge: int
    amount: int
    awaited: bool = True
    """A terminal waits for the answer."""


class Age(IntEnum):
    """Of the idempotency keys."""

    YOUNG = 0
    OLD = 1
    """So old that what was sent at first cannot arrive any more."""
    UNSURE = 2
    """The host remembers them, and the terminal no longer relies on it."""
    FORGOTTEN = 3


class Shown(StrEnum):
    """What the shopper saw."""

    NOTHING = ""
    APPROVED = "approved"
    DECLINED = "declined"


class World(NamedTuple):
    """All that there is."""

    # On the terminal's disk.
    journal: tuple[Record, ...] = ()
    keys: int = 0
    """The key set in use."""
    # In the terminal's memory.
    course: int = 0
    """Where the running course stands (``courses.Courses``); 0 where none runs."""
    out: bool = False
    """It has sent, and waits."""
    renewed: bool = False
    """It has taken new keys in this round, since the host wanted that."""
    asking: bool = False
    """A till waits for the outcome."""
    result: str = ""
    """It is on its way to the till."""
    gone: bool = False
    """It was told that the shopper has left."""
    # Under way.
    packets: tuple[Packet, ...] = ()
    answer: Said | None = None
    # The host.
    booked: tuple[Booked, ...] = ()
    known: tuple[Known, ...] = ()
    oldest: int = 0
    """The oldest key set that the host still takes."""
    blocked: bool = False
    """The device is revoked."""
    failing: int = UNKNOWN
    """The key of a refund that has failed since, of which the terminal has not been told."""
    # The till and the shopper.
    left: bool = False
    shown: Shown = Shown.NOTHING
    attempts: int = 0
    wants: str = ""
    """``undo``: the approval came after the shopper had left. ``asked``: the till took it back of its own."""
    spent: int = 0
    """How many refunds the host has failed."""
    wrong: int = 0
    """How many answers came for another amount, where they are counted."""
    # Time.
    fresh: bool = False
    """Something that was sent may still arrive."""
    age: Age = Age.YOUNG
    waited: bool = False
    """The time that a shopper is thought to wait is over."""
    lapsed: bool = False
    """The time in which the till had to confirm is over."""


class Move(NamedTuple):
    """A step: what happened, to whom, and how.

    ``fault``: nothing obliges it to happen, and nothing is owed to it. What is not a fault happens sooner or later.
    """

    name: str
    slot: int = UNKNOWN
    detail: str = ""
    fault: bool = False

    def __str__(self) -> str:
        words = [self.name]
        if self.slot != UNKNOWN:
            words.append(f"[{self.slot}]")
        if self.detail:
            words.append(self.detail)
        return " ".join(words)


class Bounds(NamedTuple):
    """What one search lets happen. Whatever may happen, may happen any number of times."""

    name: str
    lookup: bool = True
    """The host offers look-ups."""
    in_flight: int = 1
    """Requests under way at most."""
    cuts: bool = True
    """Power cuts, at every point."""
    leaves: bool = True
    """The shopper may leave."""
    forgets: bool = True
    """The host forgets idempotency keys."""
    attempts: int = 1
    """How often the reference is charged anew after it came to nothing."""
    hold: bool = False
    accept_partial: bool = False
    partial: bool = False
    """The host may approve a part."""
    pending: bool = False
    declines: bool = False
    unfit: int = ANY
    """How many answers may come for another amount."""
    errors: bool = False
    """The host may answer 5xx, before or after it acted, and keep that answer under the key."""
    settles: bool = False
    office: bool = False
    """The back office may cancel."""
    others: bool = False
    """Somebody else may give back halves of what the shopper saw approved."""
    rotates: bool = False
    """Key sets are renewed and superseded."""
    revokes: bool = False
    offline: bool = False
    asks: tuple[str, ...] = ()
    """What the till may ask for after an approval: cancel, refund."""
    refund_fails: int = 0
    """How many refunds may fail later."""
    wary: bool = False
    person: bool = False
    """A person may have to decide in the end."""
