"""What the world itself saw: who asked for what, what the till was told, who left when, and what went over the
wire.

Times are the world's, in seconds since it began. None of it comes from the terminal's memory: only what it gave
back to its caller, and what it sent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from terminal.payment import Kind, Outcome, Payment, State

SHOPPER_WAIT = 120.0
"""Seconds that a shopper waits who was told nothing, before they leave."""


@dataclass(slots=True)
class Sale:
    """One reference: what the till asked for, and how it went at the counter."""

    reference: str
    minor: int
    currency: str
    began: float
    card: str = "visa"
    hold: bool = False
    accept_partial: bool = False
    waits_until: float | None = None
    """Nobody has told the shopper anything yet; they wait until then."""
    saw: float | None = None
    """When the shopper was told that it is approved: after that, they have what they bought."""
    left: float | None = None
    """When the shopper left without that."""
    charge_id: str = ""
    approved: int | None = None
    """Minor units of an approval that the host has, as the till was told."""
    undone: bool = False
    """The till asked for it to be canceled, or voided it, or did not confirm it."""
    given_back: dict[str, int] = field(default_factory=dict)
    """Refunds that the till asked for: minor units by reason."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the terminal said of a payment to its caller."""

    at: float
    payment_id: str
    kind: Kind
    reference: str
    """Of a charge; of a refund its reason."""
    state: State
    outcome: Outcome
    minor: int
    """What was approved, else what was asked."""
    charge_id: str
    refund_id: str


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as it left the terminal."""

    at: float
    call: str
    key: str
    """The idempotency key of a charge or a refund; else empty."""
    digest: str
    boot: int
    """In which of the terminal's lives."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A request as the host judged it."""

    at: float
    call: str
    key: str
    digest: str
    status: int


@dataclass(slots=True)
class Record:
    """All of it, in order."""

    sales: dict[str, Sale] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    turns: list[tuple[int, int]] = field(default_factory=list)
    """While the till waited for a charge: how much had been sent before, and afterwards."""
    undo: dict[str, str] = field(default_factory=dict)
    """Approvals that nobody was there to see: charge ids (empty offline) by reference, until the till has undone
    them."""
    happened: Counter[str] = field(default_factory=Counter)
    """Steps by kind, and how they ended."""
    for_a_person: dict[str, None] = field(default_factory=dict)
    """Payments of which the terminal has said that only a person can go on with them."""
    leaks: list[str] = field(default_factory=list)
    """Where something secret was found."""
    failures: list[str] = field(default_factory=list)
    """What the terminal raised that it may not raise."""

    def tell(self, at: float, payment: Payment) -> None:
        """The till hears of a payment, and the shopper where there is one."""
        minor = (payment.approved or payment.amount).minor
        told = Told(
            at, payment.id, payment.kind, payment.reference, payment.state, payment.outcome, minor,
            payment.charge_id, payment.refund_id,
        )  # fmt: skip
        self.told.append(told)
        sale = self.sales.get(payment.reference)
        if payment.kind is not Kind.CHARGE or sale is None:
            return
        self.pass_time(sale, at)
        sale.charge_id = payment.charge_id or sale.charge_id
        if payment.state in _STANDING:
            sale.approved = minor
        if payment.state is State.HELD and sale.left is None:
            sale.waits_until = None
        elif payment.outcome is Outcome.PENDING:
            sale.waits_until = at + SHOPPER_WAIT
        elif payment.outcome is Outcome.DECLINED:
            sale.waits_until = None
            if sale.saw is None and sale.left is None:
                sale.left = at
        else:
            self._approved(sale, at, payment)

    def _approved(self, sale: Sale, at: float, payment: Payment) -> None:
        sale.waits_until = None
        if sale.left is None:
            sale.saw = at if sale.saw is None else sale.saw
        elif sale.saw is None and payment.state in _TO_BE_UNDONE:
            self.undo[sale.reference] = payment.charge_id

    @staticmethod
    def pass_time(sale: Sale, at: float) -> None:
        """A shopper who was told nothing leaves when their time is over."""
        if sale.waits_until is not None and at > sale.waits_until:
            sale.left, sale.waits_until = sale.waits_until, None

    def leave(self, sale: Sale, at: float) -> None:
        """The shopper leaves, unless they have what they bought."""
        sale.waits_until = None
        if sale.saw is None and sale.left is None:
            sale.left = at


_STANDING = frozenset({State.APPROVED, State.PARTIALLY_REFUNDED})
_TO_BE_UNDONE = _STANDING | {State.HELD, State.OFFLINE, State.FORWARDING}
