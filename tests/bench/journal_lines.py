"""What the journal costs: its commit, the bytes of a charge on the disk, and a start with a long past."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from terminal.clock import rfc3339, system_now
from terminal.disk import REAL
from terminal.journal import Journal, SealedRequest
from terminal.journal_chain import first_facts
from terminal.journal_file import connect
from terminal.money import Amount
from terminal.payment import Happened, Kind, Payment
from tests.bench.measure import Figure, Work, alternate

AMOUNT: Final = Amount(1250, "EUR")
PAST: Final = 100_000
YEAR: Final = timedelta(days=365)
OPEN: Final = 50
AGED: Final = 200
"""Charges before those that are timed."""
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
    """A charge's envelope as the terminal makes it, of 846 bytes; what it holds cannot be packed."""
    ciphertext, iv = (os.urandom(size).hex().upper() for size in (368, 16))
    return SealedRequest(
        "ks_1",
        msgspec.json.encode(
            {"format": "TR31-DATA", "ciphertext": ciphertext, "initialization_vector": iv, "mode": "CBC"}
        ),
    )


def take(journal: Journal, payment: Payment, request: SealedRequest) -> None:
    """A whole charge."""
    journal.begin(payment, request)
    journal.record(
        payment.id,
        Happened.APPROVED,
        payment.created_at,
        charge_id=f"ch_{payment.id[:24]}",
        authorization_code="A1B2C3",
        response_code="00",
        approved=AMOUNT,
    )


def committing(rounds: int = 401) -> Iterator[Figure]:
    """The two commits of a charge against bare ones of the same bytes just before or after them, as payments come:
    one at a time, so that neither side finds the disk, the caches and the scheduler warmer than the other does. The
    journal is some hundred charges old, as each is but on its first day: every slot of the side store was used."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="till-bench-")))
        journal = Journal.create(folder / "journal.db", "bench")
        stack.callback(journal.close)
        for number in range(-AGED, 0):
            take(journal, charge(number), sealed())
            journal.tidy()
        sizes = written(folder / "journal.db")
        charges = iter([(charge(number), sealed()) for number in range(rounds + 1)])
        rows = [os.urandom(size) for size in sizes]
        bare = connect(folder / "bare.db", REAL)
        stack.callback(bare.close)
        bare.execute("CREATE TABLE bare (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL)")

        def theirs() -> None:
            for row in rows:
                bare.execute("BEGIN IMMEDIATE")
                bare.execute("INSERT INTO bare (bytes) VALUES (?)", (row,))
                bare.execute("COMMIT")

        sides = {"ours": lambda: take(journal, *next(charges)), "theirs": theirs}
        yield alternate(sides, operations=2, rounds=rounds, clock=_wall, between=journal.tidy).figure(
            "journal_commit",
            "ours",
            "theirs",
            bound=1.3,
            about=f"a commit of the journal / a bare SQLite commit of the same bytes ({sizes[0]} for the intent, "
            f"{sizes[1]} for the outcome), same settings, on the wall; what is done between payments is in neither",
        )


def written(path: Path) -> tuple[int, int]:
    """Bytes of the rows that the two commits of the last charge wrote."""
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as db:
        parts = ("at", "payment_id", "happened", "facts", "digest")
        lengths = " + ".join(f"length({part})" for part in parts)
        outcome, intent = db.execute(f"SELECT {lengths} FROM records ORDER BY seq DESC LIMIT 2").fetchall()
        body = db.execute("SELECT length(body) FROM sealed").fetchone()
    db.close()
    return intent[0] + body[0], outcome[0]


def _wall() -> float:
    return time.perf_counter()


def bytes_of_a_charge() -> Iterator[Figure]:
    """What goes to the disk for a charge, all that is tidied between payments included."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="till-bench-")))
        journal = Journal.create(folder / "journal.db", "bench")
        stack.callback(journal.close)
        coming = [(charge(number), sealed()) for number in range(2 * COUNTED)]
        for payment, request in coming[:COUNTED]:
            take(journal, payment, request)
            journal.tidy()
        before = asked_of_the_system()
        for payment, request in coming[COUNTED:]:
            take(journal, payment, request)
            journal.tidy()
        spent = asked_of_the_system() - before
        kept = sum(path.stat().st_size for path in folder.glob("journal.db")) / (2 * COUNTED)
    yield Figure(
        name="journal_bytes",
        ours=spent / COUNTED,
        theirs=kept,
        unit="bytes",
        about="written for a charge / what the file grows by. Not half of it: two commits, each durable, take "
        "five pages of 1 KiB (the intent's record, the two places of its new page in the tree, the sealed request; "
        "the outcome's record), and what is kept goes to the WAL and then to the file, for look-ups too",
    )


def asked_of_the_system() -> int:
    """Bytes that this process has given to write calls."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def starting_late(rounds: int = 21) -> Iterator[Figure]:
    """The journal of a terminal with a long past, opened and asked what a next payment asks; and a new one's."""
    with TemporaryDirectory(prefix="till-bench-") as name:
        folder = Path(name)
        for number, past in (("empty", 0), ("full", PAST)):
            (folder / number).mkdir()
            fill(folder / number / "journal.db", past)

        def opened(which: str) -> Work:
            def once() -> None:
                journal = Journal.open(folder / which / "journal.db", "bench")
                found = len(journal.unresolved())
                assert found == (OPEN if which == "full" else 0)
                assert journal.charge_by_reference("order-new") is None
                journal.close()

            return once

        yield alternate({"full": opened("full"), "empty": opened("empty")}, rounds=rounds, clock=_wall).figure(
            "start_100k",
            "full",
            "empty",
            "ms",
            bound=2.0,
            about="a journal of 100,000 past payments and 50 open ones opened, its open payments read, a reference "
            "looked up / the same of an empty journal",
        )


def fill(path: Path, past: int, journal_id: str = "bench") -> None:
    """A journal of so many approved charges, evenly over a year, and unless that is none fifty that are open."""
    journal = Journal.create(path, journal_id)
    try:
        store, now = journal._store, system_now()
        with store.changing():
            for number in range(past):
                at = now - YEAR * (past - number) / past
                payment = replace(charge(number), created_at=at)
                store.append(rfc3339(at), payment.id, Happened.JOURNALLED, first_facts(payment), None, ())
                approved = {"charge_id": f"ch_{payment.id[:24]}", "approved": msgspec.to_builtins(AMOUNT)}
                store.append(rfc3339(at), payment.id, Happened.APPROVED, approved, None, ())
                journal.acknowledge([payment.id])
            store.tables.materialise()
        for number in range(OPEN if past else 0):
            journal.begin(charge(past + number), sealed())
    finally:
        journal.close()
