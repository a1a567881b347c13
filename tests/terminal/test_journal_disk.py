"""The journal and the disk: what is synchronised when, what is gone for good, what a cut or a failure leaves."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terminal import side_store
from terminal.disk import Disk, Unconfirmed
from terminal.errors import JournalDamaged, JournalError, JournalUnwritable
from terminal.journal import Journal, SealedRequest
from terminal.journal_care import set_aside
from terminal.journal_chain import Care
from terminal.payment import OPEN, Happened, State
from tests.terminal.test_journal import NOON, REQUEST, approve, charge, copied, filled, tampered, wal_end

ENVELOPE = bytes(range(7, 207)) * 4
"""Bytes that stand nowhere else, and cannot be packed into something that does not hold them."""


class Watched(Disk):
    """Counts what is asked of the disk, and fails when told to."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failing: dict[str, OSError | sqlite3.Error] = {}
        watched = self

        class Connection(sqlite3.Connection):
            def execute(self, sql, *values):
                if sql == "COMMIT":
                    watched.come("commit")
                return super().execute(sql, *values)

        self.connection = Connection

    def come(self, what):
        self.done.append(what)
        if (error := self.failing.pop(what, None)) is not None:
            raise error

    def write(self, path, offset, data):
        self.come("write")
        super().write(path, offset, data)

    def sync(self, path):
        self.come("sync")
        super().sync(path)

    def replace(self, path, data):
        self.come("replace")
        super().replace(path, data)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


def commit_error(code):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


# -- what a charge costs --------------------------------------------------------------------------------------


def test_a_charge_is_two_commits_and_synchronises_nothing_else(path):
    disk = Watched()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        for number in range(1, 100):
            disk.done.clear()
            approve(journal, journal.begin(charge(number), REQUEST), f"ch_{number}")
            assert disk.done == ["commit", "commit", "write"]
            journal.acknowledge([charge(number).id])
        disk.done.clear()
        journal.tidy()
        assert disk.done[0] == "commit"
        assert disk.done[1] == "sync"


def test_many_charges_that_nobody_tidies_after_still_have_keys(path):
    disk = Watched()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        disk.done.clear()
        for number in range(1, 2 * side_store.SLOTS + 3):
            approve(journal, journal.begin(charge(number), REQUEST), f"ch_{number}")
        assert disk.done.count("sync") == 2
        assert journal.verify() == 4 * side_store.SLOTS + 4


def test_more_open_payments_than_slots_make_the_file_grow(path):
    with closing(Journal.create(path, "j1")) as journal:
        begun = [journal.begin(charge(number), REQUEST) for number in range(1, side_store.SLOTS + 40)]
        assert all(journal.request(payment.id) == REQUEST for payment in begun)
    with closing(Journal.open(path)) as again:
        assert len(again.unresolved()) == len(begun)
        assert all(again.request(payment.id) == REQUEST for payment in begun)


# -- what is gone ---------------------------------------------------------------------------------------------


