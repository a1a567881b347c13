"""The journal held against the host's books, payment by payment.

A host shows a charge by its id or by our reference, and a refund by its id; it lists nothing. So every payment of
the journal is asked about, and every charge that the host has under one of our references is accounted for. What
only the host knows, under a reference that the journal does not hold, cannot be found this way.

Three findings are written into the journal at once: an approval that was written off here (``late``: from then on
it is taken back), a refund that the host failed afterwards, and a charge approved offline and called lost that the
host has approved all the same. Everything else is reported, and left to a person.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from terminal.comparison import STANDING, Difference, Reconciliation, Row, judge, pick, to_write
from terminal.errors import CryptoError, HostError, HostRefused
from terminal.fit import Answer
from terminal.payment import OPEN, Kind, Payment
from terminal.turn import Interrupted, Turn

if TYPE_CHECKING:
    from terminal.hosts.viopay import ViopayClient

T = TypeVar("T")

GIVE_UP_AFTER = 3
"""Payments in a row about which the host could not be asked: it is not there, and the rest would only take time."""
CHANGED_MEANWHILE = 5
"""How often a payment that changes while it is compared is compared anew."""


class Books(Protocol):
    """What a host can be asked. Each raises HostError or CryptoError; None is a payment that it does not have."""

    async def charges(self, reference: str) -> Sequence[Answer]:
        """The terminal's charges under a reference."""

    async def charge(self, charge_id: str) -> Answer | None:
        """A charge."""

    async def refund(self, refund_id: str) -> Answer | None:
        """A refund."""


class HostBooks:
    """The books of a VioPay host. ``mending`` asks again where a refusal names what can be put right."""

    def __init__(
        self, client: ViopayClient, mending: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
    ) -> None:
        self._client, self._mending = client, mending

    async def charges(self, reference: str) -> Sequence[Answer]:
        """See Books."""
        found = await self._mending(lambda: self._client.charges_by_reference(reference))
        return [one.as_answer() for one in found]

    async def charge(self, charge_id: str) -> Answer | None:
        """See Books."""
        return await self._one(lambda: self._client.charge_by_id(charge_id))

    async def refund(self, refund_id: str) -> Answer | None:
        """See Books."""
        return await self._one(lambda: self._client.refund_status(refund_id))

    async def _one(self, ask: Callable[[], Awaitable[Any]]) -> Answer | None:
        try:
            found: Answer = (await self._mending(ask)).as_answer()
        except HostRefused as refusal:
            if refusal.status != 404:
                raise
            return None
        return found


class Memory(Protocol):
    """What of the journal is needed."""

    def payments(self) -> list[Payment]:
        """Every payment, oldest first."""

    def payment(self, payment_id: str) -> Payment:
        """One payment."""

    def charge_by_charge_id(self, charge_id: str) -> Payment | None:
        """The charge to which the host gave this id."""

    def charge_by_reference(self, reference: str) -> Payment | None:
        """The charge of this reference that may have an effect, else the last one."""

    def concerning(self, charge: Payment) -> list[Payment]:
        """Its refunds and cancels."""


async def patiently(turn: Turn, work: Callable[[], Awaitable[T]]) -> T:
    """Do it between payments, and once more after each payment that came first."""
    while True:
        with suppress(Interrupted):
            return await turn.between(work)


