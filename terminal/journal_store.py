"""The journal's store: one connection, what it holds in memory, and how a commit is made and distrusted."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgspec

from terminal import side_store
from terminal.clock import rfc3339
from terminal.errors import JournalDamaged, JournalUnwritable, TillError
from terminal.journal_ahead import Ahead
from terminal.journal_chain import Broken, Care, Known, Mark, Record, SealedRequest, encoded, link
from terminal.journal_check import Unsound
from terminal.journal_file import RESTORE, code_of, translated
from terminal.journal_tables import EVERY, Tables, Unreadable
from terminal.payment import Happened, Payment
from terminal.side_store import Slots, SyncFailed

WRITE_BACK: Final = 512
"""Commits after which tidying writes SQLite's WAL back into the file: pages that changed often are written once."""
WAL_LIMIT: Final = 4096
"""Commits after which SQLite's WAL is written back even in the middle of a payment."""
_FETCH: Final = 1024


class Damage:
    """A block in which what is found to be wrong becomes JournalUnwritable or JournalDamaged, naming the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, TillError):
            return
        if isinstance(error, Broken | Unsound):
            raise JournalDamaged(f"{self._path}: {error}", advice=RESTORE) from None
        if isinstance(error, Unreadable):
            raise JournalDamaged(f"{self._path}: a payment cannot be read", advice=RESTORE) from None
        if isinstance(error, ValueError | msgspec.MsgspecError):
            raise JournalDamaged(f"{self._path} is damaged", advice=RESTORE) from None
        with translated(self._path):
            raise error


class Store:
    """``slots`` and ``ahead`` are None where the journal is only read."""

    def __init__(
        self, path: Path, db: sqlite3.Connection, slots: Slots | None = None, ahead: Ahead | None = None
    ) -> None:
        self.path, self.db, self.slots, self.ahead = path, db, slots, ahead
        self.tables = Tables(db)
        self.damage = Damage(path)
        self._acknowledged: list[str] = []
        self._torn, self._refused, self._version, self._commits = True, "", -1, 0
        self._put: tuple[str, Mark, SealedRequest] | None = None

    def fresh(self) -> None:
        """Have in memory what the file holds: after a write that failed, and where another process writes."""
        with self.damage:
            if self.slots is None:
                version = self.db.execute("PRAGMA data_version").fetchone()[0]
                self._torn, self._version = self._torn or version != self._version, version
            if self._torn:
                self.db.execute("BEGIN")
                try:
                    self.tables.adopt()
                finally:
                    self.db.execute("ROLLBACK")
                self._torn = False
                pending, self._acknowledged = self._acknowledged, []
                self.acknowledge(pending)

    def forget(self) -> None:
        """Read everything again when it is next needed."""
        self._torn = True

    def acknowledge(self, payment_ids: Iterable[str]) -> None:
        """To be written with the next record, or with the next checkpoint."""
        for payment_id in payment_ids:
            known = self.tables.known(payment_id)
            if known is not None and known.news:
                self.tables.know(replace(known, news=False))
                self._acknowledged.append(payment_id)

    def open_payments(self) -> list[Known]:
        """Those with which something is still to be done."""
        return self.tables.open()

    def tidy(self, *, least: int) -> None:
        """A checkpoint, new keys and the WAL written back, where ``least`` records have come since the last."""
        self.fresh()
        due = self.tables.seq - self.tables.checkpoint
        if self.slots is None or due < least:
            return
        with self.damage:
            if due or self._acknowledged:
                with self.changing():
                    self.tables.materialise()
                self._acknowledged = []
            self._settle(self.slots)
            if self._commits >= (1 if least == 0 else WRITE_BACK):
                self._write_back()
                self.wake()

    def close(self) -> None:
        """Close the file; what cannot be tidied is tidied at the next start."""
        if not self._refused:
            with contextlib.suppress(JournalDamaged, JournalUnwritable):
                self.tidy(least=0)
        with self.damage:
            self.db.close()

    def rows(self) -> Iterator[Any]:
        """The rows of the chain, some at a time."""
        seq = self.tables.base
        while rows := self.db.execute(
            "SELECT * FROM records WHERE seq > ? ORDER BY seq LIMIT ?", (seq, _FETCH)
        ).fetchall():
            yield from rows
            seq = rows[-1][0]

    def transaction(self, at: datetime) -> Transaction:
        """Records that are written in one commit; the first of them tells what was acknowledged since the last."""
        return Transaction(self, rfc3339(at), tuple(self._acknowledged))

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """One commit, or none of it."""
        self.begin()
        try:
            yield
        except BaseException as error:
            self.undo(error)
            raise
        self.commit()

    def begin(self) -> None:
        """Begin a commit; raises JournalUnwritable where the disk is not trusted any more."""
        if self._refused:
            raise JournalUnwritable(
                f"{self.path} cannot be written: {self._refused}",
                advice="Check the disk, then start the terminal again.",
            )
        self.fresh()
        try:
            self.db.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            self.undo(error)
            raise

    def commit(self) -> None:
        """Make what was begun durable, with a checkpoint where that is due."""
        try:
            if self.tables.seq - self.tables.checkpoint >= EVERY:
                self.tables.materialise()
            self.db.execute("COMMIT")
        except BaseException as error:
            self.undo(error)
            raise
        self._commits += 1

    def recorded(self) -> None:
        """Records were written, and with the first of them what was acknowledged."""
        self._acknowledged = []
        if self._commits >= WAL_LIMIT:
            self._write_back()

    def undo(self, error: BaseException) -> None:
        """Take back what was begun. Whether the commit took place before the error came, only the file knows: it is
        asked when next needed."""
        self._torn = True
        self._distrust(error)
        with contextlib.suppress(sqlite3.Error):
            self.db.execute("ROLLBACK")

    def _distrust(self, error: BaseException) -> None:
        if isinstance(error, SyncFailed) or code_of(error) == sqlite3.SQLITE_IOERR:
            self._refused = "the disk failed to write, and what it holds now is not known"
        elif code_of(error) == sqlite3.SQLITE_CONSTRAINT:
            self._refused = "another process has written to it"

    def append(
        self,
        at: str,
        payment_id: str,
        happened: Happened | Care,
        facts: dict[str, Any],
        mark: Mark | None,
        acknowledged: tuple[str, ...],
    ) -> Payment | None:
        """A record of what happened at ``at``, inside a transaction; the payment as it is then."""
        tables = self.tables
        seq, written = tables.seq + 1, encoded(facts, mark, acknowledged)
        digest = link(tables.digest, seq, at, payment_id, happened, written)
        tables.act(Record(seq, at, payment_id, happened, facts, mark, acknowledged), digest)
        self.db.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", (seq, at, payment_id, happened, written, digest)
        )
        known = tables.known(payment_id) if payment_id else None
        return known.payment if known else None

    def put_by(self, payment_id: str, request: SealedRequest | None) -> Mark | None:
        """Keep a sealed request, inside a transaction; what the chain is to know of it."""
        if request is None or self.slots is None:
            return None
        slot, key = self.slots.take()
        body = side_store.sealed(key, payment_id, request)
        self.db.execute("INSERT OR REPLACE INTO sealed VALUES (?, ?)", (slot, body))
        mark = Mark(slot, side_store.digest(request.body))
        self._put = payment_id, mark, request
        return mark

    def request(self, payment_id: str, mark: Mark) -> SealedRequest | None:
        """What was put by; None where its key is lost. The one of this moment is still in memory."""
        if self._put is not None and self._put[:2] == (payment_id, mark):
            return self._put[2]
        row = self.db.execute("SELECT body FROM sealed WHERE slot = ?", (mark.slot,)).fetchone()
        if row is None or self.slots is None:
            return None
        return side_store.opened(self.slots.key(mark.slot), payment_id, mark, row[0])

    def destroy(self, before: Known) -> None:
        """Overwrite the key of a request that is not needed any more."""
        now = self.tables.known(before.payment.id)
        if before.mark is not None and self.slots is not None and (now is None or now.mark != before.mark):
            self.slots.destroy(before.mark.slot)
            if self._put is not None and self._put[1] == before.mark:
                self._put = None

    def wake(self) -> None:
        """A commit of little: for a new WAL's head SQLite synchronises twice, and no charge is to wait for it."""
        with self.changing():
            self.db.execute("UPDATE journal SET woken = woken + 1")

    def prepare(self) -> None:
        """Have what the next commits need: a key, and bytes of the WAL to overwrite. Where the disk has no room for
        those, the commits say so themselves."""
        if self.slots is None or self.ahead is None or self._refused:
            return
        self.slots.prepare()
        try:
            if not self.ahead.is_used():
                return
            self.db.execute("BEGIN IMMEDIATE")  # or zeros could go over what somebody else writes there meanwhile
            try:
                self.ahead.write()
            finally:
                self.db.execute("ROLLBACK")
        except (OSError, sqlite3.Error):
            return
        with self.damage:
            try:
                self.ahead.sync()
            except OSError as error:
                self._distrust(SyncFailed(error.errno, error.strerror))
                raise

    def _settle(self, slots: Slots) -> None:
        try:
            slots.settle()
        except SyncFailed as error:
            self._distrust(error)
            raise

    def _write_back(self) -> None:
        """SQLite's checkpoint: as much of the WAL as no reader needs goes into the file."""
        try:
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._commits = 0
        except sqlite3.Error as error:
            self._distrust(error)


class Transaction:
    """A block in which records are written in one commit: what it gives is called for each."""

    def __init__(self, store: Store, at: str, acknowledged: tuple[str, ...]) -> None:
        self._store, self._at, self._acknowledged = store, at, acknowledged

    def __enter__(self) -> Transaction:
        with self._store.damage:
            self._store.begin()
        return self

    def __call__(
        self, payment_id: str, happened: Happened | Care, facts: dict[str, Any], mark: Mark | None = None
    ) -> Any:
        """Write a record; the payment as it is then, where it is of one."""
        told, self._acknowledged = self._acknowledged, ()
        return self._store.append(self._at, payment_id, happened, facts, mark, told)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._store.damage:
            if error is not None:
                self._store.undo(error)
                raise error
            self._store.commit()
            self._store.recorded()
