"""A damaged journal set aside whole, and a new one begun with what can be proved of it. Never done unasked."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from terminal import journal_swap, side_store
from terminal.clock import Random, system_random
from terminal.disk import REAL, Disk
from terminal.errors import JournalDamaged, JournalError
from terminal.journal import Journal
from terminal.journal_chain import (
    Broken,
    Care,
    Known,
    SealedRequest,
    first_digest,
    folded,
    walk,
)
from terminal.journal_compaction import kept_digest, read_base
from terminal.journal_file import APPLICATION_ID, FORMAT, checked_id, keys_path, translated
from terminal.journal_swap import Plan
from terminal.payment import OPEN, Payment

_CHUNK: Final = 1024 * 1024
_MAX_REST: Final = 10**9  # records: beyond that, a number is itself damaged


@dataclass(frozen=True)
class SetAside:
    """What came of it.

    ``moved`` are the old files where they are now, and ``report`` is where this stands beside them, but for the
    payments; ``records`` is how many were proved, ``breaks_at`` the number of
    the first that was not (0: the chain holds to its end) and ``why``; ``carried`` are the payments of the new
    journal, of which ``unresolved`` are open; ``unproved`` are the ids of payments that the rest of the old journal
    speaks of: look at these by hand, with the host.
    """

    moved: tuple[Path, ...]
    report: Path
    records: int
    breaks_at: int
    why: str
    carried: tuple[Payment, ...]
    unresolved: tuple[Payment, ...]
    unproved: tuple[str, ...]


@dataclass
class _Proved:
    """The part of a chain that holds."""

    records: int = 0
    last: int = 0
    digest: bytes = b""
    breaks_at: int = 0
    why: str = ""
    known: dict[str, Known] = field(default_factory=dict)
    requests: dict[str, SealedRequest] = field(default_factory=dict)
    unproved: set[str] = field(default_factory=set)
    kept: str = ""
    gone: list[tuple[str, int, int]] = field(default_factory=list)
    """The totals of what had left by compaction: rows of the table."""


def set_aside(
    path: Path,
    journal_id: str,
    *,
    now: datetime,
    at_least: int = 0,
    disk: Disk = REAL,
    random: Random = system_random,
) -> SetAside:
    """Move the journal at ``path`` to ``<name>.damaged-<UTC time>``, and begin a new one in its place.

    The new one's first record names the SHA-256 of the old file, and where its chain breaks; every payment that the
    chain proves up to there follows, and its sealed request where that can still be opened. Records are numbered
    on from the last that the old journal had or should have had (``at_least``, from the vault). The old keys are
    destroyed then: what was sealed is kept once. A power cut leaves one of the two (``journal_swap``); where an
    earlier call was cut short with the new one complete, this one finishes it and does nothing else. Only while
    nobody else has the journal open. Raises JournalError where there is none, JournalTooNew where nothing is wrong
    with it but that a newer version wrote it, JournalUnwritable.
    """
    plan = journal_swap.settle(path, disk, random)
    if plan is not None:
        with contextlib.closing(Journal.read(path)) as journal:
            return _told(path, plan, tuple(journal.payments()))
    if not path.is_file():
        raise JournalError(f"{path} is missing: there is nothing to set aside", advice="Restore it from a copy.")
    _refuse_newer(path)
    with translated(path):
        proved = _proved(path, journal_id, disk)
        aside = journal_swap.aside_name(path, now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ"))
        facts = {
            "file": aside,
            "sha256": _digest(path),
            "records": proved.records,
            "digest": proved.digest.hex(),
            "breaks_at": proved.breaks_at,
        }
        after = max(at_least, proved.last)
        carried = _begin(path, journal_id, after, facts, proved, now, disk, random)
    plan = Plan(
        aside=aside,
        sides=journal_swap.sides_of(path),
        records=proved.records,
        breaks_at=proved.breaks_at,
        why=proved.why,
        unproved=tuple(sorted(proved.unproved)),
    )
    journal_swap.swap(path, plan, disk, random)
    return _told(path, plan, carried)


def _begin(
    path: Path,
    journal_id: str,
    after: int,
    facts: dict[str, Any],
    proved: _Proved,
    now: datetime,
    disk: Disk,
    random: Random,
) -> tuple[Payment, ...]:
    """Make the new journal of ``path``, whole and durable; what it took over."""
    new = journal_swap.next_path(path)
    try:
        with contextlib.closing(Journal.create(new, journal_id, after=after, disk=disk, random=random)) as journal:
            taken = [(known, proved.requests.get(name)) for name, known in proved.known.items()]
            journal.carry(facts, taken, proved.gone, now)
            carried = tuple(journal.payments())
        journal_swap.complete(new, disk)
    except JournalError:
        journal_swap.discard(path)
        raise
    return carried


def _told(path: Path, plan: Plan, carried: tuple[Payment, ...]) -> SetAside:
    return SetAside(
        moved=plan.moved(path.parent),
        report=plan.report(path.parent),
        records=plan.records,
        breaks_at=plan.breaks_at,
        why=plan.why,
        carried=carried,
        unresolved=tuple(payment for payment in carried if payment.state in OPEN),
        unproved=plan.unproved,
    )


def _refuse_newer(path: Path) -> None:
    with contextlib.suppress(sqlite3.Error, JournalDamaged), contextlib.closing(_looking(path)) as db:
        checked_id(path, db, None)


def _looking(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _proved(path: Path, journal_id: str, disk: Disk) -> _Proved:
    """Read as far as it goes; what SQLite cannot read ends it like a link that does not hold."""
    found = _Proved(digest=first_digest(journal_id))
    db: sqlite3.Connection | None = None
    try:
        db = _looking(path)
        _read(db, journal_id, found)
    except Broken as broken:
        found.breaks_at, found.why = broken.seq, str(broken)
    except (sqlite3.Error, ValueError, msgspec.MsgspecError) as error:
        found.breaks_at, found.why = found.last + 1, f"the file cannot be read on: {type(error).__name__}"
    if db is not None:
        for rest in (_read_totals, _read_rest, _read_requests):
            with contextlib.suppress(sqlite3.Error, ValueError, msgspec.MsgspecError, OSError):
                rest(db, path, disk, found)
        with contextlib.suppress(sqlite3.Error):
            db.close()
    return found


def _read(db: sqlite3.Connection, journal_id: str, found: _Proved) -> None:
    mine = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    kept = db.execute("SELECT id, base, base_digest FROM journal").fetchone()
    if mine != [APPLICATION_ID, FORMAT] or kept is None or kept[0] != journal_id:
        raise Broken(1, "it is not this terminal's journal, or not of this format")
    found.last, found.digest = kept[1], kept[2]
    known = read_base(db)
    rows = db.execute("SELECT * FROM records ORDER BY seq")
    for record, digest in walk(rows, found.last, found.digest):
        folded(known, record)
        found.records, found.last, found.digest = found.records + 1, record.seq, digest
        found.known = known
        if record.happened is Care.COMPACTED:
            found.kept = record.facts["kept"]
    if found.kept not in ("", kept_digest(db)):
        found.known = {}
        raise Broken(kept[1], "what was kept of the records that were removed is not what it was")


def _read_totals(db: sqlite3.Connection, path: Path, disk: Disk, found: _Proved) -> None:
    if found.kept and found.kept == kept_digest(db):
        found.gone = db.execute("SELECT key, count, minor FROM totals").fetchall()


def _read_rest(db: sqlite3.Connection, path: Path, disk: Disk, found: _Proved) -> None:
    """The payments of which the unproved rest speaks, and the highest number there."""
    highest = found.last + _MAX_REST
    for seq, payment_id in db.execute("SELECT seq, payment_id FROM records WHERE seq > ?", (found.last,)):
        if isinstance(payment_id, str) and payment_id:
            found.unproved.add(payment_id)
        if isinstance(seq, int) and seq <= highest:
            found.last = max(found.last, seq)
    for (payment_id,) in db.execute("SELECT id FROM payments"):
        if isinstance(payment_id, str) and payment_id not in found.known:
            found.unproved.add(payment_id)


def _read_requests(db: sqlite3.Connection, path: Path, disk: Disk, found: _Proved) -> None:
    keys = disk.read(keys_path(path))
    for payment_id, known in found.known.items():
        if known.mark is None:
            continue
        row = db.execute("SELECT body FROM sealed WHERE slot = ?", (known.mark.slot,)).fetchone()
        key = keys[known.mark.slot * side_store.SLOT :][: side_store.SLOT]
        request = side_store.opened(key, payment_id, known.mark, row[0]) if row else None
        if request is not None:
            found.requests[payment_id] = request


def _digest(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            whole.update(part)
    return whole.hexdigest()
