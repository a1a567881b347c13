"""What the journal costs: its commit, the bytes of a charge on the disk, and a start with a long past."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from terminal.clock import system_now
from terminal.disk import REAL
from terminal.journal import Journal, SealedRequest
from terminal.journal_chain import encoded, link, spelt
from terminal.journal_file import connect
from terminal.money import Amount
from terminal.payment import Happened, Kind, Payment, State
from tests.bench.measure import Figure, Work, alternate

AMOUNT: Final = Amount(1250, "EUR")
PAST: Final = 100_000
OPEN: Final = 50
COUNTED: Final = 512
"""Charges over which bytes are counted: whole rounds of tidying."""


def charge(number: int) -> Payment:
    """A charge as the terminal begins it."""
    return Payment(
        id=os.urandom(16).hex(),
        kind=Kind.CHARGE,
        reference=f"order-{number}",
        amount=AMOUNT,
        created_at=system_now(),
        entry_mode="swipe",
        masked_pan="476173******0119",
        card=os.urandom(16).hex(),
    )


def sealed() -> SealedRequest:
    """As long as a charge's envelope: hex digits of what cannot be packed."""
    return SealedRequest("ks_1", os.urandom(600).hex().encode())


def take(journal: Journal, payment: Payment, request: SealedRequest) -> None:
    """The two commits of a charge."""
    journal.begin(payment, request)
    journal.record(
        payment.id,
        Happened.APPROVED,
        system_now(),
        charge_id=f"ch_{payment.id[:24]}",
        authorization_code="A1B2C3",
        response_code="00",
        approved=AMOUNT,
    )


def committing(rounds: int = 401) -> Iterator[Figure]:
    """A charge's two commits, against two bare ones of the same bytes: the same settings, page and disk."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="till-bench-")))
        journal = Journal.create(folder / "journal.db", "bench")
        stack.callback(journal.close)
        coming = iter([(charge(number), sealed()) for number in range(rounds + 2)])
        take(journal, *next(coming))
        sizes = written(folder / "journal.db")
        rows = [os.urandom(size) for size in sizes]
        bare = connect(folder / "bare.db", REAL)
        stack.callback(bare.close)
        bare.execute("CREATE TABLE bare (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL)")

        def ours() -> None:
            take(journal, *next(coming))

        def theirs() -> None:
            for row in rows:
                bare.execute("BEGIN IMMEDIATE")
                bare.execute("INSERT INTO bare (bytes) VALUES (?)", (row,))
                bare.execute("COMMIT")

        yield alternate({"ours": ours, "theirs": theirs}, operations=2, rounds=rounds, clock=_wall).figure(
            "journal_commit",
            "ours",
            "theirs",
            bound=1.3,
            about=f"a commit of the journal, of the two of a charge / a bare SQLite commit of the same bytes "
            f"({sizes[0]} and {sizes[1]}), same settings, on the wall",
        )


def written(path: Path) -> tuple[int, int]:
    """Bytes of the rows that the two commits of the only charge wrote."""
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
        rows = db.execute(
            "SELECT length(at) + length(payment_id) + length(happened) + length(facts) + length(digest) FROM records"
        ).fetchall()
        body = db.execute("SELECT length(body) FROM sealed").fetchone()
    db.close()
    return rows[0][0] + body[0], rows[1][0]


def _wall() -> float:
    return time.perf_counter()
