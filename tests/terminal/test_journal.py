"""The journal: durable before anything leaves, bound by its chain, and never silently rebuilt."""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.wal import Database
from terminal.errors import (
    IllegalEvent,
    JournalDamaged,
    JournalError,
    JournalTooNew,
    JournalUnwritable,
)
from terminal.journal import Journal, SealedRequest
from terminal.journal_tables import EVERY as TAIL
from terminal.money import Amount
from terminal.payment import PAYMENT, Happened, Kind, Payment, State

NOON = datetime(2025, 12, 13, 12, 0, tzinfo=UTC)
BODY = b'{"format":"TR31-DATA","ciphertext":"C0FFEE5EA1ED"}'
REQUEST = SealedRequest("ks_1", BODY)


def charge(number: int = 1, minor: int = 1250) -> Payment:
    return Payment(
        id=f"{number:032x}",
        kind=Kind.CHARGE,
        reference=f"order-{number}",
        amount=Amount(minor, "EUR"),
        created_at=NOON,
        entry_mode="swipe",
        masked_pan="476173******0119",
    )


def related(kind: Kind, parent: Payment, minor: int, number: int) -> Payment:
    return Payment(
        id=f"{number:032x}",
        kind=kind,
        reference="returned" if kind is Kind.REFUND else "",
        amount=Amount(minor, "EUR"),
        parent=parent.id,
        charge_id=parent.charge_id,
        created_at=NOON,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path):
    journal = Journal.create(path, "j1")
    yield journal
    journal.close()


def approve(journal: Journal, payment: Payment, charge_id: str = "ch_1") -> Payment:
    return journal.record(
        payment.id, Happened.APPROVED, NOON, charge_id=charge_id, approved=payment.amount, response_code="00"
    )


def test_a_payment_is_there_after_a_restart_with_its_very_bytes(journal, path):
    begun = journal.begin(charge(), REQUEST)
    assert begun.state is State.IN_FLIGHT
    journal.close()
    again = Journal.open(path, "j1")
    assert again.unresolved() == [begun]
    assert again.request(begun.id) == REQUEST
    assert again.verify() == 1
    again.close()


def test_the_sealed_request_is_gone_from_every_file_once_the_outcome_is_known(journal, path):
    approve(journal, journal.begin(charge(), REQUEST))
    assert journal.request(charge().id) is None
    journal.close()
    for file in path.parent.iterdir():
        assert b"C0FFEE5EA1ED" not in file.read_bytes(), file


def test_the_sealed_request_stays_while_the_payment_is_in_doubt(journal):
    begun = journal.begin(charge(), REQUEST)
    journal.record(begun.id, Happened.SILENT, NOON, message="no answer")
    assert journal.request(begun.id) == REQUEST
    journal.record(begun.id, Happened.SENT_AGAIN, NOON)
    again = SealedRequest("ks_2", b"other bytes")
    journal.seal_again(begun.id, again, NOON)
    assert journal.request(begun.id) == again


def test_refunds_and_cancels_change_their_charge_in_the_same_commit(journal):
    first = approve(journal, journal.begin(charge(1), REQUEST))
    for number, minor, state, left in ((2, 1000, State.PARTIALLY_REFUNDED, 250), (3, 250, State.REFUNDED, 0)):
        refund = journal.begin(related(Kind.REFUND, first, minor, number), REQUEST)
        journal.record(refund.id, Happened.APPROVED, NOON, refund_id=f"rf_{number}")
        now = journal.payment(first.id)
        assert (now.state, now.left) == (state, left)
    second = approve(journal, journal.begin(charge(4), REQUEST), "ch_2")
    cancel = journal.begin(related(Kind.CANCEL, second, 1250, 5), None)
    journal.record(cancel.id, Happened.APPROVED, NOON)
    assert journal.payment(second.id).state is State.CANCELED
    assert [p.kind for p in journal.concerning(first)] == [Kind.REFUND, Kind.REFUND]
    assert journal.verify() == 10 + 3


