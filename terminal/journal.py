"""The durable record: what was asked and what came of it, written before anything leaves the device.

One SQLite file in WAL mode with full synchronisation, one writer. ``records`` is append-only, each row bound to the
one before by a running SHA-256 (``journal_chain``), and is the truth; what the records add up to is in memory and,
up to the last checkpoint, in tables (``journal_tables``). The sealed request of each open payment lies in a side
store under a key of its own that is destroyed with the outcome (``side_store``). A payment that is asked and
answered is two commits, each one synchronisation; what else has to be done comes between payments (``tidy``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from terminal import journal_gaps, journal_swap
from terminal.clock import Random, parse_rfc3339, rfc3339, system_random
from terminal.disk import REAL, Disk
from terminal.errors import JournalDamaged, JournalError, JournalUnwritable
from terminal.journal_chain import (
    Care,
    Known,
    Record,
    SealedRequest,
    first_digest,
    first_facts,
    walk,
)
from terminal.journal_check import check
from terminal.journal_compaction import compact, totals
from terminal.journal_file import (
    SCHEMA,
    checked_id,
    closed_on_error,
    connect,
    keys_path,
    looked_at,
    translated,
)
from terminal.journal_store import Store
from terminal.money import Amount
from terminal.payment import WITHOUT_EFFECT, Happened, Kind, Payment, State, effect_on_charge
from terminal.side_store import Slots
from terminal.totals import Bucket, Total

TIDY: Final = 128
"""Records after which there is something to tidy."""
_BY_CHARGE_ID: Final = "charge_id = ? AND charge_id <> ''"
"""Said twice, because SQLite takes a partial index only where the query repeats the index's own condition."""

__all__ = ["Care", "Journal", "Record", "SealedRequest"]


