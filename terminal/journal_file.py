"""The journal's file: its schema, how it is opened, and what can be wrong with it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from terminal.disk import Disk
from terminal.errors import JournalDamaged, JournalTooNew, JournalUnwritable

FILE_NAME = "journal.db"
FORMAT = 2
APPLICATION_ID = 0x5449_4C4C  # "TILL"
PAGE: Final = 1024
"""Bytes of a page. A commit writes every page that it touches whole, and a record has some 300 bytes."""
RESTORE = "Keep the file as it is for an examination, and set it aside: `till journal --set-aside`."

SCHEMA: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
    """CREATE TABLE journal (
        id TEXT NOT NULL,
        base INTEGER NOT NULL, base_digest BLOB NOT NULL,
        checkpoint INTEGER NOT NULL, checkpoint_digest BLOB NOT NULL,
        woken INTEGER NOT NULL,
        refunds_seen TEXT NOT NULL
    )""",
    """CREATE TABLE records (
        seq INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        payment_id TEXT NOT NULL,
        happened TEXT NOT NULL,
        facts BLOB NOT NULL,
        digest BLOB NOT NULL
    )""",
    """CREATE TRIGGER records_are_kept BEFORE DELETE ON records WHEN OLD.seq > (SELECT base FROM journal)
    BEGIN SELECT RAISE(ABORT, 'append-only'); END""",
    "CREATE TRIGGER records_stand BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    """CREATE TABLE payments (
        begun INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        reference TEXT NOT NULL,
        charge_id TEXT NOT NULL,
        open INTEGER NOT NULL,
        news INTEGER NOT NULL,
        mark BLOB,
        facts BLOB NOT NULL
    )""",
    "CREATE UNIQUE INDEX payments_by_id ON payments (id)",
    "CREATE INDEX payments_by_reference ON payments (reference) WHERE kind = 'charge'",
    "CREATE INDEX payments_by_charge_id ON payments (charge_id) WHERE charge_id <> ''",
    "CREATE INDEX payments_refunds ON payments (begun) WHERE kind = 'refund'",
    "CREATE INDEX payments_open ON payments (begun) WHERE open = 1",
    "CREATE INDEX payments_news ON payments (begun) WHERE news = 1",
    "CREATE TABLE sealed (slot INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE base (begun INTEGER PRIMARY KEY, facts BLOB NOT NULL)",
    "CREATE TABLE totals (key TEXT PRIMARY KEY, count INTEGER NOT NULL, minor INTEGER NOT NULL) WITHOUT ROWID",
)


def keys_path(path: Path) -> Path:
    """The file of the side store's keys, beside the journal."""
    return path.with_suffix(".keys")


def checked_id(path: Path, db: sqlite3.Connection, journal_id: str | None) -> str:
    """The journal's own id, once it is ours, of a format that we know, and the one expected.

    Raises JournalDamaged or JournalTooNew.
    """
    if _pragma(db, "application_id") != APPLICATION_ID:
        raise JournalDamaged(f"{path} is not a journal of this program", advice=RESTORE)
    if (version := _pragma(db, "user_version")) > FORMAT:
        raise JournalTooNew(
            f"{path} has format {version}; this program knows formats up to {FORMAT}",
            advice="Run the newer version that wrote it.",
        )
    if version < FORMAT:
        raise JournalDamaged(
            f"{path} has format {version}, which no released version wrote",
            advice="Move it away, and start a new home.",
        )
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
    """A connection for writing: WAL, every commit synchronised, what is deleted overwritten.

    SQLite's own checkpoints are off: they come between payments.
    """
    db = disk.connect(path)
    db.execute(f"PRAGMA page_size = {PAGE}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA wal_autocheckpoint = 0")
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
    sqlite3.SQLITE_CONSTRAINT: "another process has written to it",
}


_FULL: Final = sqlite3.SQLITE_IOERR_SHMSIZE
"""SQLite has no room for the file beside a journal, in which its readers meet; it does not say that as FULL."""


def code_of(error: BaseException) -> int:
    """SQLite's primary result code, or 0."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    return sqlite3.SQLITE_FULL if code == _FULL else code & 0xFF


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors, and the disk's, as JournalUnwritable or JournalDamaged, naming the file."""
    advice = "Free or repair the disk, then ask again with the same reference."
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError) as error:
        if why := _UNWRITABLE.get(code_of(error)):
            raise JournalUnwritable(f"{path} cannot be written: {why}", advice=advice) from None
        raise JournalDamaged(f"{path} is damaged: {error}", advice=RESTORE) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "the disk failed"
        raise JournalUnwritable(f"{path} cannot be written: {why}", advice=advice) from None


def looked_at(path: Path) -> str:
    """SQLite's name of a journal that is only looked at.

    SQLite makes a file beside a journal in WAL mode even to read it. Where it may not, as on a disk that is
    read-only, and nothing is left to be read from a WAL, it is told that nobody will write ("immutable").
    """
    wal = path.with_name(path.name + "-wal")
    still = not os.access(path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size)
    return f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