def test_a_declined_reference_may_be_tried_again_and_a_taken_one_stands(journal):
    first = journal.begin(charge(1), REQUEST)
    journal.record(first.id, Happened.DECLINED, NOON, response_code="51")
    second = journal.begin(replace(charge(2), reference="order-1"), REQUEST)
    assert journal.charge_by_reference("order-1") == second
    approve(journal, second)
    third = journal.begin(replace(charge(3), reference="order-1"), REQUEST)
    journal.record(third.id, Happened.UNREACHABLE, NOON)
    assert journal.charge_by_reference("order-1").id == second.id
    assert journal.charge_by_reference("order-9") is None
    assert journal.charge_by_charge_id("ch_1").id == second.id
    assert journal.charge_by_charge_id("") is None


class Listening:
    """A connection that remembers what it was asked."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db, self.asked = db, []

    def execute(self, sql, values=()):
        self.asked.append((sql, values))
        return self.db.execute(sql, values)


def test_no_look_up_walks_the_whole_journal(journal):
    paid = approve(journal, journal.begin(charge(), REQUEST))
    journal.tidy(whole=True)  # what has just happened is in memory
    journal._store.forget()
    journal._store.fresh()
    db = journal._store.db
    journal._store.db = journal._store.tables._db = listening = Listening(db)
    try:
        assert journal.payment(paid.id) == paid
        assert journal.charge_by_reference(paid.reference) == paid
        assert journal.charge_by_charge_id(paid.charge_id) == paid
        assert journal.concerning(paid) == []
        assert journal.unresolved() == []
        assert journal.count(Kind.CHARGE, paid.reference) == 1
        assert journal.outcomes() == [paid]
        assert list(journal.recent("no card", paid.amount, NOON)) == journal.refunds_since(NOON) == []
    finally:
        journal._store.db = journal._store.tables._db = db
    assert len(listening.asked) == 9
    for sql, values in listening.asked:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert "LIMIT" in sql or any("USING" in step and "INDEX" in step for step in plan), plan
        assert "LIMIT" in sql or not any(step.startswith("SCAN") and "INDEX" not in step for step in plan), plan
        assert "TEMP B-TREE" not in " ".join(plan), plan


def test_an_event_that_the_state_does_not_know_changes_nothing(journal):
    begun = journal.begin(charge(), REQUEST)
    approve(journal, begun)
    before = journal.payments()
    with pytest.raises(IllegalEvent):
        journal.record(begun.id, Happened.DECLINED, NOON)
    assert journal.payments() == before
    assert journal.verify() == 2


def test_an_unknown_payment_is_named(journal):
    with pytest.raises(JournalError, match="no payment 'nope'"):
        journal.payment("nope")


def test_records_cannot_be_changed_through_sql(journal):
    journal.begin(charge(), REQUEST)
    for statement in ("DELETE FROM records", "UPDATE records SET at = ''"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            journal._store.db.execute(statement)


def test_the_file_is_for_its_owner_alone(journal, path):
    journal.begin(charge(), REQUEST)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_reader_sees_the_payments_while_the_terminal_writes(journal, path):
    begun = journal.begin(charge(), REQUEST)
    looking = Journal.read(path)
    assert looking.payments() == [begun]
    with pytest.raises(JournalUnwritable, match="read-only"):
        looking.record(begun.id, Happened.SILENT, NOON)
    looking.close()


# -- bad files ------------------------------------------------------------------------------------------------


def wal_end(path):
    """Where the last frame in the journal's WAL ends, by SQLite's own index of it; zeros may follow."""
    index = Database(path)
    try:
        return index.reach().end
    finally:
        index.close()


def copied(path, folder):
    """What a power cut leaves of an open journal."""
    copy = folder / "copy.db"
    for suffix in (".db", ".db-wal", ".keys"):
        shutil.copyfile(path.with_suffix(suffix), copy.with_suffix(suffix))
    return copy


@functools.cache
def _filled(count):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        journal = Journal.create(path, "j1")
        journal._store.db.execute("PRAGMA synchronous = OFF")
        for number in range(1, count + 1):
            approve(journal, journal.begin(charge(number), REQUEST), f"ch_{number}")
        journal.close()
        return path.read_bytes()


def filled(path, count=40):
    path.write_bytes(_filled(count))


def tampered(path, *statements):
    db = sqlite3.connect(path)
    for statement in ("DROP TRIGGER records_are_kept", "DROP TRIGGER records_stand", *statements):
        db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records WHERE seq = 40",
        "DELETE FROM records WHERE seq = 1",
        "UPDATE records SET at = '2020-01-01T00:00:00Z' WHERE seq = 7",
        "UPDATE records SET happened = 'declined' WHERE seq = 8",
        "UPDATE records SET facts = replace(facts, '1250', '9250') WHERE seq = 9",
        "UPDATE records SET seq = 9999 WHERE seq = 80",
        "UPDATE records SET digest = zeroblob(32) WHERE seq = 80",
    ],
)
def test_an_edited_or_missing_record_is_noticed(path, statement):
    filled(path)
    tampered(path, statement)
    with pytest.raises(JournalDamaged, match="the chain breaks at record"), closing(Journal.open(path)) as journal:
        journal.verify()


def test_an_edit_since_the_last_checkpoint_is_noticed_at_the_next_start(journal, path, tmp_path):
    for number in range(1, 20):
        approve(journal, journal.begin(charge(number), REQUEST), f"ch_{number}")
    copy = copied(path, tmp_path)
    tampered(copy, "UPDATE records SET facts = replace(facts, '1250', '9250') WHERE seq = 9")
    with pytest.raises(JournalDamaged, match="the chain breaks at record 9"):
        Journal.open(copy)


def test_an_edited_payment_is_noticed_by_the_verification(path):
    filled(path)
    tampered(path, "UPDATE payments SET facts = replace(facts, 'approved', 'declined') WHERE rowid = 3")
    journal = Journal.open(path)
    with pytest.raises(JournalDamaged, match="is not what its records add up to"):
        journal.verify()
    journal.close()


def test_an_old_edit_far_before_the_tail_is_noticed_by_the_verification(path):
    filled(path, TAIL)
    tampered(path, "UPDATE records SET at = '' WHERE seq = 2")
    journal = Journal.open(path)
    with pytest.raises(JournalDamaged, match="the chain breaks at record 2"):
        journal.verify()
    journal.close()


def test_a_missing_journal_is_not_made_anew(path):
    for way in (Journal.open, Journal.read):
        with pytest.raises(JournalDamaged, match="is missing") as caught:
            way(path)
        assert caught.value.advice.startswith("Restore it")
    assert not path.exists()


def test_an_emptied_journal_is_not_made_anew(path):
    path.write_bytes(b"")
    with pytest.raises(JournalDamaged, match="is not a journal"):
        Journal.open(path)


def test_another_terminals_journal_is_refused(path):
    filled(path, 1)
    with pytest.raises(JournalDamaged, match="another terminal"):
        Journal.open(path, "j2")


def test_a_newer_format_is_left_alone(path):
    filled(path, 1)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalTooNew, match="has format 99"):
        Journal.open(path)


def test_an_existing_file_is_not_overwritten(path):
    path.write_bytes(b"precious")
    with pytest.raises(JournalError, match="exists already"):
        Journal.create(path, "j1")
    assert path.read_bytes() == b"precious"


def test_a_folder_that_cannot_hold_it_is_named(tmp_path):
    with pytest.raises(JournalUnwritable, match="cannot be created"):
        Journal.create(tmp_path / "nowhere" / "journal.db", "j1")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_truncated_or_flipped_file_is_damaged_or_sound_and_nothing_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    filled(path, 12)
    sound = path.read_bytes()
    if data.draw(st.booleans()):
        broken = sound[: data.draw(st.integers(0, len(sound) - 1))]
    else:
        at = data.draw(st.integers(0, len(sound) - 1))
        broken = sound[:at] + bytes([sound[at] ^ data.draw(st.integers(1, 255))]) + sound[at + 1 :]
    path.write_bytes(broken)
    try:
        journal = Journal.open(path, "j1")
    except JournalError:
        return
    try:
        journal.verify()
        assert len(journal.payments()) == 12
    except JournalError:
        pass
    finally:
        journal.close()


# -- disks that fail ------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_and_says_so(path):
    journal = Journal.create(path, "j1")
    kept = journal.begin(charge(1), REQUEST)
    pages = journal._store.db.execute("PRAGMA page_count").fetchone()[0]
    journal._store.db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalUnwritable, match="the disk is full"):
        journal.begin(charge(2), SealedRequest("ks_1", os.urandom(5000)))
    journal._store.db.execute("PRAGMA max_page_count = 100000")
    assert journal.payments() == [kept]
    journal.begin(charge(3), REQUEST)
    assert journal.verify() == 2
    journal.close()


def test_a_read_only_journal_is_refused_before_any_payment(path):
    filled(path, 1)
    path.chmod(0o444)
    for folder in path.parents:
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write anything
        try:
            Journal.open(path)
        except JournalUnwritable as error:
            os.write(write_end, str(error).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as said:
        assert "read-only" in said.read()
    os.waitpid(child, 0)


def test_a_write_that_fails_leaves_the_chain_as_it_was(journal):
    journal.begin(charge(1), REQUEST)
    journal._store.db.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalUnwritable):
        journal.begin(charge(2), REQUEST)
    journal._store.db.execute("PRAGMA query_only = OFF")
    journal.begin(charge(3), REQUEST)
    assert journal.verify() == 2


# -- whole lives ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(Happened)), max_size=40))
def test_any_life_that_the_table_allows_is_kept_and_verifies(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("life") / "journal.db"
    journal = Journal.create(path, "j1")
    states: dict[str, State] = {}
    at = NOON
    for number, happened in steps:
        at += timedelta(seconds=1)
        payment = charge(number)
        if payment.id not in states:
            states[payment.id] = journal.begin(payment, REQUEST).state
        elif happened in PAYMENT.table[states[payment.id]]:
            states[payment.id] = journal.record(payment.id, happened, at, message=str(happened)).state
    journal.close()
    again = Journal.open(path, "j1")
    again.verify()
    assert {p.id: p.state for p in again.payments()} == states
    again.close()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, sqlite3.OperationalError])
def test_a_commit_that_raises_may_have_happened_and_the_file_knows(journal, when, interruption):
    """A second Ctrl-C, or a disk that fails: between the commit and what Python makes of it."""

    class Interrupted(Listening):
        def execute(self, sql, values=()):
            if sql != "COMMIT":
                return self.db.execute(sql, values)
            if when == "after":
                self.db.execute(sql)
            raise interruption

    journal.begin(charge(1), REQUEST)
    db = journal._store.db
    journal._store.db = Interrupted(db)
    with pytest.raises((KeyboardInterrupt, JournalError)):
        journal.begin(charge(2), REQUEST)
    journal._store.db = db
    journal.begin(charge(3), REQUEST)
    assert [payment.reference for payment in journal.payments()] == (
        ["order-1", "order-3"] if when == "before" else ["order-1", "order-2", "order-3"]
    )
    assert journal.verify() == len(journal.payments())


@pytest.mark.parametrize("column", ["at", "payment_id", "happened", "digest"])
def test_a_column_that_changed_its_type_breaks_the_chain(path, column):
    """One flipped bit in a row's header makes text of a blob."""
    other = "TEXT" if column == "digest" else "BLOB"
    filled(path)
    tampered(path, f"UPDATE records SET {column} = CAST({column} AS {other}) WHERE seq = 7")
    with pytest.raises(JournalDamaged), closing(Journal.open(path)) as journal:
        journal.verify()
