"""The journal's file: its schema, how it is opened, and what can be wrong with it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from terminal.disk import Disk
from terminal.errors import JournalDamaged, JournalTooNew, JournalUnwritable

FILE_NAME = "journal.db"
FORMAT = 1
APPLICATION_ID = 0x5449_4C4C  # "TILL"
RESTORE = "Keep the file as it is for an examination, and restore a backup or start a new home."

SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE journal (id TEXT PRIMARY KEY);
CREATE TABLE records (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    happened TEXT NOT NULL,
    facts BLOB NOT NULL,
    digest BLOB NOT NULL
);
CREATE TRIGGER records_are_kept BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER records_stand BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TABLE payments (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    reference TEXT NOT NULL,
    charge_id TEXT NOT NULL,
    state TEXT NOT NULL,
    facts BLOB NOT NULL
);
CREATE INDEX payments_by_reference ON payments (reference) WHERE kind = 'charge';
CREATE INDEX payments_by_charge_id ON payments (charge_id) WHERE charge_id <> '';
CREATE INDEX payments_by_state ON payments (state) WHERE state IN ('in_flight', 'in_doubt', 'pending');
CREATE TABLE outbox (payment_id TEXT PRIMARY KEY, key_set_id TEXT NOT NULL, body BLOB NOT NULL);
"""


def checked_id(path: Path, db: sqlite3.Connection, journal_id: str | None) -> str:
    """The journal's own id, once it is sound, ours, of a format that we know, and the one expected.

    Raises JournalDamaged or JournalTooNew.
    """
    if _pragma(db, "application_id") != APPLICATION_ID:
        raise JournalDamaged(f"{path} is not a journal of this program", advice=RESTORE)
    if (version := _pragma(db, "user_version")) > FORMAT:
        raise JournalTooNew(
            f"{path} has format {version}; this program knows formats up to {FORMAT}",
            advice="Run the newer version that wrote it.",
        )
    if (verdict := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise JournalDamaged(f"{path} is damaged: {verdict}", advice=RESTORE)
    found = db.execute("SELECT id FROM journal").fetchone()
    if found is None or (journal_id is not None and found[0] != journal_id):
        raise JournalDamaged(f"{path} is the journal of another terminal", advice=RESTORE)
    return str(found[0])


def is_blank(path: Path) -> bool:
    """Whether nothing was ever written into the file: its making was cut short. Raises JournalDamaged."""
    with translated(path), contextlib.closing(sqlite3.connect(path)) as db:
        return not db.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()


@contextlib.contextmanager
def closed_on_error(db: sqlite3.Connection) -> Iterator[None]:
    """Close the connection when what is inside raises."""
    try:
        yield
    except BaseException:
        db.close()
        raise


def connect(path: Path, disk: Disk) -> sqlite3.Connection:
    """A connection for writing: WAL, every commit synchronised, what is deleted overwritten."""
    db = disk.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    return db


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


_UNWRITABLE = {
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk failed to read or write",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_BUSY: "another process holds it",
    sqlite3.SQLITE_PERM: "this user may not",
}


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as JournalUnwritable or JournalDamaged, naming the file."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if why := _UNWRITABLE.get(code):
            raise JournalUnwritable(
                f"{path} cannot be written: {why}",
                advice="Free or repair the disk, then ask again with the same reference.",
            ) from None
        raise JournalDamaged(f"{path} is damaged: {error}", advice=RESTORE) from None
