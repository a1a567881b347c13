"""What the host knows, durably: one SQLite file, one connection, one transaction a request.

Written ahead and synchronised on every commit (WAL, ``synchronous=FULL``): what an answer says is on the disk
before the answer leaves. Moments are whole milliseconds since 1970 in UTC. Secrets are here only as the HSM sealed
them, tokens only as their SHA-256.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from sim.host.registry import Registry

FORMAT = 1

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE merchants (client_id TEXT PRIMARY KEY, merchant_id TEXT NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE devices (
    device_id TEXT PRIMARY KEY, terminal_id TEXT NOT NULL UNIQUE, client_id TEXT NOT NULL,
    identity_key_id TEXT NOT NULL, sealed BLOB NOT NULL,
    identity_revoked INTEGER NOT NULL DEFAULT 0, revoked INTEGER NOT NULL DEFAULT 0,
    unclaimed INTEGER NOT NULL DEFAULT 0, bootstrapped_at INTEGER, claimed_at INTEGER, config_at INTEGER,
    parameters_at INTEGER, activated_at INTEGER, actions TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE pairing_codes (
    device_id TEXT PRIMARY KEY, code TEXT NOT NULL UNIQUE, expires_at INTEGER NOT NULL, used_at INTEGER
) WITHOUT ROWID;
CREATE TABLE tokens (
    sha256 BLOB PRIMARY KEY, kind TEXT NOT NULL, owner TEXT NOT NULL, expires_at INTEGER NOT NULL,
    initiated INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX tokens_by_owner ON tokens (owner, expires_at);
CREATE TABLE key_sets (
    n INTEGER PRIMARY KEY, key_set_id TEXT NOT NULL UNIQUE, device_id TEXT NOT NULL,
    mac_key_id TEXT NOT NULL UNIQUE, issued_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    state TEXT NOT NULL, sealed BLOB NOT NULL
);
CREATE INDEX key_sets_by_device ON key_sets (device_id, n);
CREATE TABLE nonces (
    device_id TEXT, nonce TEXT, until INTEGER NOT NULL, PRIMARY KEY (device_id, nonce)
) WITHOUT ROWID;
CREATE INDEX nonces_by_until ON nonces (until);
CREATE TABLE idempotency (
    terminal_id TEXT, key TEXT, endpoint TEXT NOT NULL, body_sha256 BLOB NOT NULL, status INTEGER NOT NULL,
    answer BLOB NOT NULL, not_before INTEGER, at INTEGER NOT NULL, PRIMARY KEY (terminal_id, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_at ON idempotency (at);
CREATE TABLE charges (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, terminal_id TEXT NOT NULL, idempotency_key TEXT,
    reference TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL, entry_mode TEXT NOT NULL,
    outcome TEXT NOT NULL, response_code TEXT NOT NULL, message TEXT NOT NULL, authorization_code TEXT NOT NULL,
    network TEXT NOT NULL, rrn TEXT NOT NULL, emv TEXT NOT NULL, refund_fails INTEGER NOT NULL,
    created_at INTEGER NOT NULL, pending_until INTEGER, canceled_at INTEGER, settled_at INTEGER
);
CREATE INDEX charges_by_reference ON charges (terminal_id, reference);
CREATE TABLE refunds (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, charge_id TEXT NOT NULL, terminal_id TEXT NOT NULL,
    idempotency_key TEXT, amount INTEGER NOT NULL, reason TEXT NOT NULL,
    created_at INTEGER NOT NULL, fails_at INTEGER
);
CREATE INDEX refunds_by_charge ON refunds (charge_id);
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PURGE_EVERY = 10_000  # milliseconds between two rounds of forgetting


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970, UTC."""
    return (moment - _EPOCH) // _MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    """The aware moment in UTC."""
    return _EPOCH + milliseconds * _MILLISECOND


def money(minor: int, currency: str) -> dict[str, str]:
    """An amount as the protocol writes it."""
    return {"value": str(minor), "currency": currency}


