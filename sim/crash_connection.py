"""A SQLite connection on a disk where the power may go (``sim.disk``): the real one, stopped where it commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from weakref import ref

from sim.faults.disk import AnyDiskRule, FsyncFails, Full, ReadOnly
from sim.power import Power, PowerCut
from sim.wal import beside

T = TypeVar("T")

_CODES: Final = {
    Full: sqlite3.SQLITE_FULL,
    ReadOnly: sqlite3.SQLITE_READONLY,
    FsyncFails: sqlite3.SQLITE_IOERR_FSYNC,
}
_SAYS: Final = {
    Full: "database or disk is full",
    ReadOnly: "attempt to write a readonly database",
    FsyncFails: "disk I/O error",
}
_READS: Final = ("SELECT", "BEGIN", "ROLLBACK", "EXPLAIN", "WITH")
_LEVELS: Final = {"OFF": 0, "NORMAL": 1, "FULL": 2, "EXTRA": 3}
_MANY_CURSORS: Final = 256
FULL: Final = 2
"""``PRAGMA synchronous = FULL``, by which a commit in WAL mode is durable."""


class Operations(Protocol):
    """The disk under a connection (``sim.disk.CrashDisk``): what it makes of the statements that reach it."""

    power: Power

    def commit(self, connection: CrashConnection, run: Callable[[], T]) -> T:
        """A statement that makes changes of SQLite's durable."""

    def checkpoint(self, path: Path, run: Callable[[], T], otherwise: Callable[[AnyDiskRule], T]) -> T:
        """A statement that brings the WAL into the database; ``otherwise``: where the disk does not let it."""

    def closed(self, connection: CrashConnection) -> None:
        """A connection is no longer."""

    def is_open(self, path: Path, *, besides: CrashConnection | None = None) -> bool:
        """Whether there is a connection to the database, ``besides`` that one."""


class CrashConnection(sqlite3.Connection):
    """A connection on a CrashDisk, for who commits and checkpoints by ``execute``."""

    path: Path
    synchronous = FULL
    """What was asked for by ``PRAGMA synchronous``."""
    _disk: Operations | None = None

    def begin_on(self, disk: Operations, path: Path) -> None:
        """From now on it is the disk's."""
        self._disk, self.path = disk, path
        self._cursors: list[ref[sqlite3.Cursor]] = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run a statement; those that reach the disk are its operations."""
        disk = self._disk
        if disk is None:
            return super().execute(sql, parameters)
        disk.power.require()
        if self.in_transaction:
            if sql == "COMMIT":
                return disk.commit(self, lambda: self._run(sql))
            return self._run(sql, parameters)
        verb = sql[:6]
        if verb == "PRAGMA":
            return self._pragma(disk, sql)
        if verb == "SELECT" or sql.startswith(_READS):
            return self._run(sql, parameters)
        return disk.commit(self, lambda: self._run(sql, parameters))

    def _run(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        cursor = super().execute(sql, parameters)
        self._cursors.append(ref(cursor))
        if len(self._cursors) > _MANY_CURSORS:
            self._cursors = [one for one in self._cursors if one() is not None]
        return cursor

    def executescript(self, sql: str, /) -> sqlite3.Cursor:
        """Run statements; all that they commit is one operation."""
        disk = self._disk
        if disk is None or "COMMIT" not in sql:
            if disk is not None:
                disk.power.require()
            return super().executescript(sql)
        return disk.commit(self, lambda: super(CrashConnection, self).executescript(sql))

    def _pragma(self, disk: Operations, sql: str) -> sqlite3.Cursor:
        name, _, value = sql.removeprefix("PRAGMA").replace(" ", "").partition("=")
        if name == "synchronous" and value:
            self.synchronous = _LEVELS.get(value.upper(), FULL)
            return self._run("PRAGMA synchronous = OFF")
        if name.startswith("wal_checkpoint"):

            def refused(rule: AnyDiskRule) -> sqlite3.Cursor:
                raise sql_error(rule)

            return disk.checkpoint(self.path, lambda: self._run(sql), refused)
        return self._run(sql)

    def close(self) -> None:
        """Let go of the file, with a checkpoint where this is the last connection and there is power."""
        disk, self._disk = self._disk, None
        if disk is None:
            return
        if not disk.power.on:
            self._disk = disk
            self.abandon()
            return
        self._end_cursors()
        try:
            if disk.is_open(self.path, besides=self) or not _holds_frames(self.path):
                super().close()
            else:
                disk.checkpoint(self.path, super().close, lambda rule: self._close_as_it_is())
        except PowerCut:
            self._disk = disk  # for ``abandon``
            raise
        disk.closed(self)

    def abandon(self) -> None:
        """Let go of the file as it is: nothing is written, and what was begun is not committed."""
        disk, self._disk = self._disk, None
        if disk is not None:
            self._end_cursors()
            self._close_as_it_is()
            disk.closed(self)

    def _end_cursors(self) -> None:
        """One that somebody still holds, as in a traceback, would keep the file open behind our back."""
        cursors, self._cursors = self._cursors, []
        for cursor in cursors:
            if (held := cursor()) is not None:
                held.close()

    def _close_as_it_is(self) -> None:
        """SQLite does a checkpoint only for the last one who leaves: so somebody is there who cannot write."""
        if not self.path.exists():
            super().close()
            return
        try:
            keeper = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error:
            super().close()
            return
        try:
            keeper.execute("SELECT count(*) FROM sqlite_master").fetchall()
            super().close()
        finally:
            keeper.close()


def _holds_frames(path: Path) -> bool:
    try:
        return beside(path, "-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def sql_error(rule: AnyDiskRule) -> sqlite3.OperationalError:
    """What SQLite raises where the disk does what the rule says."""
    error = sqlite3.OperationalError(_SAYS[type(rule)])
    error.sqlite_errorcode = _CODES[type(rule)]
    return error
