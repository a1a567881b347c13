"""The durable record: what was asked and what came of it, written before anything leaves the device.

One SQLite file in WAL mode with full synchronisation, one writer. ``records`` is append-only, each row bound
to the one before by a running SHA-256, and is the truth; ``payments`` is what the records add up to, kept for
look-ups. ``outbox`` holds the sealed request of each payment whose outcome is not known, so that a repeat
sends the same bytes; the row is destroyed when the outcome is (SQLite overwrites it: ``secure_delete``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from terminal.clock import rfc3339
from terminal.disk import REAL, Disk
from terminal.errors import AmountError, IllegalEvent, JournalDamaged, JournalError, JournalUnwritable
from terminal.journal_file import RESTORE, SCHEMA, checked_id, closed_on_error, connect, translated
from terminal.payment import PAYMENT, UNRESOLVED, WITHOUT_EFFECT, Happened, Kind, Payment, State

TAIL = 256
"""Records whose chain is checked at every start; ``verify`` checks them all."""

_BY_CHARGE_ID = "charge_id = ? AND charge_id <> ''"
"""Said twice, because SQLite takes a partial index only where the query repeats the index's own condition."""


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """The bytes that travel, and the key set that sealed them (and so signs them)."""

    key_set_id: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of the chain: ``facts`` are the fields of the payment that changed."""

    seq: int
    at: str
    payment_id: str
    happened: Happened
    facts: dict[str, Any]


class Journal:
    """See the module. Use ``create`` once, then ``open``; ``read`` looks without writing.

    Every method may raise JournalUnwritable (read-only, disk full) or JournalDamaged; a call that raised has
    changed nothing.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, journal_id: str) -> None:
        self.path, self.id = path, journal_id
        self._db = db
        self._seq, self._digest = 0, _start(journal_id)
        self._torn = False

    # -- opening --------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, journal_id: str, *, disk: Disk = REAL) -> Journal:
        """A new, empty journal (mode 0600); raises JournalError where the file exists."""
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise JournalError(f"{path} exists already", advice="Move it away, or open it.") from None
        except OSError as error:
            raise JournalUnwritable(f"{path} cannot be created: {error.strerror}") from None
        with translated(path):
            db = connect(path, disk)
            db.executescript("BEGIN;" + SCHEMA)
            db.execute("INSERT INTO journal VALUES (?)", (journal_id,))
            db.execute("COMMIT")
        return cls(path, db, journal_id)

    @classmethod
    def open(cls, path: Path, journal_id: str | None = None, *, disk: Disk = REAL) -> Journal:
        """The journal at ``path``, for writing; it must be the one with ``journal_id`` where that is given.

        Raises JournalDamaged (missing, truncated, not ours, chain broken) or JournalTooNew.
        """
        if not path.is_file():
            raise JournalDamaged(
                f"{path} is missing", advice="Restore it: without it, payments could be taken twice."
            )
        if not os.access(path, os.W_OK):
            raise JournalUnwritable(f"{path} is read-only", advice="Give the user of till the right to write it.")
        with translated(path):
            return cls._adopted(path, connect(path, disk), journal_id)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """The journal for looking only, also while a terminal writes it."""
        if not path.is_file():
            raise JournalDamaged(
                f"{path} is missing", advice="Restore it; in a new home run `till provision` first."
            )
        with translated(path):
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            return cls._adopted(path, db, None)

    @classmethod
    def _adopted(cls, path: Path, db: sqlite3.Connection, journal_id: str | None) -> Journal:
        with closed_on_error(db):
            journal = cls(path, db, checked_id(path, db, journal_id))
            journal._adopt_tail()
        return journal

    def close(self) -> None:
        """Close the file; the journal cannot be used any more."""
        with translated(self.path):
            self._db.close()

    # -- writing --------------------------------------------------------------------------------------------

    def begin(self, payment: Payment, request: SealedRequest | None) -> Payment:
        """Write a new payment and its sealed request in one commit; only then may a byte leave."""
        with self._transaction(payment.created_at) as append:
            begun = append(replace(payment, state=State.NEW), Happened.JOURNALLED)
            if request is not None:
                self._db.execute(
                    "INSERT INTO outbox VALUES (?, ?, ?)", (payment.id, request.key_set_id, request.body)
                )
        return begun

    def record(self, payment_id: str, happened: Happened, at: datetime, **facts: Any) -> Payment:
        """Write what happened to a payment; ``facts`` are fields of Payment that changed with it.

        An approved refund or cancel changes the charge that it concerns in the same commit. Raises
        IllegalEvent where the payment's state does not know the event.
        """
        payment = self.payment(payment_id)
        with self._transaction(at) as append:
            after = append(payment, happened, **facts)
            if after.state not in UNRESOLVED:
                self._db.execute("DELETE FROM outbox WHERE payment_id = ?", (payment_id,))
            if after.parent and after.state is State.APPROVED:
                charge = self.payment(after.parent)
                if after.kind is Kind.CANCEL:
                    append(charge, Happened.CANCELED)
                else:
                    refunded = charge.refunded + after.amount.minor
                    whole = charge.approved is not None and refunded == charge.approved.minor
                    append(charge, Happened.REFUNDED if whole else Happened.REFUNDED_IN_PART, refunded=refunded)
        return after

    def seal_again(self, payment_id: str, request: SealedRequest, at: datetime) -> Payment:
        """Replace the sealed request of a payment that the host has certainly not acted on."""
        with self._transaction(at) as append:
            after = append(self.payment(payment_id), Happened.SEALED_AGAIN)
            self._db.execute(
                "UPDATE outbox SET key_set_id = ?, body = ? WHERE payment_id = ?",
                (request.key_set_id, request.body, payment_id),
            )
        return after

    # -- reading --------------------------------------------------------------------------------------------

    def payment(self, payment_id: str) -> Payment:
        """One payment by our id; raises JournalError where there is none."""
        found = self._payments("id = ?", payment_id)
        if not found:
            raise JournalError(f"there is no payment {payment_id!r} in {self.path}")
        return found[0]

    def charge_by_reference(self, reference: str) -> Payment | None:
        """The charge of this reference that has, or may yet have, an effect; else the last one without."""
        charges = self._payments("kind = 'charge' AND reference = ?", reference)
        standing = [charge for charge in charges if charge.state not in WITHOUT_EFFECT]
        found = standing or charges
        return found[-1] if found else None

    def charge_by_charge_id(self, charge_id: str) -> Payment | None:
        """The charge to which the host gave this id."""
        found = self._payments(f"{_BY_CHARGE_ID} AND kind = 'charge'", charge_id) if charge_id else []
        return found[-1] if found else None

    def unresolved(self) -> list[Payment]:
        """Payments whose outcome is not known, oldest first."""
        return self._payments("state IN ('in_flight', 'in_doubt', 'pending')")

    def payments(self) -> list[Payment]:
        """Every payment, oldest first."""
        return self._payments("1")

    def concerning(self, charge: Payment) -> list[Payment]:
        """The refunds and cancels of a charge, oldest first."""
        return [p for p in self._payments(_BY_CHARGE_ID, charge.charge_id) if p.parent == charge.id]

    def request(self, payment_id: str) -> SealedRequest | None:
        """The sealed request of a payment whose outcome is not known."""
        row = self._rows("SELECT key_set_id, body FROM outbox WHERE payment_id = ?", payment_id)
        return SealedRequest(*row[0]) if row else None

    def records(self) -> Iterator[Record]:
        """The chain from its start; raises JournalDamaged at the first link that does not hold."""
        digest = _start(self.id)
        for expected, row in enumerate(self._rows("SELECT * FROM records ORDER BY seq"), start=1):
            digest = self._check_link(expected, digest, row)
            seq, at, payment_id, happened, facts, _ = row
            yield Record(seq, at, payment_id, Happened(happened), msgspec.json.decode(facts))

    def verify(self) -> int:
        """Check the whole chain, and that the payments are what it adds up to; the number of records.

        Raises JournalDamaged, naming the record or the payment.
        """
        folded: dict[str, Payment] = {}
        count = 0
        for record in self.records():
            count += 1
            try:
                if record.happened is Happened.JOURNALLED:
                    before = msgspec.convert(record.facts, Payment)
                else:
                    before = folded[record.payment_id]
                folded[record.payment_id] = _after(before, record.happened, record.facts)
            except (KeyError, IllegalEvent, msgspec.ValidationError):
                raise JournalDamaged(
                    f"{self.path}: record {record.seq} does not follow from those before it", advice=RESTORE
                ) from None
        kept = {payment.id: payment for payment in self.payments()}
        for payment_id in kept.keys() | folded.keys():
            if kept.get(payment_id) != folded.get(payment_id):
                raise JournalDamaged(
                    f"{self.path}: payment {payment_id} is not what its records add up to", advice=RESTORE
                )
        return count

    # -- below ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, at: datetime) -> Iterator[_Append]:
        with translated(self.path):
            if self._torn:
                self._adopt_tail()
            self._db.execute("BEGIN IMMEDIATE")
            self._torn = True
            try:
                yield _Append(self, rfc3339(at))
                self._db.execute("COMMIT")
                self._torn = False
            except BaseException:
                # Whether the commit took place before this came, only the file knows: the next write asks it.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def _append(self, at: str, payment: Payment, happened: Happened, facts: dict[str, Any]) -> Payment:
        first = happened is Happened.JOURNALLED
        encoded = msgspec.json.encode(payment if first else facts)
        after = _after(payment, happened, facts)
        self._seq += 1
        self._digest = _link(self._digest, self._seq, at, payment.id, happened, encoded)
        self._db.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
            (self._seq, at, payment.id, happened, encoded, self._digest),
        )
        self._db.execute(
            "INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "charge_id = excluded.charge_id, state = excluded.state, facts = excluded.facts",
            (after.id, after.kind, after.reference, after.charge_id, after.state, msgspec.json.encode(after)),
        )
        return after

    def _payments(self, where: str, *values: str) -> list[Payment]:
        # ``where`` is always one of the literals in this module.
        rows = self._rows(f"SELECT facts FROM payments WHERE {where} ORDER BY rowid", *values)  # noqa: S608
        try:
            return [msgspec.json.decode(row[0], type=Payment) for row in rows]
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError, AmountError):
            raise JournalDamaged(f"{self.path}: a payment cannot be read", advice=RESTORE) from None

    def _rows(self, sql: str, *values: str | int) -> list[Any]:
        with translated(self.path):
            return self._db.execute(sql, values).fetchall()

    def _adopt_tail(self) -> None:
        rows = self._rows("SELECT * FROM records ORDER BY seq DESC LIMIT ?", TAIL + 1)[::-1]
        digest, first = _start(self.id), 1
        if len(rows) > TAIL:  # the oldest of them only lends its digest
            digest, first, rows = rows[0][5], rows[0][0] + 1, rows[1:]
        for expected, row in enumerate(rows, start=first):
            digest = self._check_link(expected, digest, row)
        self._seq, self._digest, self._torn = (rows[-1][0] if rows else 0), digest, False

    def _check_link(self, expected: int, digest: bytes, row: tuple[Any, ...]) -> bytes:
        whole = row[0] == expected and tuple(map(type, row)) == (int, str, str, str, bytes, bytes)
        if not whole or row[5] != (digest := _link(digest, *row[:5])):
            raise JournalDamaged(f"{self.path}: the chain breaks at record {expected}", advice=RESTORE)
        return digest


@dataclass(frozen=True, slots=True)
class _Append:
    """Appends records inside one transaction."""

    journal: Journal
    at: str

    def __call__(self, payment: Payment, happened: Happened, **facts: Any) -> Payment:
        return self.journal._append(self.at, payment, happened, facts)


def _after(payment: Payment, happened: Happened, facts: dict[str, Any]) -> Payment:
    state = PAYMENT.step(payment.state, happened)
    if happened is Happened.JOURNALLED:
        return replace(payment, state=state)
    if facts:
        known = msgspec.to_builtins(payment) | msgspec.to_builtins(facts)
        payment = msgspec.convert(known, Payment)
    return replace(payment, state=state)


def _start(journal_id: str) -> bytes:
    """What the first record is bound to."""
    return hashlib.sha256(journal_id.encode()).digest()


def _link(before: bytes, seq: int, at: str, payment_id: str, happened: str, facts: bytes) -> bytes:
    """SHA-256 over the digest before and the row, each part led by its length."""
    parts = (before, str(seq).encode(), at.encode(), payment_id.encode(), happened.encode(), facts)
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
