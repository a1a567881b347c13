"""What a power cut may leave of a SQLite database in WAL mode (SQLite WAL file format; WAL-index header).

A commit appends frames to the file ``-wal`` and synchronises it. Where the power goes before that is done, any part
of those frames may be on the disk: the file may end at any byte of them, or go on with what was never written. A
checkpoint copies pages into the database while the WAL stays as it is; of their sectors each may be old or new.

How far the WAL reaches is asked of the WAL-index, which SQLite shares through the file ``-shm``.

What is not modelled: a WAL that loses frames which were synchronised, and a database that SQLite itself makes or
vacuums in rollback mode.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from terminal.clock import Random

_WAL_HEADER = 32
_FRAME_HEADER = 24
_INDEX = struct.Struct("=14xHI4x8s8s")  # page size, frames; checksum of the last one, salts
_SECTOR = 512


class _Reach(NamedTuple):
    """How far the WAL goes: its end in bytes, and the salts by which one that began anew is told from the last."""

    end: int = 0
    salts: bytes = b""


class Database:
    """One database file while a terminal has it open. ``poisoned``: a synchronisation of its WAL has failed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.poisoned = False
        self._index: int | None = None
        self._durable: int | None = None  # None: all of the WAL is
        self._checkpointing: tuple[bytes, bytes] | None = None

    @property
    def wal(self) -> Path:
        """The file beside it."""
        return beside(self.path, "-wal")

    def reach(self) -> _Reach:
        """How far the WAL goes now."""
        if self._index is None:
            try:
                self._index = os.open(beside(self.path, "-shm"), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return _Reach()
        header = os.pread(self._index, _INDEX.size, 0)
        if len(header) < _INDEX.size:
            return _Reach()
        size, frames, _, salts = _INDEX.unpack(header)
        page = 65_536 if size == 1 else size
        return _Reach(_WAL_HEADER + frames * (_FRAME_HEADER + page) if frames else 0, salts)

    def written(self, before: _Reach) -> None:
        """A commit was written, and is not synchronised yet."""
        if self.reach().salts != before.salts:  # the WAL began anew, over frames that are in the database
            self._durable, self.poisoned = 0, False
        elif self._durable is None:
            self._durable = before.end

    def synchronised(self) -> None:
        """It is now; but what a failed synchronisation has left behind no later one brings to the disk."""
        if not self.poisoned:
            self._durable = None

    def checkpointed(self) -> None:
        """All of it is in the database."""
        self._durable, self.poisoned = None, False

    def remember(self) -> None:
        """Before a checkpoint in the middle of which the power goes."""
        wal = self.wal.read_bytes() if self.wal.exists() else b""
        self._checkpointing = self.path.read_bytes(), wal

    def close(self) -> None:
        """Let go of the WAL-index."""
        if self._index is not None:
            os.close(self._index)
            self._index = None

    def lose(self, end: int, random: Random, *, everything: bool) -> Iterator[str]:
        """Leave of the files what a disk may; what became of them. Nobody has the database open any more.

        ``end``: how far the WAL went when the power did.
        """
        if self._checkpointing is not None:
            before, wal = self._checkpointing
            self.wal.write_bytes(wal)
            self.path.write_bytes(before if everything else _mixed(before, self.path.read_bytes(), random))
            yield f"{self.path.name}: a checkpoint, in part"
        elif self._durable is not None and end > self._durable and self.wal.exists():
            yield self._lose_tail(self._durable, end, random, everything=everything)
        beside(self.path, "-shm").unlink(missing_ok=True)

    def _lose_tail(self, durable: int, end: int, random: Random, *, everything: bool) -> str:
        size = end - durable
        kept = 0 if everything else _share(size, random)
        with self.wal.open("r+b") as file:
            file.truncate(durable + kept)
            if not everything and kept < size:
                file.seek(durable + kept)
                file.write(_never_written(size - kept, random))
        return f"{self.wal.name}: {kept} of {size} bytes kept"


def _share(size: int, random: Random) -> int:
    """How many bytes of a tail are there: one time in four all of it, else any number."""
    return size if random(1)[0] % 4 == 0 else int.from_bytes(random(8), "big") % (size + 1)


def _never_written(size: int, random: Random) -> bytes:
    """What may stand where nothing was written: the file's end, zeros, or noise."""
    how = random(1)[0] % 3
    if how == 0:
        return b""
    if how == 1:
        return bytes(size)
    noise = random(_SECTOR)
    return (noise * (size // _SECTOR + 1))[: 1 + int.from_bytes(random(4), "big") % size]


def _mixed(old: bytes, new: bytes, random: Random) -> bytes:
    """Sector by sector the old file or the new; it may end where either does."""
    whole = bytearray()
    sectors = range(0, max(len(old), len(new)), _SECTOR)
    chosen = random(len(sectors)) if sectors else b""
    for at, choice in zip(sectors, chosen, strict=True):
        source = new if choice & 1 else old
        whole += source[at : at + _SECTOR].ljust(_SECTOR, b"\0")
    shortest = len(old) if len(old) <= len(new) else len(new)
    while len(whole) > shortest and not any(whole[-_SECTOR:]):
        del whole[-_SECTOR:]
    return bytes(whole)


def beside(path: Path, suffix: str) -> Path:
    """The file of that name in the same folder."""
    return path.with_name(path.name + suffix)
