"""The journal's WAL, written ahead: commits do not make the file longer, and nothing is lost where that fails."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from terminal.disk import Disk
from terminal.errors import JournalUnwritable
from terminal.journal import Journal
from terminal.journal_ahead import AHEAD
from tests.terminal.test_journal import REQUEST, approve, charge, wal_end
from tests.terminal.test_journal_disk import Watched


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


def wal_size(path):
    return path.with_name("journal.db-wal").stat().st_size


def pay(journal, number):
    approve(journal, journal.begin(charge(number), REQUEST), f"ch_{number}")


def use_up(journal, path):
    """Pay until SQLite has come to the end of what was written ahead; how often that was."""
    number = 0
    while wal_end(path) < wal_size(path):
        number += 1
        pay(journal, number)
    return number


def test_a_charge_overwrites_what_the_wal_has_already(path):
    with closing(Journal.create(path, "j1")) as journal:
        assert wal_end(path) < AHEAD < wal_size(path)
        for number in range(1, 200):
            before = wal_size(path)
            pay(journal, number)
            assert wal_end(path) <= wal_size(path)
            if wal_end(path) <= before:
                assert wal_size(path) == before
            journal.tidy()
            assert wal_size(path) - wal_end(path) > 0
        assert wal_end(path) > AHEAD
        assert journal.verify() == 398


def test_what_is_ahead_costs_a_synchronisation_when_it_is_used_up_and_none_before(path):
    disk = Watched()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        synchronised = []
        for number in range(1, 60):
            pay(journal, number)
            disk.done.clear()
            journal.tidy()
            synchronised.append("sync" in disk.done)
        assert sum(synchronised) == wal_end(path) // AHEAD == 2
        assert synchronised.index(True) >= 15


def test_starts_after_a_power_cut_do_not_make_it_longer_and_longer(path, tmp_path):
    sizes = []
    journal = Journal.create(path, "j1")
    for number in range(1, 12):
        pay(journal, number)
        folder = tmp_path / str(number)
        folder.mkdir()
        for file in path.parent.glob("journal.*"):
            if not file.name.endswith("-shm"):
                shutil.copyfile(file, folder / file.name)
        journal.close()
        path = folder / "journal.db"
        journal = Journal.open(path, "j1")
        sizes.append(wal_size(path))
    assert journal.verify() == 22
    journal.close()
    assert len(set(sizes)) == 1


def test_a_disk_without_room_for_it_takes_payments_all_the_same(path):
    disk = Watched()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        number = use_up(journal, path)
        size = wal_size(path)
        disk.failing["write"] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        journal.tidy()
        assert wal_size(path) == size
        pay(journal, number + 1)
        journal.tidy()
        assert wal_size(path) > size + AHEAD // 2
        assert journal.verify() == 2 * number + 2


def test_a_process_that_may_open_no_more_files_goes_on_paying(path):
    disk = Watched()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        number = use_up(journal, path)
        for operation in ("write", "sync"):
            disk.failing[operation] = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        journal.tidy()
        disk.failing.clear()
        pay(journal, number + 1)
        assert journal.verify() == 2 * number + 2


def test_while_it_is_written_nobody_else_can_make_the_file_longer(path):
    class Shared(Disk):
        tried = False

        def write(self, file, offset, data):
            if file.name.endswith("-wal"):
                with closing(sqlite3.connect(path, timeout=0)) as other, pytest.raises(sqlite3.OperationalError):
                    other.execute("UPDATE journal SET woken = woken + 1")
                self.tried = True
            super().write(file, offset, data)

    disk = Shared()
    with closing(Journal.create(path, "j1", disk=disk)) as journal:
        pay(journal, 1)
        assert disk.tried
        assert journal.verify() == 2


def test_a_journal_that_somebody_else_is_writing_to_is_not_written_ahead(path):
    with closing(Journal.create(path, "j1")) as journal:
        number = use_up(journal, path)
        size = wal_size(path)
        journal._store.db.execute("PRAGMA busy_timeout = 0")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            journal.tidy()
            assert wal_size(path) == size
            other.execute("ROLLBACK")
        journal.tidy()
        assert wal_size(path) == size + AHEAD
        pay(journal, number + 1)
        assert journal.verify() == 2 * number + 2


def test_a_synchronisation_of_it_that_fails_is_as_any_other_that_does(path):
    disk = Watched()
    journal = Journal.create(path, "j1", disk=disk)
    journal.close()
    disk.failing["sync"] = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(JournalUnwritable):
        Journal.open(path, "j1", disk=disk)
    disk.failing.clear()
    with closing(Journal.open(path, "j1", disk=disk)) as again:
        number = use_up(again, path)
        disk.failing["sync"] = OSError(errno.EIO, os.strerror(errno.EIO))
        with pytest.raises(JournalUnwritable):
            again.tidy()
        with pytest.raises(JournalUnwritable, match="what it holds now is not known"):
            pay(again, number + 1)
    with closing(Journal.open(path, "j1")) as again:
        assert again.verify() == 2 * number
