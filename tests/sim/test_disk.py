"""A disk that the power may leave: what is durable stays, what is not may go, and nobody dead writes any more."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.disk import CrashDisk
from sim.faults import FaultError, parse_document
from sim.power import Power, PowerCut
from sim.seed import seeded
from terminal.disk import Unconfirmed

SEEDS = range(40)


class Machine:
    """A disk, its power, and a table of numbers that a program commits one by one."""

    def __init__(self, folder: Path, seed: int = 7) -> None:
        self.power = Power()
        self.disk = CrashDisk(self.power, seeded(seed, "disk"))
        self.path = folder / "numbers.db"

    def open(self, synchronous: str = "FULL") -> sqlite3.Connection:
        db = self.disk.connect(self.path)
        for pragma in (f"synchronous = {synchronous}", "journal_mode = WAL", "wal_autocheckpoint = 0"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY, padding BLOB)")
        db.execute("COMMIT")
        return db

    def commit(self, db: sqlite3.Connection, n: int, size: int = 700) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO numbers VALUES (?, zeroblob(?))", (n, size))
        db.execute("COMMIT")

    def faults(self, *rules: dict[str, Any]) -> None:
        self.disk.faults.replace(parse_document(json.dumps({"disk": rules})).disk)

    def restart(self, *, lose: bool = True) -> list[int]:
        """The numbers that are there after the power cut, from a file that is sound."""
        self.disk.restart(lose=lose)
        self.power.back()
        self.faults()
        db = self.disk.connect(self.path)
        try:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return [row[0] for row in db.execute("SELECT n FROM numbers ORDER BY n").fetchall()]
        finally:
            db.close()


def cut(when: str, op: str, nth: int = 1, do: str = "power_cut") -> dict[str, Any]:
    rule = {"do": do, "match": {"op": op, "nth": nth}}
    return rule if do == "lost" else {**rule, "when": when}


class TestCommits:
    def commit_all(self, machine: Machine, db: sqlite3.Connection, numbers: range) -> None:
        for n in numbers:
            machine.commit(db, n)

    def run(self, folder: Path, seed: int, rule: dict[str, Any]) -> tuple[list[int], list[str]]:
        machine = Machine(folder, seed)
        db = machine.open()
        machine.commit(db, 0)
        machine.faults(rule)
        with pytest.raises(PowerCut):
            self.commit_all(machine, db, range(1, 5))
        found = machine.restart()
        return found, machine.disk.lost

    @pytest.mark.parametrize(("when", "there"), [("before", [0, 1]), ("after", [0, 1, 2])])
    def test_what_was_committed_is_there_and_what_was_not_is_not(
        self, tmp_path: Path, when: str, there: list[int]
    ) -> None:
        assert self.run(tmp_path, 7, cut(when, "commit", 2)) == (there, [])

    def test_one_that_was_cut_is_there_or_not_and_the_ones_before_always_are(self, tmp_path: Path) -> None:
        ends = set()
        for seed in SEEDS:
            (folder := tmp_path / str(seed)).mkdir()
            found, lost = self.run(folder, seed, cut("during", "commit", 2))
            assert found in ([0, 1], [0, 1, 2])
            assert len(lost) == 1
            ends.add(lost[0])
        assert len(ends) > len(SEEDS) // 2  # the file was cut at many bytes

    def test_the_whole_of_it_lost(self, tmp_path: Path) -> None:
        found, lost = self.run(tmp_path, 7, cut("", "commit", 2, do="lost"))
        assert found == [0, 1]
        assert lost[0].startswith("numbers.db-wal: 0 of ")

    def test_a_process_that_is_killed_loses_no_commit(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        db = machine.open()
        machine.faults(cut("during", "commit"))
        with pytest.raises(PowerCut):
            machine.commit(db, 1)
        assert machine.restart(lose=False) == [1]

    def test_a_transaction_that_was_begun_is_gone(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        db = machine.open()
        machine.commit(db, 1)
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO numbers VALUES (2, x'')")
        machine.power.off()
        assert machine.restart() == [1]

    def test_a_commit_that_asks_for_no_synchronisation_may_go_later(self, tmp_path: Path) -> None:
        counts = set()
        for seed in SEEDS:
            (folder := tmp_path / str(seed)).mkdir()
            machine = Machine(folder, seed)
            db = machine.open()
            machine.commit(db, 0)
            db.execute("PRAGMA synchronous = NORMAL")
            for n in (1, 2, 3):
                machine.commit(db, n)
            machine.power.off()
            found = machine.restart()
            assert found == list(range(len(found)))
            counts.add(len(found))
        assert counts == {1, 2, 3, 4}

    def test_a_statement_of_its_own_is_one_too(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        db = machine.open()
        machine.faults(cut("before", "commit"))
        with pytest.raises(PowerCut):
            db.execute("INSERT INTO numbers VALUES (1, x'')")
        assert machine.restart() == []

    def test_a_wal_that_begins_anew_is_told_from_the_last(self, tmp_path: Path) -> None:
        for seed in SEEDS:
            (folder := tmp_path / str(seed)).mkdir()
            machine = Machine(folder, seed)
            db = machine.open()
            for n in range(20):
                machine.commit(db, n)
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            machine.faults(cut("during", "commit", 2))
            with pytest.raises(PowerCut):
                self.commit_all(machine, db, range(20, 25))
            assert machine.restart()[:21] == list(range(21))

    @given(st.lists(st.integers(1, 20_000), min_size=2, max_size=6), st.integers(0, 2**32), st.data())
    def test_at_any_moment_the_durable_ones_are_there(
        self, tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, data: st.DataObject
    ) -> None:
        machine = Machine(tmp_path_factory.mktemp("cut"), seed)
        db = machine.open()
        machine.power.cut_at = data.draw(st.integers(1, 3 * len(sizes) + 6))
        done = 0
        try:
            for n, size in enumerate(sizes):
                machine.commit(db, n, size)
                done += 1
                if n == 1:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except PowerCut:
            pass
        machine.power.off()
        found = machine.restart()
        assert found == list(range(len(found)))
        assert done <= len(found) <= done + 1


class TestCheckpoints:
    @pytest.mark.parametrize("mode", ["PASSIVE", "TRUNCATE"])
    @pytest.mark.parametrize("when", ["before", "during", "after"])
    def test_nothing_is_lost_by_one_that_was_cut(self, tmp_path: Path, mode: str, when: str) -> None:
        for seed in range(12):
            (folder := tmp_path / str(seed)).mkdir()
            machine = Machine(folder, seed)
            db = machine.open()
            for n in range(10):
                machine.commit(db, n)
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            for n in range(10, 20):
                machine.commit(db, n)
            machine.faults(cut(when, "checkpoint"))
            with pytest.raises(PowerCut):
                db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            assert machine.restart() == list(range(20))

    @pytest.mark.parametrize("when", ["before", "during", "after"])
    def test_the_one_at_the_end_is_one_too(self, tmp_path: Path, when: str) -> None:
        machine = Machine(tmp_path)
        db = machine.open()
        machine.commit(db, 1)
        held = db.execute("SELECT 1")
        machine.faults(cut(when, "checkpoint"))
        with pytest.raises(PowerCut):
            db.close()
        assert machine.power.cuts == {f"checkpoint.{when}": 1}
        assert machine.restart() == [1]
        with pytest.raises(sqlite3.ProgrammingError):
            held.fetchone()

    def test_the_dead_do_none(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        db = machine.open()
        machine.commit(db, 1)
        before = machine.path.read_bytes()
        machine.power.off()
        db.close()
        assert machine.path.read_bytes() == before
        assert machine.path.with_name("numbers.db-wal").stat().st_size > 0
        assert machine.restart() == [1]

    def test_a_cursor_that_is_still_held_does_not_keep_the_dead_alive(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        db = machine.open()
        for n in range(3):
            machine.commit(db, n)
        held = db.execute("SELECT n FROM numbers")
        held.fetchone()
        machine.power.off()
        machine.disk.restart()
        machine.power.back()
        again = machine.open()
        machine.commit(again, 3)
        with pytest.raises(sqlite3.ProgrammingError):
            held.fetchone()
        again.close()
        assert machine.restart() == [0, 1, 2, 3]


class TestWritesInPlace:
    def machine(self, folder: Path, seed: int) -> tuple[Machine, Path]:
        machine, path = Machine(folder, seed), folder / "slots"
        path.write_bytes(b"-" * 64)
        return machine, path

    def test_what_was_synchronised_stays(self, tmp_path: Path) -> None:
        machine, path = self.machine(tmp_path, 7)
        machine.disk.write(path, 8, b"durable")
        machine.disk.sync(path)
        machine.power.off()
        machine.disk.restart()
        assert path.read_bytes()[8:15] == b"durable"
        assert machine.disk.lost == []

    def test_what_was_not_is_kept_or_lost_or_torn_each_on_its_own(self, tmp_path: Path) -> None:
        seen = set()
        for seed in range(200):
            machine, path = self.machine(tmp_path, seed)
            machine.disk.write(path, 0, b"AAAA")
            machine.disk.write(path, 62, b"BBBB")
            machine.power.off()
            machine.disk.restart()
            data = path.read_bytes()
            assert set(data) <= set(b"-AB\0")
            assert data[4:62] == b"-" * 58
            seen.add((data.count(b"A"), data.count(b"B"), len(data)))
        firsts, seconds, lengths = (set(column) for column in zip(*seen, strict=True))
        assert firsts == seconds == {0, 1, 2, 3, 4}
        assert lengths == {64, 65, 66}

    def test_one_that_was_cut_is_never_whole(self, tmp_path: Path) -> None:
        for seed in SEEDS:
            machine, path = self.machine(tmp_path, seed)
            machine.faults(cut("during", "write"))
            with pytest.raises(PowerCut):
                machine.disk.write(path, 0, b"AAAA")
            machine.disk.restart()
            assert path.read_bytes().count(b"A") < 4

    def test_what_failed_to_be_synchronised_is_not_by_a_later_one(self, tmp_path: Path) -> None:
        lost = 0
        for seed in SEEDS:
            machine, path = self.machine(tmp_path, seed)
            machine.disk.write(path, 0, b"AAAA")
            machine.faults({"do": "fsync_fails", "match": {"nth": 1}})
            with pytest.raises(OSError, match=r"Input/output error"):
                machine.disk.sync(path)
            machine.disk.sync(path)
            machine.power.off()
            machine.disk.restart()
            lost += path.read_bytes()[:4] != b"AAAA"
        assert 0 < lost < len(SEEDS)


class TestReplacing:
    def test_a_power_cut_leaves_the_old_file_or_the_new_one(self, tmp_path: Path) -> None:
        seen = set()
        for seed in SEEDS:
            machine, path = Machine(tmp_path, seed), tmp_path / "vault"
            path.write_bytes(b"old")
            beside = tmp_path / "vault.new"
            machine.faults(cut("during", "replace"))
            with pytest.raises(PowerCut):
                machine.disk.replace(path, b"new")
            machine.disk.restart()
            seen.add((path.read_bytes(), beside.exists() and beside.read_bytes()))
            beside.unlink(missing_ok=True)
        assert {content for content, _ in seen} == {b"old", b"new"}
        assert (b"new", False) in seen
        assert {left for content, left in seen if content == b"old"} >= {b"n", b"new"}

    @pytest.mark.parametrize(("when", "there"), [("before", b"old"), ("after", b"new")])
    def test_before_and_after(self, tmp_path: Path, when: str, there: bytes) -> None:
        machine, path = Machine(tmp_path), tmp_path / "vault"
        path.write_bytes(b"old")
        machine.faults(cut(when, "replace"))
        with pytest.raises(PowerCut):
            machine.disk.replace(path, b"new")
        machine.disk.restart()
        assert path.read_bytes() == there

    def test_one_that_was_not_confirmed_may_be_undone(self, tmp_path: Path) -> None:
        seen = set()
        for seed in SEEDS:
            machine, path = Machine(tmp_path, seed), tmp_path / "vault"
            path.write_bytes(b"old")
            machine.faults({"do": "fsync_fails"})
            with pytest.raises(OSError, match=r"Input/output error") as raised:
                machine.disk.replace(path, b"new")
            unconfirmed = isinstance(raised.value, Unconfirmed)
            assert path.read_bytes() == (b"new" if unconfirmed else b"old")
            machine.power.off()
            machine.disk.restart()
            seen.add((unconfirmed, path.read_bytes()))
        assert seen == {(True, b"new"), (True, b"old"), (False, b"old")}


class TestRenaming:
    def named(self, folder: Path, seed: int = 7) -> Machine:
        (folder / "old").write_bytes(b"old")
        (folder / "new").write_bytes(b"new")
        return Machine(folder, seed)

    def found(self, machine: Machine) -> dict[str, bytes]:
        machine.disk.restart()
        return {file.name: file.read_bytes() for file in machine.path.parent.iterdir()}

    def test_without_its_directory_synchronised_it_is_done_or_not(self, tmp_path: Path) -> None:
        ends = set()
        for seed in SEEDS:
            (folder := tmp_path / str(seed)).mkdir()
            machine = self.named(folder, seed)
            machine.disk.rename(folder / "old", folder / "aside")
            machine.disk.rename(folder / "new", folder / "old")
            machine.power.off()
            ends.add(tuple(sorted(self.found(machine).items())))
        assert ends == {
            (("new", b"new"), ("old", b"old")),
            (("aside", b"old"), ("new", b"new")),
            (("aside", b"old"), ("old", b"new")),
            (("old", b"new"),),  # the second one without the first: what it replaced is lost
        }

    @pytest.mark.parametrize("how", ["sync", "replace"])
    def test_with_it_synchronised_it_is_done(self, tmp_path: Path, how: str) -> None:
        machine = self.named(tmp_path)
        machine.disk.rename(tmp_path / "new", tmp_path / "old")
        if how == "sync":
            machine.disk.sync(tmp_path)
        else:
            machine.disk.replace(tmp_path / "other", b"")  # which synchronises the directory
        machine.power.off()
        assert self.found(machine).get("old") == b"new"
        assert machine.disk.lost == []

    def test_what_it_replaced_comes_back_whole(self, tmp_path: Path) -> None:
        machine = self.named(tmp_path)
        machine.faults(cut("", "sync", do="lost"))
        machine.disk.rename(tmp_path / "new", tmp_path / "old")
        with pytest.raises(PowerCut):
            machine.disk.sync(tmp_path)
        assert self.found(machine) == {"new": b"new", "old": b"old"}
        assert machine.disk.lost == ["new: not renamed to old"]

    def test_a_write_that_is_not_synchronised_goes_with_the_file(self, tmp_path: Path) -> None:
        machine = self.named(tmp_path)
        machine.disk.write(tmp_path / "new", 0, b"NEW")
        machine.disk.rename(tmp_path / "new", tmp_path / "old")
        machine.disk.sync(tmp_path)
        machine.faults(cut("", "sync", do="lost"))
        with pytest.raises(PowerCut):
            machine.disk.sync(tmp_path / "old")
        assert self.found(machine) == {"old": b"new"}

    def test_after_a_synchronisation_that_failed_no_later_one_makes_it_durable(self, tmp_path: Path) -> None:
        ends = set()
        for seed in SEEDS:
            (folder := tmp_path / str(seed)).mkdir()
            machine = self.named(folder, seed)
            machine.disk.rename(folder / "new", folder / "aside")
            machine.faults({"do": "fsync_fails", "match": {"op": "sync", "nth": 1}})
            with pytest.raises(OSError, match="Input/output"):
                machine.disk.sync(folder)
            machine.disk.sync(folder)
            machine.power.off()
            ends.add("aside" in self.found(machine))
        assert ends == {True, False}

    @pytest.mark.parametrize("do", ["full", "read_only", "fsync_fails"])
    def test_a_disk_may_refuse_it(self, tmp_path: Path, do: str) -> None:
        machine = self.named(tmp_path)
        machine.faults({"do": do, "match": {"op": "rename"}})
        with pytest.raises(OSError, match=r"space|Read-only|Input"):
            machine.disk.rename(tmp_path / "new", tmp_path / "old")
        assert self.found(machine) == {"new": b"new", "old": b"old"}


class TestWhatADiskRefuses:
    @pytest.mark.parametrize(
        ("do", "code", "number"),
        [
            ("full", sqlite3.SQLITE_FULL, errno.ENOSPC),
            ("read_only", sqlite3.SQLITE_READONLY, errno.EROFS),
            ("fsync_fails", sqlite3.SQLITE_IOERR_FSYNC, errno.EIO),
        ],
    )
    def test_the_errors_are_the_systems_own(self, tmp_path: Path, do: str, code: int, number: int) -> None:
        machine = Machine(tmp_path)
        db = machine.open()
        (tmp_path / "file").write_bytes(b"here")
        machine.faults({"do": do, "match": {"times": 4}})
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO numbers VALUES (1, x'')")
        with pytest.raises(sqlite3.OperationalError) as refused:
            db.execute("COMMIT")
        assert refused.value.sqlite_errorcode == code
        refusing: list[Callable[[], None]] = [
            lambda: machine.disk.write(tmp_path / "file", 0, b"x"),
            lambda: machine.disk.sync(tmp_path / "file"),
            lambda: machine.disk.replace(tmp_path / "file", b"x"),
        ]
        for work in refusing:
            with pytest.raises(OSError, match=r"file") as failed:
                work()
            assert failed.value.errno == number
        machine.disk.replace(tmp_path / "file", b"there is room again")
        assert machine.disk.faults.by_kind == {do: 4}
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.close()

    def test_a_commit_whose_synchronisation_failed_may_be_there_and_goes_with_the_power(
        self, tmp_path: Path
    ) -> None:
        seen = set()
        for seed in range(60):
            (folder := tmp_path / str(seed)).mkdir()
            machine = Machine(folder, seed)
            db = machine.open()
            machine.commit(db, 0)
            machine.faults({"do": "fsync_fails", "match": {"nth": 1}})
            with pytest.raises(sqlite3.OperationalError):
                machine.commit(db, 1)
            if db.in_transaction:
                db.execute("ROLLBACK")
            read = len(db.execute("SELECT n FROM numbers").fetchall())
            machine.commit(db, 2)  # who trusts the disk after that
            machine.power.off()
            seen.add((read, tuple(machine.restart())))
        assert {(1, (0, 2)), (2, (0, 1, 2)), (2, (0,))} <= seen

    def test_a_file_is_told_by_its_name(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        (tmp_path / "a").write_bytes(b"here")
        (tmp_path / "b").write_bytes(b"here")
        machine.faults({"do": "full", "match": {"file": "b"}})
        machine.disk.write(tmp_path / "a", 0, b"x")
        with pytest.raises(OSError, match="No space"):
            machine.disk.write(tmp_path / "b", 0, b"x")

    @pytest.mark.parametrize(
        "rule", [{"do": "explode"}, {"do": "full", "match": {"op": "think"}}, {"do": "power_cut", "when": "later"}]
    )
    def test_an_unknown_word_is_refused(self, tmp_path: Path, rule: dict[str, Any]) -> None:
        with pytest.raises(FaultError, match=r"^faults: "):
            Machine(tmp_path).faults(rule)


class TestTheDead:
    def test_every_operation_is_refused(self, tmp_path: Path) -> None:
        machine, path = Machine(tmp_path), tmp_path / "file"
        path.write_bytes(b"here")
        db = machine.open()
        machine.power.off("here")
        for work in (
            lambda: db.execute("SELECT 1"),
            lambda: db.execute("BEGIN"),
            lambda: machine.disk.connect(machine.path),
            lambda: machine.disk.read(path),
            lambda: machine.disk.write(path, 0, b"x"),
            lambda: machine.disk.sync(path),
            lambda: machine.disk.replace(path, b"x"),
            lambda: machine.disk.rename(path, path.with_name("gone")),
        ):
            with pytest.raises(PowerCut):
                work()
        assert path.read_bytes() == b"here"

    def test_moments_are_counted_by_name(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        db = machine.open()
        machine.power.cut_at = None
        machine.commit(db, 1)
        assert machine.power.passed == 3
        assert machine.power.points == {"commit.before": 2, "commit.during": 2, "commit.after": 2}
        db.close()


def test_the_same_seed_loses_the_same_bytes(tmp_path: Path) -> None:
    def play(folder: Path) -> tuple[list[str], bytes]:
        folder.mkdir()
        machine, path = Machine(folder, 11), folder / "slots"
        path.write_bytes(bytes(64))
        db = machine.open()
        for n in range(4):
            machine.disk.write(path, 8 * n, b"filled %d" % n)
            machine.commit(db, n)
        machine.faults(cut("during", "commit"))
        with pytest.raises(PowerCut):
            machine.commit(db, 4)
        machine.disk.restart()
        return machine.disk.lost, path.read_bytes()

    one, two = play(tmp_path / "one"), play(tmp_path / "two")
    assert one == two
    assert len(one[0]) == 5
