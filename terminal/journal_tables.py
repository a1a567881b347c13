"""What the records add up to, kept for look-ups: the table ``payments`` up to the checkpoint, and memory after it.

To write each payment's row and its indexes with every record would touch some ten pages a charge. So a commit
appends its record and nothing else; what has changed since the checkpoint is held in memory, made again at every
opening from the records after it (at most ``EVERY``), and written into the table all at once with the next one.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from terminal.errors import AmountError
from terminal.journal_chain import Broken, Known, Mark, Record, encoded, fold, folded, spelt, walk
from terminal.payment import OPEN, Payment

EVERY: Final = 256
"""Records after which there is a checkpoint at the latest."""

_UPSERT: Final = (
    "INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (begun) DO UPDATE SET "
    "charge_id = excluded.charge_id, open = excluded.open, news = excluded.news, mark = excluded.mark, "
    "facts = excluded.facts"
)
_decode_payment: Final = msgspec.json.Decoder(Payment)
_decode_mark: Final = msgspec.json.Decoder(Mark)


class Unreadable(Exception):
    """A row of the table cannot be read."""


class Tables:
    """The payments as the records have them. Its methods raise sqlite3.Error, Unreadable and Broken."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.seq, self.digest, self.checkpoint = 0, b"", 0
        self.base, self.base_digest = 0, b""
        self.last_at = ""
        self._tail: dict[str, Known] = {}

    def adopt(self) -> None:
        """Read what is kept, and check and fold the records since the checkpoint."""
        kept = self._db.execute("SELECT base, base_digest, checkpoint, checkpoint_digest FROM journal").fetchone()
        if kept is None or tuple(map(type, kept)) != (int, bytes, int, bytes):
            raise Unreadable
        self.base, self.base_digest, self.checkpoint, digest = kept
        rows = self._db.execute("SELECT * FROM records WHERE seq >= ? ORDER BY seq", (self.checkpoint,)).fetchall()
        self._tail, self.last_at = {}, ""
        if self.checkpoint > self.base:
            if not rows or rows[0][0] != self.checkpoint or rows[0][5] != digest:
                raise Broken(self.checkpoint, f"the chain breaks at record {self.checkpoint}")
            self.last_at = str(rows.pop(0)[1])
        elif self.checkpoint < self.base or digest != self.base_digest:
            raise Broken(self.base, f"the chain breaks at record {self.base}")
        self.seq, self.digest = self.checkpoint, digest
        for record, link in walk(rows, self.seq, self.digest):
            self._load(record)
            folded(self._tail, record)
            self.seq, self.digest, self.last_at = record.seq, link, record.at

    def act(self, record: Record, digest: bytes) -> None:
        """Let a record that was just written act."""
        self._load(record)
        fold(self._tail, record)
        self.seq, self.digest, self.last_at = record.seq, digest, record.at

    def materialise(self) -> None:
        """Write what has changed into the table: a checkpoint, inside the caller's transaction."""
        self._db.executemany(_UPSERT, [_row(known) for known in self._tail.values()])
        self._db.execute("UPDATE journal SET checkpoint = ?, checkpoint_digest = ?", (self.seq, self.digest))
        self.checkpoint = self.seq
        self._tail = {}

    def know(self, known: Known) -> None:
        """Take a payment to be so, from now until it is read again."""
        self._tail[known.payment.id] = known

    def known(self, payment_id: str) -> Known | None:
        """One payment by our id."""
        found = self._tail.get(payment_id)
        if found is None:
            rows = self._read("id = ?", (payment_id,))
            found = rows[0] if rows else None
        return found

    def select(self, where: str, values: tuple[Any, ...], fits: Callable[[Known], bool]) -> list[Known]:
        """The payments of which ``where`` holds in the table and ``fits`` in memory (the same, said twice),
        in the order in which they began."""
        found = [known for known in self._read(where, values) if known.payment.id not in self._tail]
        found += filter(fits, self._tail.values())
        return sorted(found, key=lambda known: known.begun)

    def latest(self, wanted: Callable[[Known], bool], limit: int) -> Iterable[Known]:
        """The latest payments, the last first, for as long as they are ``wanted``; at most ``limit``."""
        rows = self._db.execute(
            "SELECT begun, news, mark, facts FROM payments ORDER BY begun DESC LIMIT ?", (limit,)
        )
        memory = sorted(self._tail.values(), key=lambda known: -known.begun)
        in_table = (known for row in rows if (known := _known(row)).payment.id not in self._tail)
        merged = heapq.merge(memory, in_table, key=lambda known: -known.begun)
        for count, known in enumerate(merged):
            if count == limit or not wanted(known):
                break
            yield known

    def _load(self, record: Record) -> None:
        """Have what a record is about to change in memory."""
        for payment_id in (record.payment_id, *record.acknowledged):
            if payment_id not in self._tail and (known := self.known(payment_id)) is not None:
                self._tail[payment_id] = known

    def _read(self, where: str, values: tuple[Any, ...]) -> list[Known]:
        # ``where`` is always a literal of the journal's.
        sql = f"SELECT begun, news, mark, facts FROM payments WHERE {where} ORDER BY begun"  # noqa: S608
        return [_known(row) for row in self._db.execute(sql, values).fetchall()]


def _row(known: Known) -> tuple[Any, ...]:
    payment = known.payment
    return (
        known.begun,
        payment.id,
        payment.kind,
        payment.reference,
        payment.charge_id,
        payment.state in OPEN,
        known.news,
        None if known.mark is None else msgspec.json.encode(known.mark),
        encoded(spelt(payment)),
    )


@lru_cache(maxsize=2048)  # those of the last minutes are read at every charge and at every start
def _known(row: tuple[Any, ...]) -> Known:
    begun, news, mark, facts = row
    try:
        payment = _decode_payment.decode(facts)
        return Known(begun, payment, None if mark is None else _decode_mark.decode(mark), bool(news))
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, AmountError):
        raise Unreadable from None