@dataclass
class Reconciler:
    """Compares one payment after the other; one question at a time is with the host.

    ``books`` is None where the host offers no look-up: then nothing is compared. ``write`` records what happened
    to a payment and tells it; ``between`` runs a question while nobody pays.
    A charge found under a reference was made at most ``skew`` before and ``life`` after its payment was sent.
    """

    journal: Memory
    books: Books | None
    write: Callable[..., Payment]
    between: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
    skew: timedelta
    life: timedelta

    async def run(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Reconciliation:
        """The payments that began at ``since`` or after, and before ``until``. Raises what asking raises, once
        ``GIVE_UP_AFTER`` payments in a row could not be asked about.
        """
        payments = self.journal.payments()
        groups = _groups(payments, since, until)
        charges: dict[str, list[str]] = {}
        for payment in payments:
            if payment.kind is Kind.CHARGE:
                charges.setdefault(payment.reference, []).append(payment.id)
        total, done, silent = sum(map(len, groups)), 0, 0
        rows: list[Row] = []
        if self.books is None:
            return Reconciliation(since, until, (), offered=False, payments=total)
        for group in groups:
            try:
                rows += await self._compared(self.books, group, charges.get(_reference(group) or "", []))
                silent = 0
            except (HostError, CryptoError) as error:
                silent += 1
                if silent == GIVE_UP_AFTER:
                    raise
                known = [self.journal.payment(payment.id) for payment in group]
                rows += [Row(p, p.state, None, (Difference.NOT_COMPARED,), note=str(error)) for p in known]
            done += len(group)
            if progress is not None:
                progress(done, total)
        return Reconciliation(since, until, tuple(rows), payments=total)

    async def _compared(self, books: Books, group: list[Payment], charges: list[str]) -> list[Row]:
        """The rows of the charges of one reference, or of a refund; again where one of them changes meanwhile.

        ``charges``: the ids of all charges of that reference, of whatever day.
        """
        reference = _reference(group)
        for _ in range(CHANGED_MEANWHILE):
            before = self._family(group, charges)
            under = await self._asked(partial(books.charges, reference)) if reference is not None else []
            told = {answer.charge_id: answer for answer in under}
            refunds: dict[str, Answer | None] = {}
            for payment in (p for p in before if p.id in {payment.id for payment in group}):
                if payment.kind is Kind.CHARGE and payment.charge_id and payment.charge_id not in told:
                    found = await self._asked(partial(books.charge, payment.charge_id))
                    if found is not None:
                        told[payment.charge_id] = found
                elif payment.kind is Kind.REFUND and payment.refund_id:
                    refunds[payment.id] = await self._asked(partial(books.refund, payment.refund_id))
            if self._family(group, charges) == before:
                return list(self._rows(group, before, told, refunds))
        note = "it changes while it is compared"
        known = [self.journal.payment(payment.id) for payment in group]
        return [Row(p, p.state, None, (Difference.NOT_COMPARED,), note=note) for p in known]

    def _family(self, group: list[Payment], charges: list[str]) -> list[Payment]:
        """The payments as they stand, all the charges of their reference, and the refunds and cancels of those."""
        known = {name: self.journal.payment(name) for name in charges}
        if charges and (latest := self.journal.charge_by_reference(known[charges[0]].reference)) is not None:
            known[latest.id] = latest
        for charge in list(known.values()):
            known |= {child.id: child for child in self.journal.concerning(charge)}
        for payment in group:
            known.setdefault(payment.id, self.journal.payment(payment.id))
        return list(known.values())

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        found: T = await self.between(ask)
        return found

    def _rows(
        self,
        group: list[Payment],
        family: list[Payment],
        told: dict[str, Answer],
        refunds: dict[str, Answer | None],
    ) -> Iterable[Row]:
        """Nothing is awaited here: what is written fits what was just read."""
        wanted = {payment.id for payment in group}
        # A refund that failed changes its charge: refunds first.
        for payment in (p for p in family if p.kind is Kind.REFUND and p.id in wanted):
            yield self._row(payment, refunds.get(payment.id), asked=payment.id in refunds)
        charges = [p for p in family if p.kind is Kind.CHARGE]
        spare = [told[charge_id] for charge_id in told if self.journal.charge_by_charge_id(charge_id) is None]
        spare = [answer for answer in spare if answer.happened in STANDING]
        if any(p.state in OPEN and not p.charge_id for p in charges):
            spare = []  # it is that one's, most likely: resolving it tells
        for payment in (p for p in charges if p.id in wanted):
            theirs = told.get(payment.charge_id)
            if not payment.charge_id and payment.state not in OPEN:
                theirs = pick(payment, spare, before=self.skew, after=self.life)
                spare = [answer for answer in spare if answer is not theirs]
            busy = any(p.parent == payment.id and p.state in OPEN for p in family)
            yield self._row(self.journal.payment(payment.id), theirs, busy=busy)
        for answer in spare if charges else ():
            note = f"{answer.charge_id} is none of this journal's"
            yield Row(charges[-1], charges[-1].state, answer, (Difference.UNKNOWN,), note=note)

    def _row(self, payment: Payment, theirs: Answer | None, *, busy: bool = False, asked: bool = True) -> Row:
        if not asked:
            return Row(payment, payment.state, None, note="the host gave it no id by which to ask")
        differences = judge(payment, theirs, busy=busy)
        happened = to_write(payment, theirs, differences)
        if happened is None or theirs is None:
            return Row(payment, payment.state, theirs, differences)
        facts: dict[str, Any] = {}
        if payment.kind is Kind.CHARGE:
            facts = {"charge_id": theirs.charge_id, "approved": theirs.amount or payment.amount}
            facts = {name: value for name, value in facts.items() if value != getattr(payment, name)}
        after = self.write(payment, happened, **facts)
        return Row(after, payment.state, theirs, differences, written=happened)


def _groups(payments: list[Payment], since: datetime | None, until: datetime | None) -> list[list[Payment]]:
    """The charges of each reference with the refunds of each, in the order in which they began.

    A refund within the time of a charge outside it stands alone.
    """
    groups: dict[str, list[Payment]] = {}
    home: dict[str, str] = {}
    for payment in payments:
        within = (since is None or payment.created_at >= since) and (until is None or payment.created_at < until)
        if not within or payment.kind is Kind.CANCEL:
            continue
        key = f"reference {payment.reference}" if payment.kind is Kind.CHARGE else f"refund {payment.id}"
        key = home.get(payment.parent, key)
        home[payment.id] = key
        groups.setdefault(key, []).append(payment)
    return list(groups.values())


def _reference(group: list[Payment]) -> str | None:
    return next((payment.reference for payment in group if payment.kind is Kind.CHARGE), None)
