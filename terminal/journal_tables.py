"""What the records add up to, kept for look-ups: the table ``payments`` up to the checkpoint, and memory after it.

To write each payment's row and its indexes with every record would touch some ten pages a charge. So a commit
appends its record and nothing else; what has changed since the checkpoint is held in memory, made again at every
opening from the records after it (at most ``EVERY``), and written into the table all at once with the next one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import msgspec

from terminal.errors import AmountError
from terminal.journal_chain import Broken, Known, Mark, Record, encoded, fold, folded, spelt, walk
from terminal.payment import OPEN, Happened, Payment

EVERY: Final = 256
"""Records after which there is a checkpoint at the latest."""
RECENT: Final = 1000
"""How many of the latest payments are looked at, and stay in memory once they were."""
_BATCH: Final = 64
"""So many of them are read at a time: mostly the last few are enough."""

_UPSERT: Final = (
    "INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (begun) DO UPDATE SET "
    "charge_id = excluded.charge_id, open = excluded.open, news = excluded.news, mark = excluded.mark, "
    "facts = excluded.facts"
)
_decode_payment: Final = msgspec.json.Decoder(Payment)
_decode_mark: Final = msgspec.json.Decoder(Mark)


class Unreadable(Exception):
    """A row of the table cannot be read."""


Fits = Callable[[Known], bool]


class _Listed:
    """The payments of which something holds (``where`` in the table, ``fits`` in memory: the same, said twice), in
    memory from when they are first asked for: they are few, and asked for at every turn."""

    def __init__(self, where: str, fits: Fits) -> None:
        self._where, self._fits = where, fits
        self._found: dict[int, Known] | None = None

    def forget(self) -> None:
        """Ask the table again."""
        self._found = None

    def changed(self, known: Known) -> None:
        """A payment is like this now."""
        if self._found is not None:
            if self._fits(known):
                self._found[known.begun] = known
            else:
                self._found.pop(known.begun, None)

    def of(self, tables: Tables) -> list[Known]:
        """They, in the order in which they began."""
        if self._found is None:
            self._found = {known.begun: known for known in tables.select(self._where, (), self._fits)}
        return [self._found[begun] for begun in sorted(self._found)]


class _Tail(dict[str, Known]):
    """What has changed since the checkpoint, by our id; and by the reference and the host's id of the charge."""

    def __init__(self) -> None:
        super().__init__()
        self._named: dict[str, dict[str, None]] = {}

    def __setitem__(self, payment_id: str, known: Known) -> None:
        super().__setitem__(payment_id, known)
        for name in filter(None, (known.payment.reference, known.payment.charge_id)):
            self._named.setdefault(name, {})[payment_id] = None

    def named(self, name: str) -> list[Known]:
        """Those that bear a name, or bore it once."""
        return [self[payment_id] for payment_id in self._named.get(name, ())]


