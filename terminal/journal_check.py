"""The whole chain, and whether the tables are what it adds up to: what ``till journal --verify`` asks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from terminal.journal_chain import Broken, Care, folded, walk
from terminal.journal_compaction import kept_digest, read_base
from terminal.journal_tables import Tables


class Unsound(Exception):
    """The file is not what we wrote; the message says where."""


def check(db: sqlite3.Connection, rows: Iterable[Any], tables: Tables, first: bytes) -> int:
    """The number of records that hold; ``first`` is what the journal's first record is bound to.

    Raises Broken, Unsound, sqlite3.Error, ValueError or msgspec.MsgspecError.
    """
    if (verdict := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
        raise Unsound(str(verdict))
    known = read_base(db)
    count, base, last = 0, {}, tables.base_digest
    for record, digest in walk(rows, tables.base, tables.base_digest):
        folded(known, record)
        count, last = count + 1, digest
        if record.happened is Care.COMPACTED:
            base = record.facts
    if last != tables.digest:
        raise Broken(tables.seq, f"the chain breaks at record {tables.seq}")
    expected = {"base": tables.base, "digest": tables.base_digest.hex(), "kept": kept_digest(db)}
    if base != expected and (base or tables.base_digest != first):
        raise Unsound("what was kept of the records that were removed is not what it was")
    kept = {each.payment.id: each for each in tables.select("1", (), lambda known: True)}
    for payment_id in kept.keys() | known.keys():
        ours, theirs = kept.get(payment_id), known.get(payment_id)
        if ours is None or theirs is None or (ours.begun, ours.payment) != (theirs.begun, theirs.payment):
            raise Unsound(f"payment {payment_id} is not what its records add up to")
    return count
