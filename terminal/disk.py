"""The disk, as it is handed in: every way in which the terminal's state reaches it.

A simulated disk is a subclass that comes between: it may count, refuse, lose what was not synchronised, or cut the
power before or after any of these.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o600
_MAX_READ: Final = 256 * 1024 * 1024


class Unconfirmed(OSError):
    """A file was replaced, but a power cut might still bring the old one back."""


class Disk:
    """Files of mode 0600, and SQLite connections. Every method but ``connect`` raises OSError."""

    connection: type[sqlite3.Connection] = sqlite3.Connection
    """The class of a connection. Whoever uses one begins, commits and checkpoints by ``execute`` alone: ``BEGIN
    IMMEDIATE``, ``COMMIT``, ``ROLLBACK``, ``PRAGMA wal_checkpoint(...)``."""

    def connect(self, path: Path) -> sqlite3.Connection:
        """A connection that leaves transactions to its user. Raises sqlite3.Error."""
        return sqlite3.connect(path, isolation_level=None, factory=self.connection)

    def read(self, path: Path) -> bytes:
        """The whole file, or its first 256 MiB."""
        with path.open("rb") as file:
            return file.read(_MAX_READ)

    def write(self, path: Path, offset: int, data: bytes) -> None:
        """Overwrite bytes of a file that is there, or go on at its end; durable only after ``sync``."""
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            _write_whole(descriptor, offset, data)
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """Return only when what was written to the file, or (for a directory) its list of names, is durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name in its directory, in place of what has that name; durable only after the
        directory is synchronised."""
        os.replace(path, to)

    def replace(self, path: Path, data: bytes) -> None:
        """Make or replace the whole file, durably: at every moment the old one or the new one is there, entire.

        A new file in the same directory, synchronised, renamed over the old one, the directory synchronised.
        Leaves the old file where it raises; only Unconfirmed says that the new one is in its place.
        """
        new = path.with_name(path.name + ".new")
        with _directory(path.parent) as directory:
            new.unlink(missing_ok=True)  # a power cut has left it
            try:
                _write_new(new, data)
                os.replace(new, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    new.unlink(missing_ok=True)
                raise
            try:
                os.fsync(directory)
            except OSError as problem:
                raise Unconfirmed(problem.errno, os.strerror(problem.errno or 0)) from None


REAL: Final = Disk()
"""The machine's own."""


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    """The directory, opened before anything is written, so that to synchronise it needs nothing more."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _PRIVATE)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
