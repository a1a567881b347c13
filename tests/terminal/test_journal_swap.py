"""A damaged journal is set aside, and the power goes at any moment of it, and again while that is finished."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta

import msgspec
import pytest

from sim.disk import CrashDisk
from sim.faults import parse_document
from sim.power import Power, PowerCut
from sim.seed import seeded
from terminal import journal_swap
from terminal.errors import JournalDamaged, JournalTooNew, JournalUnwritable
from terminal.journal import Journal
from terminal.journal_care import SetAside, set_aside
from terminal.journal_chain import Care
from terminal.payment import OPEN, State
from tests.terminal.test_journal import NOON, REQUEST, approve, charge, tampered

ASIDE = "journal.db.damaged-20251213T120000Z"
NEVER = 10**9
SIDES = {"journal.db": "", "journal.db-wal": "-wal", "journal.keys": "-keys"}


def edited(folder):
    """Six payments, of which three are open, with an edit at the sixth record of nine."""
    path = folder / "journal.db"
    with closing(Journal.create(path, "j1")) as journal:
        for number in range(1, 7):
            begun = journal.begin(charge(number), REQUEST)
            if number % 2:
                approve(journal, begun, f"ch_{number}")
    tampered(path, "UPDATE records SET at = '' WHERE seq = 6")


def old_copy(folder):
    """One that is whole, with all that it says in its WAL, of a terminal whose vault knows of more."""
    with closing(Journal.create(folder / "live.db", "j1")) as journal:
        approve(journal, journal.begin(charge(1), REQUEST))
        journal.begin(charge(2), REQUEST)
        for name in ("db", "db-wal", "keys"):
            shutil.copyfile(folder / f"live.{name}", folder / f"journal.{name}")
    for file in folder.glob("live.*"):
        file.unlink()


def unreadable(folder):
    """Somebody's notes, beside keys of which nobody knows what they open."""
    (folder / "journal.db").write_bytes(b"somebody's notes" * 500)
    (folder / "journal.keys").write_bytes(bytes(64))


def bytes_of(folder):
    """The files, but for those that SQLite makes even to read: the WAL-index, and a WAL that is empty."""
    found = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}
    return {name: data for name, data in found.items() if data or not name.endswith("-wal")}


def plan(aside=ASIDE, side=""):
    return msgspec.json.encode(
        {"aside": aside, "sides": [side], "records": 0, "breaks_at": 1, "why": "", "unproved": []}
    )


@dataclass
class Bench:
    """One damaged journal, as often as it is wanted, on a disk that forgets."""

    folder: object
    damaged: object
    copies: int = 0

    def fresh(self, seed):
        self.copies += 1
        self.home = self.folder / str(self.copies)
        shutil.copytree(self.damaged, self.home)
        self.path = self.home / "journal.db"
        self.power, self.random = Power(), seeded(seed, "keys")
        self.disk = CrashDisk(self.power, seeded(seed, "disk"))

    def set_aside(self) -> SetAside:
        return set_aside(self.path, "j1", now=NOON, at_least=9, disk=self.disk, random=self.random)

    def settle(self):
        return journal_swap.settle(self.path, self.disk, self.random)

    def moments_of(self, do):
        self.power.cut_at = NEVER
        do()
        self.power.cut_at, moments = None, self.power.passed
        return moments

    def cut(self, at, do, *, lose):
        self.power.cut_at = at
        with pytest.raises(PowerCut):
            do()
        self.disk.restart(lose=lose)
        self.power.back()

    def facts_of(self, told):
        """What it said, without where the files are."""
        return replace(told, moved=(), report=self.folder)

    def check_old(self, before):
        """It is there as it was, and alone, and can be set aside."""
        assert bytes_of(self.home) == before

    def check_new(self, before, expected):
        """It is there whole, with what could be proved, and knows what it is; the old one is beside it."""
        beside = bytes_of(self.home)
        for name, side in SIDES.items():
            if name == "journal.keys":
                assert beside[ASIDE + side] != before[name]
                assert len(beside[ASIDE + side]) == len(before[name])
            elif name in before:
                assert beside[ASIDE + side] == before[name]
        assert ASIDE + "-report" in beside
        assert not any("next" in name or "setting" in name for name in beside)
        with closing(Journal.open(self.path, "j1", at_least=9, disk=self.disk)) as journal:
            assert next(journal.records()).happened is Care.SUCCEEDS
            assert journal.payments() == list(expected.carried)
            assert journal.may_lack(timedelta(days=1))
            for payment in journal.unresolved():
                assert journal.request(payment.id) == REQUEST
            journal.begin(charge(99), REQUEST)
            journal.verify()


