"""The journal's WAL, written ahead: a commit then overwrites bytes that the file has already.

Where a commit makes a file longer, to synchronise it has the file system write its own tables too: that is half of
the time, and a third of what reaches the disk. So zeros are put after the WAL's end between payments, those of some
twenty charges at a time, until SQLite begins the WAL anew; then it uses the same bytes again. To SQLite zeros are
no frames, as their salts are not the header's (SQLite database file format, section 4.1), and on a disk that fills
up they are room that the next payments have for sure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from terminal.disk import Disk

AHEAD: Final = 128 * 1024
"""Bytes that the WAL grows by at a time."""


class Ahead:
    """The WAL beside the database at ``path``, which is open. Every method raises OSError where the disk fails."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._wal, self._disk = path.with_name(path.name + "-wal"), disk
        self._size: int | None = None

    def is_used(self) -> bool:
        """Whether SQLite has come to the end of what was written ahead, or nothing ever was."""
        size = self._wal.stat().st_size if self._wal.exists() else 0
        if self._size is None and size >= AHEAD:
            self._size = size  # of a process that died; the next commits may well have room in it
        return 0 < size != self._size

    def write(self) -> None:
        """Write more zeros; they are durable only after ``sync``."""
        size = self._wal.stat().st_size
        self._disk.write(self._wal, size, bytes(AHEAD))
        self._size = size + AHEAD

    def sync(self) -> None:
        """Make them durable."""
        self._disk.sync(self._wal)
