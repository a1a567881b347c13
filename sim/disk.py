"""A terminal's disk on which the power may go: real files and the real SQLite, and what a disk may lose of them.

Six operations: ``commit`` (a transaction of SQLite's, or a statement outside of one that writes), ``checkpoint``
(``PRAGMA wal_checkpoint``, and the one that SQLite does when the last connection closes), ``write`` in place,
``sync`` of a file or of a directory's names, ``rename``, and ``replace`` of a whole file. Each passes three moments
of ``sim.power``: ``commit.before``, ``commit.during``, ``commit.after``; and each may meet a rule
(``sim.faults.disk``).

Once the power is gone every operation raises PowerCut, and a connection that is closed writes nothing any more.
``restart`` then does to the files what a disk may do to what was not synchronised, by the seed:

- a commit that was cut: the WAL ends at any byte of it, or goes on with zeros or noise (``sim.wal``);
- a checkpoint that was cut: any of its sectors are in the database, the WAL is whole;
- a write in place: kept, lost, or in part; each on its own, in any order;
- a rename of which the directory is not synchronised: done or not; each on its own, in any order;
- a replace that was cut: the old file, with or without a part of the new one beside it, or the new one.

Nothing here is synchronised with the real disk, as only this object's memory says what is durable: SQLite is told
``synchronous = OFF`` whatever is asked for, and what was asked for decides what a commit makes durable.

What is not modelled: files that are made, renamed or removed otherwise than through ``terminal.disk.Disk`` (they
are durable at once, as the lock and settings.toml), transactions of which a part has left SQLite's memory before
they commit, several processes, and a disk that loses what it has synchronised.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from sim.crash_connection import FULL, CrashConnection, sql_error
from sim.faults.disk import AnyDiskRule, FsyncFails, Full, Lost, Operation, PowerCutAtDisk, ReadOnly
from sim.faults.grammar import Chooser
from sim.power import Power
from sim.wal import Database, beside
from terminal.clock import Random
from terminal.disk import Disk, Unconfirmed

T = TypeVar("T")

_NUMBERS: Final = {Full: errno.ENOSPC, ReadOnly: errno.EROFS, FsyncFails: errno.EIO}


@dataclass(slots=True)
class _Write:
    """A write in place that is not synchronised: what stood there before, and how long the file was."""

    offset: int
    old: bytes
    new: bytes
    size: int
    torn: bool = False
    never: bool = False
    """Its synchronisation has failed: no later one makes it durable."""


@dataclass(slots=True)
class _Rename:
    """A rename of which the directory is not synchronised, and what had the new name before."""

    path: Path
    to: Path
    replaced: bytes | None
    never: bool = False


class CrashDisk(Disk):
    """See the module. ``faults`` are the rules in force; ``lost`` says what the last ``restart`` took away."""

    def __init__(self, power: Power, random: Random, rules: Iterable[AnyDiskRule] = ()) -> None:
        self.power, self.random = power, random
        self.faults: Chooser[AnyDiskRule] = Chooser(random, rules)
        self.lost: list[str] = []
        self._everything = False
        self._connections: dict[CrashConnection, None] = {}
        self._databases: dict[Path, Database] = {}
        self._writes: dict[Path, list[_Write]] = {}
        self._unconfirmed: dict[Path, bytes | None] = {}
        self._renames: list[_Rename] = []

    # -- terminal.disk.Disk ---------------------------------------------------------------------------------

    def connect(self, path: Path) -> sqlite3.Connection:
        """A connection whose commits and checkpoints are the disk's operations."""
        self.power.require()
        connection = sqlite3.connect(path, isolation_level=None, factory=CrashConnection)
        connection.begin_on(self, path)
        self._connections[connection] = None
        return connection

    def read(self, path: Path) -> bytes:
        """The whole file."""
        self.power.require()
        return super().read(path)

    def write(self, path: Path, offset: int, data: bytes) -> None:
        """Overwrite bytes of a file."""
        rule = self._begin("write", path)
        self._refuse(rule, path, FsyncFails)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size, old = os.fstat(descriptor).st_size, os.pread(descriptor, len(data), offset)
        finally:
            os.close(descriptor)
        super().write(path, offset, data)
        done = _Write(offset, old, data, size)
        self._writes.setdefault(path, []).append(done)
        if self._due("write", "during", rule):
            done.torn = True
            self._cut("write.during", rule)
        self._moment("write", "after", rule)

    def sync(self, path: Path) -> None:
        """What was written to the file is durable."""
        rule = self._begin("sync", path)
        self._refuse(rule, path, Full, ReadOnly)
        if isinstance(rule, FsyncFails):
            for write in self._writes.get(path, []):
                write.never = True
            for renamed in self._renamed_in(path):
                renamed.never = True
            raise _os_error(rule, path)
        self._moment("sync", "during", rule)
        left = [write for write in self._writes.pop(path, []) if write.never]
        if left:
            self._writes[path] = left
        for confirmed in [file for file in self._unconfirmed if file.parent == path]:
            del self._unconfirmed[confirmed]
        self._synchronised_names(path)
        self._moment("sync", "after", rule)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name."""
        rule = self._begin("rename", path)
        self._refuse(rule, path, FsyncFails)
        replaced = to.read_bytes() if to.exists() else None
        super().rename(path, to)
        self._writes.pop(to, None)
        if path in self._writes:
            self._writes[to] = self._writes.pop(path)
        self._renames.append(_Rename(path, to, replaced))
        self._moment("rename", "during", rule)
        self._moment("rename", "after", rule)

    def replace(self, path: Path, data: bytes) -> None:
        """Make or replace the whole file."""
        rule = self._begin("replace", path)
        self._refuse(rule, path)
        if isinstance(rule, FsyncFails):
            if self._coin():
                raise _os_error(rule, path)
            self._unconfirmed.setdefault(path, path.read_bytes() if path.exists() else None)
            super().replace(path, data)
            raise Unconfirmed(errno.EIO, os.strerror(errno.EIO), str(path))
        if self._due("replace", "during", rule):
            self._replace_in_part(path, data, old=isinstance(rule, Lost))
            self._cut("replace.during", rule)
        super().replace(path, data)
        self._writes.pop(path, None)
        self._unconfirmed.pop(path, None)
        self._synchronised_names(path.parent)
        self._moment("replace", "after", rule)

    # -- after the power has gone ---------------------------------------------------------------------------

    def restart(self, *, lose: bool = True) -> None:
        """Close what the dead terminal held, and take from the files what was not durable.

        Without ``lose`` only the process had died, and the system has kept all that it was given.
        """
        ends = {path: database.reach().end for path, database in self._databases.items()}
        for connection in tuple(self._connections):
            connection.abandon()
        self.lost = []
        for path, database in self._databases.items():
            database.close()
            if lose and path.exists():
                self.lost += database.lose(ends[path], self.random, everything=self._everything)
        if lose:
            self._lose_writes()
            self._lose_replaced()
            self._lose_renames()
        self._databases, self._writes, self._unconfirmed, self._renames = {}, {}, {}, []
        self._everything = False

    def _lose_writes(self) -> None:
        for path, writes in self._writes.items():
            if not path.exists():
                continue
            data = bytearray(path.read_bytes())
            for write in reversed(writes):
                data[write.offset : write.offset + len(write.new)] = write.old
                del data[write.size :]
            for write in writes:
                kept = self._kept(write)
                if kept:
                    data.extend(bytes(max(0, write.offset - len(data))))
                    data[write.offset : write.offset + kept] = write.new[:kept]
                self.lost.append(f"{path.name}: {kept} of {len(write.new)} bytes kept at {write.offset}")
            with path.open("r+b") as file:
                file.write(data)
                file.truncate()

    def _kept(self, write: _Write) -> int:
        """How many bytes of a write the disk has, from its beginning."""
        size = len(write.new)
        if self._everything or not size:
            return 0
        choice = self.random(1)[0] % 3
        if write.torn or choice == 1:
            return int.from_bytes(self.random(4), "big") % size
        return size if choice == 0 else 0

    def _lose_replaced(self) -> None:
        for path, old in self._unconfirmed.items():
            if not self._everything and self._coin():
                continue
            self.lost.append(f"{path.name}: the old one is back")
            if old is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(old)

    def _lose_renames(self) -> None:
        self._renames = [one for one in self._renames if one.to.exists()]
        for one in reversed(self._renames):
            os.replace(one.to, one.path)
            if one.replaced is not None:
                one.to.write_bytes(one.replaced)
        for one in self._renames:
            if not self._everything and self._coin() and one.path.exists():
                os.replace(one.path, one.to)
            else:
                self.lost.append(f"{one.path.name}: not renamed to {one.to.name}")

    def _renamed_in(self, folder: Path) -> list[_Rename]:
        return [one for one in self._renames if one.path.parent == folder]

    def _synchronised_names(self, folder: Path) -> None:
        """What the directory says is durable."""
        durable = [one for one in self._renamed_in(folder) if not one.never]
        self._renames = [one for one in self._renames if one not in durable]

    # -- an operation ---------------------------------------------------------------------------------------

    def commit(self, connection: CrashConnection, run: Callable[[], T]) -> T:
        """A statement that makes changes of SQLite's durable."""
        path = connection.path
        rule = self._begin("commit", path)
        if isinstance(rule, Full | ReadOnly) or (isinstance(rule, FsyncFails) and self._coin()):
            raise sql_error(rule)
        database = self._database(path)
        before = database.reach()
        came = run()
        database.written(before)
        if isinstance(rule, FsyncFails):
            database.poisoned = True
            raise sql_error(rule)
        if self._due("commit", "during", rule):
            self._cut("commit.during", rule)
        if connection.synchronous >= FULL:
            database.synchronised()
        self._moment("commit", "after", rule)
        return came

    def checkpoint(self, path: Path, run: Callable[[], T], otherwise: Callable[[AnyDiskRule], T]) -> T:
        """A statement that brings the WAL into the database; ``otherwise``: where the disk does not let it."""
        rule = self._begin("checkpoint", path)
        if isinstance(rule, Full | ReadOnly | FsyncFails):
            return otherwise(rule)
        database = self._database(path)
        cut = self._due("checkpoint", "during", rule)
        if cut:
            database.remember()
        came = run()
        if cut:
            self._cut("checkpoint.during", rule)
        database.checkpointed()
        self._moment("checkpoint", "after", rule)
        return came

    def closed(self, connection: CrashConnection) -> None:
        """A connection is no longer."""
        self._connections.pop(connection, None)
        if self.power.on and not self.is_open(connection.path) and connection.path in self._databases:
            self._databases.pop(connection.path).close()

    def is_open(self, path: Path, *, besides: CrashConnection | None = None) -> bool:
        """Whether there is a connection to the database, ``besides`` that one."""
        return any(one.path == path and one is not besides for one in self._connections)

    def _database(self, path: Path) -> Database:
        if path not in self._databases:
            self._databases[path] = Database(path)
        return self._databases[path]

    def _begin(self, operation: Operation, path: Path) -> AnyDiskRule | None:
        """Pass the moment before; the rule that the operation meets."""
        self.power.require()
        rule = None
        if self.faults:

            def fits(one: AnyDiskRule) -> bool:
                match = one.match
                return match.op in (None, operation) and match.file in (None, path.name)

            rule = self.faults.first(fits)
        self._moment(operation, "before", rule)
        return rule

    def _due(self, operation: str, when: str, rule: AnyDiskRule | None) -> bool:
        due = self.power.due(f"{operation}.{when}")
        return (
            due
            or (isinstance(rule, PowerCutAtDisk) and rule.when == when)
            or (isinstance(rule, Lost) and when == "during")
        )

    def _moment(self, operation: str, when: str, rule: AnyDiskRule | None) -> None:
        if self._due(operation, when, rule):
            self._cut(f"{operation}.{when}", rule)

    def _cut(self, point: str, rule: AnyDiskRule | None) -> None:
        self._everything = isinstance(rule, Lost)
        self.power.cut(point)

    def _refuse(self, rule: AnyDiskRule | None, path: Path, *as_well: type) -> None:
        if rule is not None and isinstance(rule, (Full, ReadOnly, *as_well)):
            raise _os_error(rule, path)

    def _replace_in_part(self, path: Path, data: bytes, *, old: bool) -> None:
        how = 0 if old else self.random(1)[0] % 3
        if how == 2:
            super().replace(path, data)
            return
        size = len(data) if how == 1 else int.from_bytes(self.random(4), "big") % (len(data) + 1)
        new = beside(path, ".new")
        new.touch(mode=0o600)
        new.write_bytes(data[:size])

    def _coin(self) -> bool:
        return bool(self.random(1)[0] & 1)


def _os_error(rule: AnyDiskRule, path: Path) -> OSError:
    number = _NUMBERS[type(rule)]
    return OSError(number, os.strerror(number), str(path))
