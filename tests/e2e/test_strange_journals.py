"""A journal that is not what the terminal left: of a newer version, edited, cut short, of another terminal.

Nothing is taken with it. Set aside, it makes room for a new one, and no reference is charged a second time.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from tests.e2e.shop import Shop


def edited(shop: Shop, *statements: str) -> None:
    """What a stranger does to the journal, in a process of its own."""
    script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\n"
    script += "for each in sys.argv[2:]: db.execute(each)\ndb.commit()"
    subprocess.run([sys.executable, "-c", script, str(shop.home / JOURNAL_FILE), *statements], check=True)


LAST = "WHERE seq = (SELECT max(seq) FROM records)"


class TestAnotherJournal:
    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (("PRAGMA user_version = 99",), "JournalTooNew"),
            (("DROP TRIGGER records_stand", f"UPDATE records SET digest = x'00' {LAST}"), "JournalDamaged"),
            (("DROP TRIGGER records_are_kept", f"DELETE FROM records {LAST}"), "JournalDamaged"),
            (("UPDATE journal SET id = 'another'",), "JournalDamaged"),
        ],
        ids=["of a newer version", "with an edited end", "without its end", "of another terminal"],
    )
    def test_nothing_is_taken_with_it(self, shop: Shop, words: tuple[str, ...], error: str) -> None:
        for number in range(4):
            assert shop.charge(f"order-{number}").code == 0
        edited(shop, *words)
        refused = shop.charge("one-more")
        assert (refused.code, refused.error) == (2, error)
        assert refused.said[-1]["advice"]
        assert shop.taken("one-more") == 0

    @pytest.mark.parametrize("seq", [1, 4, 8])
    def test_a_chain_that_is_broken_is_found_where_it_breaks(self, shop: Shop, seq: int) -> None:
        for number in range(4):
            assert shop.charge(f"order-{number}").code == 0
        edited(shop, "DROP TRIGGER records_stand", f"UPDATE records SET at = '1999' WHERE seq = {seq}")
        self.check_broken(shop, seq)

    def test_and_where_a_record_is_missing(self, shop: Shop) -> None:
        for number in range(4):
            assert shop.charge(f"order-{number}").code == 0
        edited(shop, "DROP TRIGGER records_are_kept", "DELETE FROM records WHERE seq = 4")
        self.check_broken(shop, 4)

    def check_broken(self, shop: Shop, seq: int) -> None:
        verified = shop.days.till(shop.home, "journal", "--verify")
        assert (verified.code, verified.error) == (2, "JournalDamaged")
        assert f"record {seq}" in verified.complained


class TestSetAside:
    @pytest.mark.parametrize(
        "words",
        [
            ("DROP TRIGGER records_stand", f"UPDATE records SET digest = x'00' {LAST}"),
            ("DROP TRIGGER records_stand", "UPDATE records SET facts = '{}' WHERE seq = 1"),
            ("DROP TRIGGER records_are_kept", f"DELETE FROM records {LAST}"),
        ],
        ids=["broken at its end", "broken at its beginning", "without its end"],
    )
    def test_a_damaged_journal_is_set_aside_and_no_reference_charged_again(
        self, shop: Shop, words: tuple[str, ...]
    ) -> None:
        first = {f"order-{number}": shop.charge(f"order-{number}").payment for number in range(3)}
        edited(shop, *words)
        aside = shop.days.till(shop.home, "journal", "--set-aside")
        assert aside.code == 0, aside
        kept = [file for file in shop.home.rglob("*") if JOURNAL_FILE in file.name and file.name != JOURNAL_FILE]
        assert kept
        for reference, payment in first.items():
            again = shop.charge(reference)
            assert again.code == 0, again
            assert again.payment["charge_id"] == payment["charge_id"]
            assert shop.taken(reference) == 1
        assert shop.charge("new").code == 0
        assert shop.days.till(shop.home, "journal", "--verify").code == 0
