"""What a journal tells: of its payments, of its chain, and of what it may lack. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from terminal import journal_gaps
from terminal.clock import parse_rfc3339
from terminal.errors import JournalError
from terminal.journal_chain import Known, Record, SealedRequest, first_digest, walk
from terminal.journal_check import check
from terminal.journal_compaction import totals
from terminal.journal_store import Store
from terminal.journal_tables import RECENT
from terminal.money import Amount
from terminal.payment import WITHOUT_EFFECT, Kind, Payment
from terminal.totals import Bucket, Total

_BY_CHARGE_ID: Final = "charge_id = ? AND charge_id <> ''"
"""Said twice, because SQLite takes a partial index only where the query repeats the index's own condition."""
_LATEST_REFUNDS: Final = "begun IN (SELECT begun FROM payments WHERE kind = 'refund' ORDER BY begun DESC LIMIT ?)"


class JournalReading:
    """A journal, as far as it is read. Every method may raise JournalDamaged, and JournalUnwritable where the disk
    cannot be read."""

    def __init__(self, store: Store, journal_id: str) -> None:
        self.path, self.id = store.path, journal_id
        self._store = store

    @property
    def seq(self) -> int:
        """The number of the last record: what a vault notes, so that an older journal is noticed."""
        return self._store.tables.seq

    @property
    def last_at(self) -> datetime | None:
        """When the last record was written; None in an empty journal."""
        self._store.fresh()
        with self._store.damage:
            return parse_rfc3339(self._store.tables.last_at) if self._store.tables.last_at else None

    def may_lack(self, memory: timedelta) -> bool:
        """Whether it may lack payments of more than ``memory`` ago: it follows a damaged journal, or nothing was
        written for longer than that, as where an old copy of it was put back."""
        self._store.fresh()
        with self._store.damage:
            db = self._store.db
            return journal_gaps.follows_another(db) or journal_gaps.rested(db, memory)

    @property
    def kept_since(self) -> datetime | None:
        """What ended before this has left by compaction; None where nothing has."""
        self._store.fresh()
        with self._store.damage:
            return journal_gaps.kept_since(self._store.db)

    def payment(self, payment_id: str) -> Payment:
        """One payment by our id; raises JournalError where there is none."""
        return self._required(payment_id).payment

    def knows(self, payment_id: str) -> bool:
        """Whether there is a payment of this id."""
        return self._known(payment_id) is not None

    def charge_by_reference(self, reference: str) -> Payment | None:
        """The charge of this reference that has, or may yet have, an effect; else the last one without."""
        charges = self._charges(reference)
        standing = [charge for charge in charges if charge.state not in WITHOUT_EFFECT]
        found = standing or charges
        return found[-1] if found else None

    def charge_by_charge_id(self, charge_id: str) -> Payment | None:
        """The charge to which the host gave this id."""
        found = [p for p in self._of_charge_id(charge_id) if p.kind is Kind.CHARGE]
        return found[-1] if found else None

    def count(self, kind: Kind, of: str) -> int:
        """How many payments of a kind there are: charges of a reference, refunds or cancels of a charge id."""
        if kind is Kind.CHARGE:
            return len(self._charges(of))
        return sum(payment.kind is kind for payment in self._of_charge_id(of))

    def recent(self, card: str, amount: Amount, since: datetime) -> Iterator[Payment]:
        """Charges of that card (its keyed hash) and amount among those ``begun_since``, the last one first.

        Nothing may be written meanwhile.
        """
        for payment in self._begun_since(since) if card else ():
            if payment.card == card and payment.kind is Kind.CHARGE and payment.amount == amount:
                yield payment

    def begun_since(self, since: datetime) -> list[Payment]:
        """Payments begun at ``since`` or later, oldest first, among the latest thousand."""
        return list(self._begun_since(since))[::-1]

    def last_answered(self, since: datetime) -> Payment | None:
        """The last payment of those ``begun_since`` of which the host has said anything."""
        begun = self._begun_since(since)
        return next((payment for payment in begun if payment.charge_id or payment.response_code), None)

    def refunds_since(self, since: datetime) -> list[Payment]:
        """Refunds begun at ``since`` or later, oldest first, among the latest thousand (and those of which
        something was written lately)."""
        found = self._payments(_LATEST_REFUNDS, (RECENT,), lambda known: known.payment.kind is Kind.REFUND)
        return [payment for payment in found if payment.created_at >= since]

    def refunds_seen(self) -> datetime | None:
        """Until when every look at a refund that was due has been made; None where there was none."""
        with self._store.damage:
            (seen,) = self._store.db.execute("SELECT refunds_seen FROM journal").fetchone()
        return parse_rfc3339(seen) if seen else None

    def unresolved(self) -> list[Payment]:
        """Payments with which something is still to be done (``payment.OPEN``), oldest first."""
        self._store.fresh()
        with self._store.damage:
            return [known.payment for known in self._store.open_payments()]

    def outcomes(self) -> list[Payment]:
        """Payments with an outcome that has not been acknowledged, oldest first."""
        self._store.fresh()
        with self._store.damage:
            return [known.payment for known in self._store.tables.news()]

    def payments(self) -> list[Payment]:
        """Every payment, oldest first."""
        return self._payments("1", (), lambda known: True)

    def concerning(self, charge: Payment) -> list[Payment]:
        """The refunds and cancels of a charge, oldest first."""
        return [p for p in self._of_charge_id(charge.charge_id) if p.parent == charge.id]

    def request(self, payment_id: str) -> SealedRequest | None:
        """The sealed request of an open payment; None where there is none, or where its key is lost."""
        known = self._known(payment_id)
        if known is None or known.mark is None or self._store.slots is None:
            return None
        with self._store.damage:
            return self._store.request(payment_id, known.mark)

    def records(self) -> Iterator[Record]:
        """The chain from its start; raises JournalDamaged at the first link that does not hold."""
        self._store.fresh()
        with self._store.damage:
            for record, _ in walk(self._store.rows(), self._store.tables.base, self._store.tables.base_digest):
                yield record

    def verify(self) -> int:
        """Check the whole chain, and that the payments are what it adds up to; the number of records.

        Raises JournalDamaged, naming the record or the payment.
        """
        self._store.fresh()
        with self._store.damage:
            self._store.db.execute("BEGIN")
            try:
                if self._store.slots is None:  # another process may have written just now
                    self._store.tables.adopt()
                return check(self._store.db, self._store.rows(), self._store.tables, first_digest(self.id))
            finally:
                self._store.db.execute("ROLLBACK")

    def totals(self, scheme: Callable[[str], str], *, gone: bool = False) -> dict[Bucket, Total]:
        """What was asked and what came of it, by day, currency, scheme, entry mode, kind and state: of every
        payment, those that compaction removed among them; or of those alone (``gone``)."""
        self._store.fresh()
        with self._store.damage:
            return totals(self._store.db, () if gone else self.payments(), scheme)

    # -- below ----------------------------------------------------------------------------------------------

    def _begun_since(self, since: datetime) -> Iterator[Payment]:
        """They, the last one first; the first that was begun before ends it."""
        self._store.fresh()
        with self._store.damage:
            for known in self._store.tables.latest():
                if known.payment.created_at < since:
                    break
                yield known.payment

    def _known(self, payment_id: str) -> Known | None:
        self._store.fresh()
        with self._store.damage:
            return self._store.tables.known(payment_id)

    def _required(self, payment_id: str) -> Known:
        known = self._known(payment_id)
        if known is None:
            raise JournalError(f"there is no payment {payment_id!r} in {self.path}")
        return known

    def _payments(
        self, where: str, values: tuple[Any, ...], fits: Callable[[Known], bool], name: str = ""
    ) -> list[Payment]:
        self._store.fresh()
        with self._store.damage:
            return [known.payment for known in self._store.tables.select(where, values, fits, name)]

    def _charges(self, reference: str) -> list[Payment]:
        return self._payments(
            "kind = 'charge' AND reference = ?",
            (reference,),
            lambda known: known.payment.reference == reference and known.payment.kind is Kind.CHARGE,
            reference,
        )

    def _of_charge_id(self, charge_id: str) -> list[Payment]:
        if not charge_id:
            return []
        return self._payments(
            _BY_CHARGE_ID, (charge_id,), lambda known: known.payment.charge_id == charge_id, charge_id
        )
