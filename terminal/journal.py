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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from terminal import journal_swap
from terminal.clock import Random, rfc3339, system_random
from terminal.disk import REAL, Disk
from terminal.errors import JournalDamaged, JournalError, JournalUnwritable
from terminal.journal_ahead import Ahead
from terminal.journal_chain import (
    Care,
    Known,
    Record,
    SealedRequest,
    first_digest,
    first_facts,
)
from terminal.journal_compaction import compact, take_over
from terminal.journal_file import (
    SCHEMA,
    checked_id,
    closed_on_error,
    connect,
    keys_path,
    looked_at,
    translated,
)
from terminal.journal_reading import JournalReading
from terminal.journal_store import Store
from terminal.payment import Happened, Payment, State, effect_on_charge
from terminal.side_store import Slots

TIDY: Final = 128
"""Records after which there is something to tidy."""

__all__ = ["Care", "Journal", "Record", "SealedRequest"]


class Journal(JournalReading):
    """See the module. Use ``create`` once, then ``open``; ``read`` looks without writing.

    Every method may raise JournalUnwritable (read-only, disk full) or JournalDamaged; a call that raised has
    changed nothing. After a synchronisation that failed nobody knows what the disk holds: every later write is
    refused until the journal is opened anew.
    """

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
                    "INSERT INTO journal VALUES (?, ?, ?, ?, ?, 0, '')", (journal_id, after, digest, after, digest)
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
                journal = cls(Store(path, db), checked_id(path, db, None))
                journal._store.fresh()
        return journal

    @classmethod
    def _opened(
        cls, path: Path, db: sqlite3.Connection, journal_id: str, disk: Disk, random: Random, at_least: int = 0
    ) -> Journal:
        slots = Slots(keys_path(path), disk, random)
        store = Store(path, db, slots, Ahead(path, disk))
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
        store.prepare()
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

    def saw_refunds(self, until: datetime) -> None:
        """Every look at a refund that was due by then has been made. That is no record: all that follows from it is
        what has to be looked at after the next start."""
        with self._store.damage, self._store.changing():
            self._store.db.execute("UPDATE journal SET refunds_seen = ?", (rfc3339(until),))

    def tidy(self, *, whole: bool = False) -> None:
        """What belongs between payments: the tables' checkpoint, new keys, SQLite's WAL written back and ahead.

        Does nothing for as long as there is little to do, unless ``whole``.
        """
        self._store.tidy(least=0 if whole else TIDY)
        self._store.prepare()

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
        self,
        facts: dict[str, Any],
        payments: Iterable[tuple[Known, SealedRequest | None]],
        gone: Sequence[tuple[str, int, int]],
        at: datetime,
    ) -> None:
        """Begin a journal that follows another: what is known of that one, the payments that it proves, and the
        totals of those that had left it by compaction."""
        with self._store.transaction(at) as append:
            append("", Care.SUCCEEDS, facts)
            for known, request in payments:
                news = {"news": True} if known.news else {}
                mark = self._store.put_by(known.payment.id, request)
                append(known.payment.id, Care.CARRIED, first_facts(known.payment) | news, mark)
            if gone:
                append("", Care.COMPACTED, take_over(self._store.db, self._store.tables, gone))