class LedgerError(Exception):
    """The ledger's file cannot be used: it is another program's, or a newer version's."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A row of ``charges``. ``amount``: what was approved, or asked where it was declined; in minor units."""

    n: int
    id: str
    terminal_id: str
    idempotency_key: str | None
    reference: str
    amount: int
    currency: str
    entry_mode: str
    outcome: str
    response_code: str
    message: str
    authorization_code: str
    network: str
    rrn: str
    emv: str
    refund_fails: int
    created_at: int
    pending_until: int | None = None
    canceled_at: int | None = None
    settled_at: int | None = None

    def pending(self, now: int) -> bool:
        """Whether the issuer has yet to answer."""
        return self.pending_until is not None and now < self.pending_until

    def settled(self, now: int, settle_after: int | None) -> bool:
        """Whether it has gone to clearing; ``settle_after`` is in seconds."""
        by_age = settle_after is not None and now >= self.created_at + 1000 * settle_after
        return self.settled_at is not None or by_age

    def status(self, refunded: int, now: int) -> str:
        """One of the protocol's words, when ``refunded`` minor units have gone back."""
        if self.outcome == "declined":
            return "declined"
        if self.canceled_at is not None:
            return "canceled"
        if self.pending(now):
            return "pending"
        if not refunded:
            return "approved"
        return "refunded" if refunded >= self.amount else "partially_refunded"