def everything(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def key_of(journal, path, payment):
    slot = journal._store.tables.known(payment.id).mark.slot
    key = path.with_suffix(".keys").read_bytes()[slot * side_store.SLOT :][: side_store.SLOT]
    row = journal._store.db.execute("SELECT body FROM sealed WHERE slot = ?", (slot,)).fetchone()[0]
    mark = journal._store.tables.known(payment.id).mark
    assert side_store.opened(key, payment.id, mark, row).body == ENVELOPE  # it is what opens it
    return key


@pytest.mark.parametrize("end", ["approved", "declined", "held", "reversing", "sealed again", "stored"])
def test_neither_envelope_nor_key_is_anywhere_once_they_are_not_needed(path, end):
    with closing(Journal.create(path, "j1")) as journal:
        begun = journal.begin(charge(), SealedRequest("ks_1", ENVELOPE))
        key = key_of(journal, path, begun)
        assert not any(ENVELOPE[:32] in data for data in everything(path.parent).values())
        assert [name for name, data in everything(path.parent).items() if key in data] == ["journal.keys"]
        match end:
            case "approved":
                approve(journal, begun)
            case "declined":
                journal.record(begun.id, Happened.DECLINED, NOON)
            case "held":
                journal.record(begun.id, Happened.HELD, NOON)
            case "reversing":
                journal.record(begun.id, Happened.LEFT, NOON)
                journal.record(begun.id, Happened.APPROVED, NOON)
            case "sealed again":
                journal.seal_again(begun.id, REQUEST, NOON)
            case _:
                journal.record(begun.id, Happened.STORED, NOON, request=REQUEST)
        for _ in range(2):
            for name, data in everything(path.parent).items():
                assert key not in data, name
                assert not any(ENVELOPE[at : at + 16] in data for at in range(0, 200, 8)), name
            journal.tidy(whole=True)
    assert not any(key in data or ENVELOPE[:16] in data for data in everything(path.parent).values())


def test_a_key_that_the_power_cut_brought_back_is_gone_after_the_next_start(path, tmp_path):
    disk = Watched()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        begun = journal.begin(charge(), SealedRequest("ks_1", ENVELOPE))
        key = key_of(journal, path, begun)
        unsynchronised = path.with_suffix(".keys").read_bytes()
        approve(journal, begun)
        copy = copied(path, tmp_path)
    copy.with_suffix(".keys").write_bytes(unsynchronised)
    disk.done.clear()
    with closing(Journal.open(copy, disk=disk)) as again:
        assert disk.done[:2] == ["write", "sync"]
        assert again.request(begun.id) is None
        assert key not in copy.with_suffix(".keys").read_bytes()


def test_a_request_whose_key_is_lost_is_none(path):
    with closing(Journal.create(path, "j1")) as journal:
        begun = journal.begin(charge(), REQUEST)
    path.with_suffix(".keys").unlink()
    with closing(Journal.open(path)) as again:
        assert again.unresolved() == [begun]
        assert again.request(begun.id) is None
        approve(again, begun)
        again.verify()


# -- power cuts -----------------------------------------------------------------------------------------------


def test_a_cut_anywhere_in_the_next_commit_leaves_the_last_one(path, tmp_path):
    journal = Journal.create(path, "j1")
    begun = journal.begin(charge(1), REQUEST)
    before = wal_end(path)
    approve(journal, begun)
    after, whole = wal_end(path), path.with_name("journal.db-wal").read_bytes()
    assert len(whole) > after > before
    for number, cut in enumerate([*range(before, after, 97), after - 1, after]):
        folder = tmp_path / str(number)
        folder.mkdir()
        copy = copied(path, folder)
        rest = bytes(len(whole) - cut) if number % 2 else b""
        copy.with_name("copy.db-wal").write_bytes(whole[:cut] + rest)
        with closing(Journal.open(copy, "j1")) as again:
            state = State.APPROVED if cut == after else State.IN_FLIGHT
            assert [p.state for p in again.payments()] == [state]
            assert again.verify() == (2 if cut == after else 1)
            if cut < after:
                approve(again, begun)
                assert again.verify() == 2
    journal.close()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_cut_and_a_torn_tail_at_any_moment_leave_a_whole_journal(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    path = folder / "journal.db"
    journal = Journal.create(path, "j1")
    wal = path.with_name("journal.db-wal")
    committed = [(wal_end(path), {})]
    for number in range(1, data.draw(st.integers(2, 8))):
        begun = journal.begin(charge(number), REQUEST)
        committed.append((wal_end(path), {p.id: p for p in journal.payments()}))
        if data.draw(st.booleans()):
            approve(journal, begun, f"ch_{number}")
            committed.append((wal_end(path), {p.id: p for p in journal.payments()}))
    cut = data.draw(st.integers(committed[0][0], committed[-1][0]))
    torn = data.draw(st.binary(max_size=40)) + bytes(data.draw(st.sampled_from([0, 5000])))
    copy = copied(path, folder)
    copy.with_name("copy.db-wal").write_bytes(wal.read_bytes()[:cut] + torn)
    journal.close()
    expected = next(known for size, known in reversed(committed) if size <= cut)
    with closing(Journal.open(copy, "j1")) as again:
        assert {p.id: p for p in again.payments()} == expected
        assert again.verify() == again.seq
        again.begin(charge(99), REQUEST)
        again.verify()


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 80), st.integers(0, 5), st.data())
def test_any_byte_of_a_record_that_changes_is_noticed(tmp_path_factory, seq, column, data):
    path = tmp_path_factory.mktemp("flip") / "journal.db"
    filled(path)
    name = ("seq", "at", "payment_id", "happened", "facts", "digest")[column]
    with closing(sqlite3.connect(path)) as db:
        value = db.execute(f"SELECT {name} FROM records WHERE seq = ?", (seq,)).fetchone()[0]
    if name == "seq":
        other = 1000 + seq
    else:
        raw = bytearray(value if isinstance(value, bytes) else value.encode())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 127))
        other = bytes(raw) if isinstance(value, bytes) else raw.decode("latin-1")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER records_stand")
        db.execute(f"UPDATE records SET {name} = ? WHERE seq = ?", (other, seq))
    with pytest.raises(JournalDamaged), closing(Journal.open(path)) as journal:
        journal.verify()


