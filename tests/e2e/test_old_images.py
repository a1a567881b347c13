"""A journal, or the whole home, as it was last week: an SD card written back from its image.

The host has charged meanwhile, and the terminal remembers nothing of it. It is noticed where it can be, and no
payment is made a second time: a terminal that repeats itself collides with itself at the host.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from terminal.journal_file import FILE_NAME as JOURNAL_FILE
from tests.e2e.bad_days import Days
from tests.e2e.hosted import call
from tests.e2e.shop import Shop

SIDES = ("", "-wal", "-shm")


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """It has taken a payment before."""
    assert shop.charge("before").code == 0
    return shop


def imaged(shop: Shop) -> Path:
    """The whole home, copied while no process has it open."""
    return Path(shutil.copytree(shop.home, shop.home.with_name("image")))


def written_back(shop: Shop, image: Path) -> None:
    shutil.rmtree(shop.home)
    shutil.copytree(image, shop.home)


class TestTheWholeHome:
    def test_the_same_references_are_not_charged_again(self, shop: Shop) -> None:
        image = imaged(shop)
        first = {reference: shop.charge(reference).payment for reference in ("b", "c")}
        written_back(shop, image)
        for reference, payment in first.items():
            again = shop.charge(reference)
            assert (again.code, again.payment["charge_id"]) == (0, payment["charge_id"])
            assert shop.taken(reference) == 1
        assert shop.charge("new").code == 0
        shop.check_books()

    def test_nor_given_back_again(self, shop: Shop, days: Days) -> None:
        charge_id = shop.charge("before").payment["charge_id"]
        image = imaged(shop)
        words = ("refund", charge_id, "5.00", "--reason", "cold")
        assert days.till(shop.home, *words).code == 0
        written_back(shop, image)
        days.till(shop.home, *words)
        assert [refund["amount"]["value"] for refund in self.charge(shop, charge_id)["refunds"]] == ["500"]

    def test_a_cancel_that_was_made_since_is_learnt(self, shop: Shop, days: Days) -> None:
        charge_id = shop.charge("before").payment["charge_id"]
        image = imaged(shop)
        assert days.till(shop.home, "cancel", charge_id).code == 0
        written_back(shop, image)
        assert days.till(shop.home, "cancel", charge_id).code == 0
        assert self.charge(shop, charge_id)["status"] == "canceled"
        shop.check_books()

    def test_a_doubt_of_last_week_ends_as_the_charge_that_it_became(self, shop: Shop, days: Days) -> None:
        shop.faults({"match": {"call": "charge"}, "do": "drop_answer"}, {"do": "drop_request"})
        assert shop.charge("doubt").payment["state"] == "in_doubt"
        shop.faults()
        image = imaged(shop)
        charge_id = shop.charge("doubt").payment["charge_id"]
        written_back(shop, image)
        again = shop.charge("doubt")
        assert (again.code, again.payment["charge_id"]) == (0, charge_id)
        assert shop.taken("doubt") == 1
        shop.check_books()

    def charge(self, shop: Shop, charge_id: str) -> Any:
        (found,) = [each for each in call(f"{shop.url}/sim/ledger")["charges"] if each["id"] == charge_id]
        return found


class TestTheJournalAlone:
    def written_back(self, shop: Shop, image: Path) -> None:
        for side in SIDES:
            (shop.home / f"{JOURNAL_FILE}{side}").unlink(missing_ok=True)
            old = image / f"{JOURNAL_FILE}{side}"
            if old.exists():
                shutil.copy2(old, shop.home)

    def test_it_is_older_than_the_vault_knows(self, shop: Shop) -> None:
        image = imaged(shop)
        assert shop.charge("since").code == 0
        # New keys: with them the vault is written, and what it knows of the journal.
        call(f"{shop.url}/sim/devices/{shop.device['device_id']}", {"superseded": True})
        assert shop.charge("under new keys").code == 0
        self.written_back(shop, image)
        refused = shop.charge("since")
        assert (refused.code, refused.error) == (2, "JournalDamaged")
        assert "old copy" in refused.complained
        assert shop.taken("since") == 1

    def test_where_the_vault_does_not_know_nothing_is_charged_again(self, shop: Shop) -> None:
        image = imaged(shop)
        charge_id = shop.charge("since").payment["charge_id"]
        self.written_back(shop, image)
        again = shop.charge("since")
        assert again.error == "JournalDamaged" or again.payment["charge_id"] == charge_id
        assert shop.taken("since") == 1