class Journal:
    """See the module. Use ``create`` once, then ``open``; ``read`` looks without writing.

    Every method may raise JournalUnwritable (read-only, disk full) or JournalDamaged; a call that raised has
    changed nothing. After a synchronisation that failed nobody knows what the disk holds: every later write is
    refused until the journal is opened anew.
    """

    def __init__(self, store: Store, journal_id: str) -> None:
        self.path, self.id = store.path, journal_id
        self._store = store

    # -- opening --------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path,
        journal_id: str,
        *,
        after: int = 0,
        disk: Disk = REAL,
        random: Random = system_random,
    ) -> Journal:
        """A new, empty journal (mode 0600); raises JournalError where the file exists.

        ``after``: its records are numbered from the next one on (for a journal that follows another).
        """
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise JournalError(f"{path} exists already", advice="Move it away, or open it.") from None
        except OSError as error:
            raise JournalUnwritable(f"{path} cannot be created: {error.strerror}") from None
        with translated(path):
            db = connect(path, disk)
            with closed_on_error(db):
                digest = first_digest(journal_id)
                db.execute("BEGIN IMMEDIATE")
                for statement in SCHEMA:
                    db.execute(statement)
                db.execute(
                    "INSERT INTO journal VALUES (?, ?, ?, ?, ?, 0)", (journal_id, after, digest, after, digest)
                )
                db.execute("COMMIT")
                keys_path(path).unlink(missing_ok=True)
                return cls._opened(path, db, journal_id, disk, random)

    @classmethod
    def open(
        cls,
        path: Path,
        journal_id: str | None = None,
        *,
        at_least: int = 0,
        disk: Disk = REAL,
        random: Random = system_random,
    ) -> Journal:
        """The journal at ``path``, for writing; it must be the one with ``journal_id`` where that is given.

        ``at_least`` is the number of a record that it is known to have had. Where it was being set aside and that
        was cut short, it is finished or undone first (``journal_swap``). Raises JournalDamaged (missing, truncated,
        not ours, older than that, chain broken since the last checkpoint) or JournalTooNew.
        """
        journal_swap.settle(path, disk, random)
        if not path.is_file():
            raise JournalDamaged(
                f"{path} is missing", advice="Restore it: without it, payments could be taken twice."
            )
        if not os.access(path, os.W_OK):
            raise JournalUnwritable(f"{path} is read-only", advice="Give the user of till the right to write it.")
        with translated(path):
            db = connect(path, disk)
            with closed_on_error(db):
                journal = cls._opened(path, db, checked_id(path, db, journal_id), disk, random, at_least)
        return journal

    @classmethod
    def read(cls, path: Path) -> Journal:
        """The journal for looking only, also while a terminal writes it."""
        if journal_swap.is_under_way(path):
            raise JournalDamaged(
                f"{path} is being set aside",
                advice="Where that was cut short, `till journal --set-aside` finishes it, as does every start.",
            )
        if not path.is_file():
            raise JournalDamaged(
                f"{path} is missing", advice="Restore it; in a new home run `till provision` first."
            )
        with translated(path):
            db = sqlite3.connect(looked_at(path), uri=True, isolation_level=None)
            with closed_on_error(db):
                journal = cls(Store(path, db, None), checked_id(path, db, None))
                journal._store.fresh()
        return journal

    @classmethod
    def _opened(
        cls, path: Path, db: sqlite3.Connection, journal_id: str, disk: Disk, random: Random, at_least: int = 0
    ) -> Journal:
        slots = Slots(keys_path(path), disk, random)
        store = Store(path, db, slots)
        store.fresh()
        if store.tables.seq < at_least:
            raise JournalDamaged(
                f"{path} has {store.tables.seq} records, and had {at_least} when the vault was last written: it is "
                "an old copy",
                advice="Put the newest copy back, or set this one aside: `till journal --set-aside`.",
            )
        with store.damage:
            slots.open({known.mark.slot for known in store.open_payments() if known.mark})
            store.wake()
        return cls(store, journal_id)

    def close(self) -> None:
        """Tidy, and close the file; the journal cannot be used any more."""
        self._store.close()

    # -- writing --------------------------------------------------------------------------------------------

    def begin(self, payment: Payment, request: SealedRequest | None) -> Payment:
        """Write a new payment and its sealed request in one commit; only then may a byte leave.

        Raises JournalError where a payment of this id has begun already.
        """
        if payment.state is not State.NEW:
            payment = replace(payment, state=State.NEW)
        with self._store.transaction(payment.created_at) as append:
            if self._store.tables.known(payment.id) is not None:
                raise JournalError(f"the payment {payment.id!r} has begun already")
            mark = self._store.put_by(payment.id, request)
            begun: Payment = append(payment.id, Happened.JOURNALLED, first_facts(payment), mark)
        return begun

    def record(
        self,
        payment_id: str,
        happened: Happened,
        at: datetime,
        *,
        request: SealedRequest | None = None,
        **facts: Any,
    ) -> Payment:
        """Write what happened to a payment; ``facts`` are fields of Payment that changed with it.

        ``request`` takes the place of the payment's sealed request. What a refund or cancel does to its charge
        (``payment.effect_on_charge``) is written in the same commit. Raises IllegalEvent where the payment's
        state does not know the event.
        """
        before = self._required(payment_id)
        with self._store.transaction(at) as append:
            mark = self._store.put_by(payment_id, request)
            payment: Payment = append(payment_id, happened, msgspec.to_builtins(facts), mark)
            if payment.parent and payment.state is not before.payment.state:
                charge = self._required(payment.parent).payment
                if (effect := effect_on_charge(payment, charge)) is not None:
                    changed = {} if effect[1] == charge.refunded else {"refunded": effect[1]}
                    append(charge.id, effect[0], changed)
        self._store.destroy(before)
        return payment

    def seal_again(self, payment_id: str, request: SealedRequest, at: datetime) -> Payment:
        """Replace the sealed request of a payment that the host has certainly not acted on."""
        return self.record(payment_id, Happened.SEALED_AGAIN, at, request=request)

    def acknowledge(self, payment_ids: Iterable[str]) -> None:
        """The till knows the outcomes of these payments. Written with the next record, or when tidying: if the
        power fails before that, the outcomes are given once more."""
        self._store.fresh()
        with self._store.damage:
            self._store.acknowledge(payment_ids)

    def tidy(self, *, whole: bool = False) -> None:
        """What belongs between payments: the checkpoint of the tables, new keys, and SQLite's WAL written back.

        Does nothing for as long as there is little to do, unless ``whole``.
        """
        self._store.tidy(least=0 if whole else TIDY)

    # -- reading --------------------------------------------------------------------------------------------

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

    def recent(self, card: str, amount: Amount, since: datetime) -> list[Payment]:
        """Charges of that card (its keyed hash) and amount among those ``begun_since``."""
        found = self.begun_since(since) if card else []
        return [p for p in found if p.kind is Kind.CHARGE and (p.card, p.amount) == (card, amount)]

    def begun_since(self, since: datetime) -> list[Payment]:
        """Payments begun at ``since`` or later, oldest first, among the latest thousand."""
        self._store.fresh()
        with self._store.damage:
            latest = list(self._store.tables.latest(lambda known: known.payment.created_at >= since))
        return [known.payment for known in reversed(latest)]

    def last_answered(self, since: datetime) -> Payment | None:
        """The last payment of those ``begun_since`` of which the host has said anything."""
        self._store.fresh()
        with self._store.damage:
            for known in self._store.tables.latest(lambda known: known.payment.created_at >= since):
                if known.payment.charge_id or known.payment.response_code:
                    return known.payment
        return None

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

    # -- care -----------------------------------------------------------------------------------------------

    def compact(self, before: datetime, at: datetime, scheme: Callable[[str], str]) -> int:
        """Remove the records older than ``before``, and the payments that ended before it; the number of payments.

        What was taken and given back stays in the totals; ``scheme`` names a card scheme by its masked PAN. A
        payment that is open, not acknowledged or changed since stays whole, and so does what belongs to it.
        """
        self.tidy(whole=True)
        with self._store.damage:
            with self._store.transaction(at) as append:
                done = compact(self._store.db, self._store.rows(), self._store.tables, rfc3339(before), scheme)
                if done is not None:
                    append("", Care.COMPACTED, done.facts)
            if done is None:
                return 0
            self._store.forget()
            self.tidy(whole=True)
        return done.payments

    def carry(
        self, facts: dict[str, Any], payments: Iterable[tuple[Known, SealedRequest | None]], at: datetime
    ) -> None:
        """Begin a journal that follows another: what is known of that one, and the payments that it proves."""
        with self._store.transaction(at) as append:
            append("", Care.SUCCEEDS, facts)
            for known, request in payments:
                news = {"news": True} if known.news else {}
                mark = self._store.put_by(known.payment.id, request)
                append(known.payment.id, Care.CARRIED, first_facts(known.payment) | news, mark)

    def totals(self, scheme: Callable[[str], str], *, gone: bool = False) -> dict[Bucket, Total]:
        """What was asked and what came of it, by day, currency, scheme, entry mode, kind and state: of every
        payment, those that compaction removed among them; or of those alone (``gone``)."""
        self._store.fresh()
        with self._store.damage:
            return totals(self._store.db, () if gone else self.payments(), scheme)

    # -- below ----------------------------------------------------------------------------------------------

    def _known(self, payment_id: str) -> Known | None:
        self._store.fresh()
        with self._store.damage:
            return self._store.tables.known(payment_id)

    def _required(self, payment_id: str) -> Known:
        known = self._known(payment_id)
        if known is None:
            raise JournalError(f"there is no payment {payment_id!r} in {self.path}")
        return known

    def _select(self, where: str, values: tuple[Any, ...], fits: Callable[[Known], bool]) -> list[Known]:
        self._store.fresh()
        with self._store.damage:
            return self._store.tables.select(where, values, fits)

    def _payments(self, where: str, values: tuple[Any, ...], fits: Callable[[Known], bool]) -> list[Payment]:
        return [known.payment for known in self._select(where, values, fits)]

    def _charges(self, reference: str) -> list[Payment]:
        return self._payments(
            "kind = 'charge' AND reference = ?",
            (reference,),
            lambda known: known.payment.reference == reference and known.payment.kind is Kind.CHARGE,
        )

    def _of_charge_id(self, charge_id: str) -> list[Payment]:
        if not charge_id:
            return []
        return self._payments(_BY_CHARGE_ID, (charge_id,), lambda known: known.payment.charge_id == charge_id)