@dataclass(frozen=True, slots=True)
class Refund:
    """A row of ``refunds``; ``amount`` in minor units of its charge's currency."""

    n: int
    id: str
    charge_id: str
    terminal_id: str
    idempotency_key: str | None
    amount: int
    reason: str
    created_at: int
    fails_at: int | None

    def status(self, now: int) -> Literal["approved", "failed"]:
        """Approved, until it fails where it does."""
        return "failed" if self.fails_at is not None and now >= self.fails_at else "approved"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What an idempotency key stands for, and the answer that was given."""

    endpoint: str
    body_sha256: bytes
    status: int
    answer: bytes
    not_before: int | None


_INSERT_CHARGE = "INSERT INTO charges VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_INSERT_REFUND = "INSERT INTO refunds VALUES (NULL,?,?,?,?,?,?,?,?)"
_CHARGE_FIELDS = [field.name for field in fields(Charge)][1:]
_REFUND_FIELDS = [field.name for field in fields(Refund)][1:]


class Ledger:
    """The host's memory. Give a file's path, or ``":memory:"`` for one that does not outlive the object.

    Raises LedgerError where the file is not a ledger of this format. ``boots`` counts how often it was opened, so
    that a host with a seed does not draw the same bytes again after a restart.
    """

    def __init__(self, path: Path | str, *, max_nonces: int = 1_000_000) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise LedgerError(f"{path}: {error}") from None
        except LedgerError:
            self._connection.close()
            raise
        self.registry = Registry(self._connection)
        self._purge_at = 0
        self._max_nonces = max_nonces
        self._count_nonces()

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA busy_timeout=5000")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("PRAGMA wal_autocheckpoint=4000")  # 16 MB: a checkpoint is two synchronisations more
        (version,) = run("PRAGMA user_version").fetchone()
        if version == 0:
            self._connection.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version={FORMAT};COMMIT;")
        elif version != FORMAT:
            raise LedgerError(f"the ledger has format {version}; this program knows format {FORMAT}")
        with self.transaction():
            self.boots = int(self.fact("boots") or 0) + 1
            self.set_fact("boots", str(self.boots))

    def close(self) -> None:
        """Close the file. Nothing is lost by not calling it."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: committed and synchronised at the end, rolled back on an exception."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def fact(self, name: str) -> str | None:
        """A word that the host keeps about itself."""
        found = self._connection.execute("SELECT value FROM facts WHERE name=?", (name,)).fetchone()
        return found[0] if found else None

    def set_fact(self, name: str, value: str) -> None:
        """Keep a word."""
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (name, value))

    # --- nonces and idempotency keys --------------------------------------------------------------------------

    def forget(self, now: int, idempotency_life: int) -> None:
        """Drop nonces outside the time window and idempotency keys older than ``idempotency_life`` seconds."""
        if self._purge_at - _PURGE_EVERY <= now < self._purge_at:
            return
        self._purge_at = now + _PURGE_EVERY
        self._connection.execute("DELETE FROM nonces WHERE until < ?", (now,))
        self._connection.execute("DELETE FROM idempotency WHERE at <= ?", (now - 1000 * idempotency_life,))
        self.registry.forget(now)
        self._count_nonces()

    def _count_nonces(self) -> None:
        """An upper bound until the next round: a transaction that is rolled back may have counted one too many."""
        (self._nonces,) = self._connection.execute("SELECT count(*) FROM nonces").fetchone()

    def take_nonce(self, device_id: str, nonce: str, now: int, until: int) -> bool | None:
        """Keep a nonce until then; False when this device has used it already, None when there is no room."""
        run = self._connection.execute
        found = run("SELECT until FROM nonces WHERE device_id=? AND nonce=?", (device_id, nonce)).fetchone()
        if found and found[0] >= now:
            return False
        if self._nonces >= self._max_nonces:
            return None
        run("INSERT OR REPLACE INTO nonces VALUES (?,?,?)", (device_id, nonce, until))
        self._nonces += 1
        return True

    def recall(self, terminal_id: str, key: str, not_before: int) -> Remembered | None:
        """What the key was used for by this terminal, unless that was before ``not_before``."""
        found = self._connection.execute(
            "SELECT endpoint, body_sha256, status, answer, not_before FROM idempotency"
            " WHERE terminal_id=? AND key=? AND at > ?",
            (terminal_id, key, not_before),
        ).fetchone()
        return Remembered(*found) if found else None

    def remember(self, terminal_id: str, key: str, what: Remembered, at: int) -> None:
        """Keep what the key stands for."""
        self._connection.execute(
            "INSERT OR REPLACE INTO idempotency VALUES (?,?,?,?,?,?,?,?)",
            (terminal_id, key, what.endpoint, what.body_sha256, what.status, what.answer, what.not_before, at),
        )

    # --- charges and refunds ----------------------------------------------------------------------------------

    def add_charge(self, charge: Charge) -> None:
        """Enter a charge; its ``n`` is given by the ledger, whatever it says."""
        self._connection.execute(_INSERT_CHARGE, [getattr(charge, name) for name in _CHARGE_FIELDS])

    def add_refund(self, refund: Refund) -> None:
        """Enter a refund; its ``n`` is given by the ledger."""
        self._connection.execute(_INSERT_REFUND, [getattr(refund, name) for name in _REFUND_FIELDS])

    def charge(self, charge_id: str, terminal_id: str) -> Charge | None:
        """A terminal's own charge."""
        found = self._connection.execute(
            "SELECT * FROM charges WHERE id=? AND terminal_id=?", (charge_id, terminal_id)
        ).fetchone()
        return Charge(*found) if found else None

    def charges(self, terminal_id: str | None = None, reference: str | None = None) -> list[Charge]:
        """All charges, or those of a terminal under a reference, in the order in which they were made."""
        if terminal_id is None:
            rows = self._connection.execute("SELECT * FROM charges ORDER BY n")
        else:
            rows = self._connection.execute(
                "SELECT * FROM charges WHERE terminal_id=? AND reference=? ORDER BY n", (terminal_id, reference)
            )
        return [Charge(*row) for row in rows]

    def other_charge_id(self, terminal_id: str, charge_id: str) -> str | None:
        """The id of the terminal's last charge but this one."""
        found = self._connection.execute(
            "SELECT id FROM charges WHERE terminal_id=? AND id<>? ORDER BY n DESC LIMIT 1", (terminal_id, charge_id)
        ).fetchone()
        return found[0] if found else None

    def refund(self, refund_id: str, terminal_id: str) -> Refund | None:
        """A terminal's own refund."""
        found = self._connection.execute(
            "SELECT * FROM refunds WHERE id=? AND terminal_id=?", (refund_id, terminal_id)
        ).fetchone()
        return Refund(*found) if found else None

    def refunds(self, charge_id: str) -> list[Refund]:
        """A charge's refunds, in the order in which they were made."""
        rows = self._connection.execute("SELECT * FROM refunds WHERE charge_id=? ORDER BY n", (charge_id,))
        return [Refund(*row) for row in rows]

    def refunded(self, charge_id: str, now: int) -> int:
        """What has gone back of a charge, without the refunds that failed."""
        return sum(refund.amount for refund in self.refunds(charge_id) if refund.status(now) == "approved")

    def cancel(self, charge_id: str, at: int) -> None:
        """Void a charge."""
        self._connection.execute("UPDATE charges SET canceled_at=? WHERE id=?", (at, charge_id))

    def settle(self, at: int, charge_id: str | None = None) -> int:
        """Settle one charge, or all that are approved and not cancelled; give back how many."""
        return self._connection.execute(
            "UPDATE charges SET settled_at=?1 WHERE outcome='approved' AND canceled_at IS NULL"
            " AND settled_at IS NULL AND (pending_until IS NULL OR pending_until <= ?1) AND (?2 IS NULL OR id=?2)",
            (at, charge_id),
        ).rowcount