@pytest.fixture(params=[edited, old_copy, unreadable], ids=lambda make: make.__name__)
def bench(request, tmp_path):
    (tmp_path / "damaged").mkdir()
    request.param(tmp_path / "damaged")
    return Bench(tmp_path, tmp_path / "damaged")


@pytest.mark.parametrize("lose", [True, False], ids=["power cut", "killed"])
def test_cut_short_at_any_moment_one_of_the_two_is_there_whole(bench, lose):
    before = bytes_of(bench.damaged)
    bench.fresh(0)
    told = []
    moments = bench.moments_of(lambda: told.append(bench.set_aside()))
    expected = bench.facts_of(told[0])
    assert moments > 40
    ends = set()
    for at in range(1, moments + 1):
        bench.fresh(at)
        bench.cut(at, bench.set_aside, lose=lose)
        cut_short = journal_swap.is_under_way(bench.path)
        if cut_short:
            with pytest.raises(JournalDamaged, match="being set aside"):
                Journal.read(bench.path)
        finished = bench.settle()
        assert (finished is not None) is cut_short
        done = (bench.home / ASIDE).exists()
        ends.add((cut_short, done))
        if done:
            bench.check_new(before, expected)
        else:
            bench.check_old(before)
            assert bench.facts_of(bench.set_aside()) == expected
            bench.check_new(before, expected)
    assert {(False, False), (True, True)} <= ends


def test_cut_short_again_while_it_is_finished(bench):
    before = bytes_of(bench.damaged)
    bench.fresh(0)
    told = []
    moments = bench.moments_of(lambda: told.append(bench.set_aside()))
    expected, found = bench.facts_of(told[0]), set()
    for at in range(1, moments + 1):
        bench.fresh(at)
        bench.cut(at, bench.set_aside, lose=True)
        names = frozenset(bytes_of(bench.home))
        if not journal_swap.is_under_way(bench.path) or names in found:
            continue
        found.add(names)
        half_done = Bench(bench.folder / f"again {at}", shutil.copytree(bench.home, bench.folder / f"cut {at}"))
        half_done.fresh(at)
        for again in range(1, half_done.moments_of(half_done.settle) + 1):
            half_done.fresh(again)
            half_done.cut(again, half_done.settle, lose=True)
            half_done.settle()
            half_done.check_new(before, expected)
    assert len(found) > 4


def test_asked_for_again_it_is_finished_and_told_as_it_would_have_been(bench):
    before = bytes_of(bench.damaged)
    bench.fresh(0)
    told = []
    moments = bench.moments_of(lambda: told.append(bench.set_aside()))
    finished = 0
    for at in range(1, moments + 1):
        bench.fresh(at)
        bench.cut(at, bench.set_aside, lose=True)
        if journal_swap.is_under_way(bench.path):
            again = bench.set_aside()
            assert bench.facts_of(again) == bench.facts_of(told[0])
            assert [file.name for file in again.moved] == [file.name for file in told[0].moved]
            bench.check_new(before, told[0])
            finished += 1
    assert finished > 5


