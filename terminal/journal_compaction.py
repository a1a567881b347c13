"""What is old taken out of the journal: the records before a day, and the payments that ended before it.

The chain goes on from the last record that was removed: its number and digest stay as the base, and with them, in
the table ``base``, what the removed records had made of the payments that are kept. A record at the chain's end
is bound to both, and to the totals of what was removed.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from terminal.journal_chain import Known, Mark, folded, spelt, walk
from terminal.journal_tables import Tables
from terminal.payment import OPEN, Payment
from terminal.totals import Bucket, Total


@dataclass(frozen=True)
class Compacted:
    """What was done: the facts of the record that says so, and how many payments are gone."""

    facts: dict[str, Any]
    payments: int


class _Kept(msgspec.Struct, frozen=True):
    payment: Payment
    mark: Mark | None = None


def compact(
    db: sqlite3.Connection, rows: Iterable[Any], tables: Tables, before: str, scheme: Callable[[str], str]
) -> Compacted | None:
    """Do it, inside the caller's transaction; ``tables`` are to be read again after. None: there is nothing old.

    ``before`` is RFC 3339. Raises sqlite3.Error and Broken: what does not hold is not compacted.
    """
    known, cut, digest = read_base(db), tables.base, tables.base_digest
    for record, link in walk(rows, tables.base, tables.base_digest):
        if record.at >= before:
            break
        folded(known, record)
        cut, digest = record.seq, link
    if cut == tables.base:
        return None
    changed = {each for (each,) in db.execute("SELECT DISTINCT payment_id FROM records WHERE seq > ?", (cut,))}
    news = {each for (each,) in db.execute("SELECT id FROM payments WHERE news = 1")}
    families = {
        _family(each.payment)
        for each in known.values()
        if each.payment.state in OPEN or each.payment.id in changed or each.payment.id in news
    }
    gone = [each for each in known.values() if _family(each.payment) not in families]
    for bucket, total in _summed((each.payment for each in gone), scheme).items():
        db.execute(
            "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "count = count + excluded.count, minor = minor + excluded.minor",
            ("|".join(bucket), total.count, total.minor),
        )
    db.execute("UPDATE journal SET base = ?, base_digest = ?", (cut, digest))
    db.execute("DELETE FROM records WHERE seq <= ?", (cut,))
    db.executemany("DELETE FROM payments WHERE begun = ?", [(each.begun,) for each in gone])
    db.execute("DELETE FROM base")
    kept = [each for each in known.values() if _family(each.payment) in families]
    db.executemany(
        "INSERT INTO base VALUES (?, ?)",
        [(each.begun, msgspec.json.encode({"payment": spelt(each.payment), "mark": each.mark})) for each in kept],
    )
    return Compacted({"base": cut, "digest": digest.hex(), "kept": kept_digest(db)}, len(gone))


def take_over(db: sqlite3.Connection, tables: Tables, gone: Iterable[tuple[str, int, int]]) -> dict[str, Any]:
    """Have the totals of what another journal had removed in one that follows it, inside the caller's transaction;
    the facts of the record that binds them. Raises sqlite3.Error."""
    db.executemany("INSERT INTO totals VALUES (?, ?, ?)", gone)
    return {"base": tables.base, "digest": tables.base_digest.hex(), "kept": kept_digest(db)}


def read_base(db: sqlite3.Connection) -> dict[str, Known]:
    """What the removed records had made of the payments that were kept. Raises msgspec.MsgspecError."""
    found = {}
    for begun, facts in db.execute("SELECT begun, facts FROM base ORDER BY begun"):
        kept = msgspec.json.decode(facts, type=_Kept)
        found[kept.payment.id] = Known(begun, kept.payment, kept.mark)
    return found


def kept_digest(db: sqlite3.Connection) -> str:
    """SHA-256 over what was kept of the removed records and over the totals, in hex."""
    rows = [list(row) for row in db.execute("SELECT begun, facts FROM base ORDER BY begun")]
    rows += [list(row) for row in db.execute("SELECT key, count, minor FROM totals ORDER BY key")]
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()


def totals(
    db: sqlite3.Connection, payments: Iterable[Payment], scheme: Callable[[str], str]
) -> dict[Bucket, Total]:
    """The totals of these payments, and of those that are gone. Raises ValueError."""
    found = _summed(payments, scheme)
    for key, count, minor in db.execute("SELECT key, count, minor FROM totals"):
        bucket = Bucket(*key.split("|"))
        earlier = found.get(bucket, Total(0, 0))
        found[bucket] = Total(earlier.count + count, earlier.minor + minor)
    return dict(sorted(found.items()))


def _summed(payments: Iterable[Payment], scheme: Callable[[str], str]) -> dict[Bucket, Total]:
    found: dict[Bucket, Total] = {}
    payments = list(payments)
    charges = {payment.id: payment for payment in payments}
    for payment in payments:
        amount = payment.approved or payment.amount
        of = charges.get(payment.parent, payment)
        bucket = Bucket(
            payment.created_at.date().isoformat(),
            amount.currency,
            scheme(of.masked_pan),
            of.entry_mode,
            payment.kind.value,
            payment.state.value,
        )
        earlier = found.get(bucket, Total(0, 0))
        found[bucket] = Total(earlier.count + 1, earlier.minor + amount.minor)
    return found


def _family(payment: Payment) -> str:
    """A charge and what concerns it stay or go together."""
    return payment.parent or payment.id