# -- disks that fail ------------------------------------------------------------------------------------------


def test_after_a_synchronisation_that_failed_nothing_is_written_until_it_is_opened_anew(path):
    disk = Watched()
    journal = Journal.create(path, "j1", disk=disk)
    kept = journal.begin(charge(1), REQUEST)
    disk.failing["commit"] = commit_error(sqlite3.SQLITE_IOERR | 4 << 8)
    with pytest.raises(JournalUnwritable, match="failed to read or write"):
        approve(journal, kept)
    for write in (lambda: approve(journal, kept), lambda: journal.begin(charge(2), REQUEST)):
        with pytest.raises(JournalUnwritable, match="what it holds now is not known"):
            write()
    assert journal.payments() == [kept]
    journal.close()
    with closing(Journal.open(path, disk=disk)) as again:
        approve(again, kept)
        assert again.verify() == 2


def test_no_room_for_the_file_beside_the_journal_is_a_full_disk_and_no_failed_one(path):
    disk = Watched()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        kept = journal.begin(charge(1), REQUEST)
        disk.failing["commit"] = commit_error(sqlite3.SQLITE_IOERR_SHMSIZE)
        with pytest.raises(JournalUnwritable, match="the disk is full"):
            approve(journal, kept)
        disk.failing.clear()
        approve(journal, kept)
        assert journal.verify() == 2


def test_keys_that_could_not_be_synchronised_are_not_used(path):
    disk = Watched()
    journal = Journal.create(path, "j1", disk=disk)
    for number in range(1, side_store.SLOTS + 1):
        approve(journal, journal.begin(charge(number), REQUEST), f"ch_{number}")
    disk.failing["sync"] = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(JournalUnwritable):
        journal.begin(charge(999), REQUEST)
    with pytest.raises(JournalUnwritable, match="is not known"):
        journal.begin(charge(999), REQUEST)
    journal.close()
    with closing(Journal.open(path)) as again:
        again.begin(charge(999), REQUEST)
        again.verify()


def test_a_disk_that_fills_at_any_write_and_empties_again_loses_nothing(path):
    disk = Watched()
    journal = Journal.create(path, "j1", disk=disk)
    for number, what in enumerate(itertools.islice(itertools.cycle(["commit", "write", "none"]), 30), start=1):
        full = commit_error(sqlite3.SQLITE_FULL) if what == "commit" else OSError(errno.ENOSPC, "full")
        disk.failing = {what: full}
        try:
            begun = journal.begin(charge(number), REQUEST)
        except JournalUnwritable:
            begun = journal.begin(charge(number), REQUEST)
        disk.failing = {what: full}
        try:
            approve(journal, begun, f"ch_{number}")
        except JournalUnwritable:
            approve(journal, begun, f"ch_{number}")
        disk.failing = {}
    assert journal.verify() == 60
    journal.close()
    with closing(Journal.open(path)) as again:
        assert len(again.payments()) == 30


def test_a_key_that_could_not_be_overwritten_is_overwritten_later(path):
    disk = Watched()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        begun = journal.begin(charge(), SealedRequest("ks_1", ENVELOPE))
        key = key_of(journal, path, begun)
        disk.failing["write"] = OSError(errno.ENOSPC, "full")
        assert approve(journal, begun).state is State.APPROVED
        assert key in path.with_suffix(".keys").read_bytes()
        journal.tidy(whole=True)
        assert key not in path.with_suffix(".keys").read_bytes()


def test_of_two_writers_the_second_to_write_is_refused_for_good(path):
    with closing(Journal.create(path, "j1")) as first, closing(Journal.open(path)) as second:
        first.begin(charge(1), REQUEST)
        for _ in range(2):
            with pytest.raises(JournalUnwritable, match="another process has written"):
                second.begin(charge(2), REQUEST)
        first.begin(charge(3), REQUEST)
        assert first.verify() == 2


def test_an_older_copy_of_the_journal_is_noticed(path, tmp_path):
    with closing(Journal.create(path, "j1")) as journal:
        journal.begin(charge(1), REQUEST)
        copy = copied(path, tmp_path)
        approve(journal, journal.begin(charge(2), REQUEST))
        anchor = journal.seq
    Journal.open(path, at_least=anchor).close()
    with pytest.raises(JournalDamaged, match="an old copy") as caught:
        Journal.open(copy, at_least=anchor)
    assert "--set-aside" in caught.value.advice