class Tables:
    """The payments as the records have them. Its methods raise sqlite3.Error, Unreadable and Broken."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.seq, self.digest, self.checkpoint = 0, b"", 0
        self.base, self.base_digest = 0, b""
        self.last_at = ""
        self._tail = _Tail()
        self._open = _Listed("open = 1", lambda known: known.payment.state in OPEN)
        self._news = _Listed("news = 1", lambda known: known.news)
        self._latest: dict[int, Known] | None = None
        self._reaches_back = False

    def adopt(self) -> None:
        """Read what is kept, and check and fold the records since the checkpoint."""
        kept = self._db.execute("SELECT base, base_digest, checkpoint, checkpoint_digest FROM journal").fetchone()
        if kept is None or tuple(map(type, kept)) != (int, bytes, int, bytes):
            raise Unreadable
        self.base, self.base_digest, self.checkpoint, digest = kept
        rows = self._db.execute("SELECT * FROM records WHERE seq >= ? ORDER BY seq", (self.checkpoint,)).fetchall()
        self._tail, self.last_at = _Tail(), ""
        self._latest = None
        self._open.forget()
        self._news.forget()
        if self.checkpoint > self.base:
            if not rows or rows[0][0] != self.checkpoint or rows[0][5] != digest:
                raise Broken(self.checkpoint, f"the chain breaks at record {self.checkpoint}")
            self.last_at = str(rows.pop(0)[1])
        elif self.checkpoint < self.base or digest != self.base_digest:
            raise Broken(self.base, f"the chain breaks at record {self.base}")
        self.seq, self.digest = self.checkpoint, digest
        for record, link in walk(rows, self.seq, self.digest):
            self._load(record.concerns)
            folded(self._tail, record)
            self.seq, self.digest, self.last_at = record.seq, link, record.at

    def act(self, record: Record, digest: bytes) -> None:
        """Let a record that is about to be written act; one that begins a payment is known to be the first."""
        self._load(record.acknowledged if record.happened is Happened.JOURNALLED else record.concerns)
        fold(self._tail, record)
        for payment_id in record.concerns:
            if payment_id in self._tail:
                self._changed(self._tail[payment_id])
        self.seq, self.digest, self.last_at = record.seq, digest, record.at

    def materialise(self) -> None:
        """Write what has changed into the table: a checkpoint, inside the caller's transaction."""
        self._db.executemany(_UPSERT, [_row(known) for known in self._tail.values()])
        self._db.execute("UPDATE journal SET checkpoint = ?, checkpoint_digest = ?", (self.seq, self.digest))
        self.checkpoint = self.seq
        self._tail = _Tail()

    def know(self, known: Known) -> None:
        """Take a payment to be so, from now until it is read again."""
        self._tail[known.payment.id] = known
        self._changed(known)

    def known(self, payment_id: str) -> Known | None:
        """One payment by our id."""
        found = self._tail.get(payment_id)
        if found is None:
            rows = self._read("id = ?", (payment_id,))
            found = rows[0] if rows else None
        return found

    def open(self) -> list[Known]:
        """Those with which something is still to be done, in the order in which they began."""
        return self._open.of(self)

    def news(self) -> list[Known]:
        """Those with an outcome that has not been acknowledged, in that order too."""
        return self._news.of(self)

    def select(self, where: str, values: tuple[Any, ...], fits: Fits, name: str = "") -> list[Known]:
        """The payments of which ``where`` holds in the table and ``fits`` in memory (the same, said twice), in the
        order in which they began. ``name``: the reference or the host's id that all of them bear."""
        found = [known for known in self._read(where, values) if known.payment.id not in self._tail]
        found += filter(fits, self._tail.named(name) if name else self._tail.values())
        return sorted(found, key=lambda known: known.begun)

    def latest(self) -> Iterator[Known]:
        """The latest payments, the last first; at most ``RECENT``. Nothing may be written meanwhile."""
        if self._latest is None:
            fresh = [known for known in self._tail.values() if known.begun > self.checkpoint]
            self._latest = {known.begun: known for known in sorted(fresh, key=lambda known: known.begun)[-RECENT:]}
            self._reaches_back = False
        told = 0
        while True:
            yield from islice(reversed(self._latest.values()), told, None)
            told = len(self._latest)
            if self._reaches_back or told >= RECENT:
                return
            self._read_back(RECENT - told)

    def _read_back(self, room: int) -> None:
        """Have some more of the latest in memory, older than those that are."""
        latest = self._latest or {}
        before, batch = next(iter(latest), self.checkpoint + 1), min(room, _BATCH)
        sql = "SELECT begun, news, mark, facts FROM payments WHERE begun < ? ORDER BY begun DESC LIMIT ?"
        older = [_known(row) for row in self._db.execute(sql, (before, batch)).fetchall()]
        self._reaches_back = len(older) < batch
        read = {known.begun: self._tail.get(known.payment.id, known) for known in reversed(older)}
        self._latest = read | latest

    def _changed(self, known: Known) -> None:
        self._open.changed(known)
        self._news.changed(known)
        if self._latest is not None and known.begun >= next(iter(self._latest), self.checkpoint + 1):
            self._latest[known.begun] = known
            if len(self._latest) > RECENT:
                del self._latest[next(iter(self._latest))]

    def _load(self, payment_ids: Iterable[str]) -> None:
        """Have what is about to change in memory."""
        for payment_id in payment_ids:
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