@pytest.mark.parametrize("op", ["commit", "write", "sync", "rename", "replace"])
@pytest.mark.parametrize("fault", ["full", "fsync_fails"])
def test_a_disk_that_fails_once_leaves_one_of_the_two_too(bench, op, fault):
    before = bytes_of(bench.damaged)
    failed = 0
    for nth in range(1, 20):
        bench.fresh(nth)
        rule = {"do": fault, "match": {"op": op, "nth": nth}}
        bench.disk.faults.replace(
            parse_document(f'{{"disk": [{str(rule).replace(chr(39), chr(34))}]}}'.encode()).disk
        )
        try:
            bench.set_aside()
        except JournalUnwritable:
            failed += 1
            bench.disk.faults.replace(())
            if bench.settle() is None and not (bench.home / ASIDE).exists():
                bench.check_old(before)
                bench.set_aside()
        bench.disk.faults.replace(())
        with closing(Journal.open(bench.path, "j1", at_least=9, disk=bench.disk)) as journal:
            assert next(journal.records()).happened is Care.SUCCEEDS
    assert failed or (op, fault) == ("sync", "full")  # to synchronise takes no room


def test_every_start_finishes_it(bench):
    bench.fresh(0)
    told = []
    moments = bench.moments_of(lambda: told.append(bench.set_aside()))
    finished = 0
    for at in range(1, moments + 1):
        bench.fresh(at)
        bench.cut(at, bench.set_aside, lose=True)
        if journal_swap.is_under_way(bench.path):
            with closing(Journal.open(bench.path, "j1", at_least=9, disk=bench.disk)) as journal:
                assert journal.payments() == list(told[0].carried)
            finished += 1
    assert finished > 5


@pytest.mark.parametrize(
    ("written", "new"),
    [
        (b"", True),
        (b"{}", True),
        (plan(aside="../elsewhere"), True),
        (plan(side="-etc"), True),
        (plan(), False),
    ],
    ids=["empty", "of nothing", "elsewhere", "of other files", "without the new journal"],
)
def test_a_plan_that_cannot_be_ours_is_not_followed(tmp_path, written, new):
    edited(tmp_path)
    (tmp_path / "journal.db.setting-aside").write_bytes(written)
    if new:
        Journal.create(tmp_path / "journal.next.db", "j1").close()
    before = bytes_of(tmp_path)
    with pytest.raises(JournalDamaged, match="cannot be followed"):
        Journal.open(tmp_path / "journal.db", "j1")
    assert bytes_of(tmp_path) == before


def test_what_is_left_of_a_new_one_is_removed_by_the_next_start(tmp_path):
    path = tmp_path / "journal.db"
    with closing(Journal.create(path, "j1")) as journal:
        journal.begin(charge(), REQUEST)
    for name in ("journal.next.db", "journal.next.db-wal", "journal.next.keys"):
        (tmp_path / name).write_bytes(b"half of it")
    with closing(Journal.open(path, "j1")) as journal:
        assert [payment.state for payment in journal.payments()] == [State.IN_FLIGHT]
        assert not list(tmp_path.glob("*next*"))


def test_one_of_a_newer_version_is_left_as_it_is(tmp_path):
    edited(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        db.execute("PRAGMA user_version = 99")
    before = bytes_of(tmp_path)
    with pytest.raises(JournalTooNew):
        set_aside(tmp_path / "journal.db", "j1", now=NOON)
    assert bytes_of(tmp_path) == before


def test_the_report_keeps_what_could_not_be_proved(tmp_path):
    edited(tmp_path)
    told = set_aside(tmp_path / "journal.db", "j1", now=NOON)
    report = told.report.read_text()
    assert told.unproved
    assert all(payment_id in report for payment_id in told.unproved)
    assert [p.state for p in told.unresolved if p.state not in OPEN] == []
    with closing(sqlite3.connect(told.moved[0])) as db:
        assert db.execute("SELECT count(*) FROM records").fetchone() == (9,)