def test_the_disk_replaces_whole_files_and_says_what_is_not_confirmed(tmp_path, monkeypatch):
    disk, path = Disk(), tmp_path / "file"
    disk.replace(path, b"old")
    disk.write(path, 1, b"LDE")
    disk.write(path, 4, b"R")
    assert disk.read(path) == b"oLDER"
    with pytest.raises(FileNotFoundError):
        disk.write(tmp_path / "none", 0, b"x")
    (tmp_path / "file.new").write_bytes(b"what a power cut has left of an earlier one")
    disk.replace(path, b"older")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.EIO, "bad disk")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Unconfirmed):
        disk.replace(path, b"new")
    assert disk.read(path) == b"new"


# -- set aside ------------------------------------------------------------------------------------------------


def broken(path, seq):
    """A journal of six payments with an edit at a record."""
    with closing(Journal.create(path, "j1")) as journal:
        for number in range(1, 7):
            begun = journal.begin(charge(number), REQUEST)
            if number % 2:
                approve(journal, begun, f"ch_{number}")
    tampered(path, f"UPDATE records SET at = '' WHERE seq = {seq}")


@pytest.mark.parametrize(("seq", "carried", "unproved"), [(1, 0, 6), (2, 1, 6), (6, 3, 3), (9, 5, 1), (99, 6, 0)])
def test_what_a_broken_chain_proves_goes_on_in_a_new_journal(path, seq, carried, unproved):
    broken(path, seq)
    whole = path.read_bytes()
    old = {p.id: p for p in Journal.read(path).payments()}
    told = set_aside(path, "j1", now=NOON, at_least=9)
    assert told.breaks_at == (seq if seq < 99 else 0)
    assert told.records == min(seq - 1, 9)
    assert len(told.carried) == carried
    assert len(told.unproved) == unproved
    aside = path.with_name("journal.db.damaged-20251213T120000Z")
    assert told.moved[0] == aside
    assert aside.read_bytes() == whole
    with closing(Journal.open(path, "j1", at_least=9)) as journal:
        assert journal.seq == 9 + 1 + carried
        assert journal.verify() == 1 + carried
        first = next(journal.records())
        assert first.happened is Care.SUCCEEDS
        assert first.facts["breaks_at"] == told.breaks_at
        assert all(journal.request(p.id) == REQUEST for p in journal.unresolved() if old[p.id].state in OPEN)
        if seq == 99:
            assert {p.id: p for p in journal.payments()} == old
        journal.begin(charge(99), REQUEST)
        journal.verify()


def test_no_request_can_be_opened_twice_after_setting_aside(path):
    broken(path, 99)
    told = set_aside(path, "j1", now=NOON)
    with closing(Journal.read(told.moved[0])) as old:
        marks = [known.mark for known in old._store.open_payments()]
        rows = dict(old._store.db.execute("SELECT slot, body FROM sealed").fetchall())
    keys = told.moved[0].with_name(told.moved[0].name + "-keys").read_bytes()
    assert len(marks) == 3
    for payment, mark in zip(told.unresolved, marks, strict=True):
        key = keys[mark.slot * side_store.SLOT :][: side_store.SLOT]
        assert side_store.opened(key, payment.id, mark, rows[mark.slot]) is None


@pytest.mark.parametrize("spoilt", [b"", b"somebody's notes" * 1000, None])
def test_a_file_that_cannot_be_read_is_set_aside_too(path, spoilt):
    broken(path, 99)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if spoilt is None else spoilt)
    told = set_aside(path, "j1", now=NOON, at_least=500)
    assert told.breaks_at
    assert told.why
    with closing(Journal.open(path, "j1", at_least=500)) as journal:
        assert journal.verify() == 1 + len(told.carried)


def test_there_must_be_something_to_set_aside(path):
    with pytest.raises(JournalError, match="nothing to set aside"):
        set_aside(path, "j1", now=NOON)


def test_a_journal_is_set_aside_with_its_wal(path, tmp_path):
    journal = Journal.create(path, "j1")
    journal.begin(charge(1), REQUEST)
    shutil.copytree(path.parent, tmp_path / "after", ignore=shutil.ignore_patterns("after", "*-shm"))
    journal.close()
    cut = tmp_path / "after" / "journal.db"
    told = set_aside(cut, "j1", now=NOON)
    assert [file.name.rpartition("Z")[2] for file in told.moved if Path(file).exists()][:2] == ["", "-wal"]
    assert len(told.unresolved) == 1
