"""What a journal may lack: what it says of that itself.

A terminal restored from an old image goes on as if nothing had happened since: between the last record of the image
and the first one after it lies the time that is missing. A journal that follows a damaged one may lack whatever
could not be proved. And what has left by compaction is not missing, but no longer known either.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from terminal.clock import parse_rfc3339
from terminal.journal_chain import Care

LATEST: Final = 500
"""How many of the latest records are looked at for a time in which nothing was written."""
_HOUR, _MINUTE = len("2025-12-13T14"), len("2025-12-13T14:25")
"""Characters up to which two moments of the same hour, or minute, are the same: to read them is not needed."""


def follows_another(db: sqlite3.Connection) -> bool:
    """Whether it took the place of a journal that was set aside, and what it took over is still there (or never
    came to be written)."""
    first = db.execute("SELECT happened FROM records ORDER BY seq LIMIT 1").fetchone()
    return bool(_base(db)) if first is None else first[0] == Care.SUCCEEDS


def rested(db: sqlite3.Connection, memory: timedelta) -> bool:
    """Whether more than ``memory`` lies between two of the latest records. Raises ValueError."""
    latest = "SELECT at FROM records ORDER BY seq DESC LIMIT ?"
    first, last = db.execute(f"SELECT min(at), max(at) FROM ({latest})", (LATEST,)).fetchone()  # noqa: S608
    if first is None or parse_rfc3339(last) - parse_rfc3339(first) <= memory:  # they are spelt in their order
        return False
    rows = db.execute(latest, (LATEST,)).fetchall()
    same = _HOUR if memory >= timedelta(hours=1) else _MINUTE
    return any(
        later[:same] != earlier[:same] and parse_rfc3339(later) - parse_rfc3339(earlier) > memory
        for (later,), (earlier,) in pairwise(rows)
    )


def kept_since(db: sqlite3.Connection) -> datetime | None:
    """The moment of the first record that compaction has left; None where it has never removed any.

    Raises ValueError.
    """
    if not _base(db) or follows_another(db):
        return None
    return parse_rfc3339(db.execute("SELECT at FROM records ORDER BY seq LIMIT 1").fetchone()[0])


def _base(db: sqlite3.Connection) -> int:
    """The number of the last record that is not there any more."""
    return int(db.execute("SELECT base FROM journal").fetchone()[0])
