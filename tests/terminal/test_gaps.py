"""What the journal has lost or let go: nothing is charged twice for it, and nothing old is taken for a new sale."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from hw.card import ManualCard
from terminal.disk import Disk
from terminal.errors import JournalUnwritable, SettingsError
from terminal.journal import Journal
from terminal.journal_care import set_aside
from terminal.money import Amount
from terminal.payment import State
from terminal.settings import parse
from terminal.totals import scheme
from tests.terminal.test_journal import NOON, REQUEST, charge
from tests.terminal.worlds import doubtful, forgotten

TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY, DECLINED = Amount(1250, "EUR"), Amount(1251, "EUR")
DAY = 86_400


def pay(till, reference="r", amount=TWELVE_FIFTY):
    return till.charge(amount, reference=reference, card=TYPED)


def compact(till, days=7):
    now = till._clock.now()
    return till.journal.compact(now - timedelta(days=days), now, scheme)


async def references(world):
    return [one["reference"] for one in await world.books()]


async def damaged(world):
    """A charge so long ago that the host has forgotten its key, and its record damaged: its payment, the journal's
    file and the journal's id."""
    async with world.activated() as till:
        paid = await pay(till)
        journal_id = till.journal.id
    await asyncio.sleep(2 * DAY)
    path = world.home / "journal.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TRIGGER records_stand")
        db.execute("UPDATE records SET facts = '{}' WHERE seq = 1")
        db.commit()
    return paid, path, journal_id


async def paid_again(world):
    """The charge id that a start gives for the same reference, and the references of all charges at the host."""
    async with world.terminal() as till:
        again = await pay(till)
        return again.charge_id, await references(world)


def test_a_journal_that_was_set_aside_charges_nothing_twice_that_it_lost(make):
    world = make(key_set_life=30 * DAY)

    async def main():
        paid, path, journal_id = await damaged(world)
        assert set_aside(path, journal_id, now=world.loop.now()).unproved == (paid.id,)
        assert await paid_again(world) == (paid.charge_id, ["r"])

    world.run(main())


class Stops(Disk):
    """One that fails at the n-th rename, and at all after it."""

    def __init__(self, at):
        self.left = at

    def rename(self, path, to):
        self.left -= 1
        if self.left <= 0:
            raise OSError(errno.EIO, "the disk is gone")
        super().rename(path, to)


@pytest.mark.parametrize("at", range(1, 6))
def test_a_start_in_the_middle_of_setting_aside_charges_nothing_twice_either(make, at):
    world = make(key_set_life=30 * DAY)

    async def main():
        paid, path, journal_id = await damaged(world)
        with pytest.raises(JournalUnwritable):
            set_aside(path, journal_id, now=world.loop.now(), disk=Stops(at))
        assert await paid_again(world) == (paid.charge_id, ["r"])

    world.run(main())


def test_a_journal_whose_taking_over_was_cut_short_asks_first(tmp_path):
    with closing(Journal.create(tmp_path / "journal.db", "j1", after=7)) as journal:
        assert journal.may_lack(timedelta(days=1))
    with closing(Journal.create(tmp_path / "other.db", "j1")) as journal:
        assert not journal.may_lack(timedelta(days=1))


def test_an_old_image_is_still_known_as_one_at_its_second_start(make):
    world = make(key_set_life=30 * DAY)

    async def main():
        async with world.activated() as till:
            await pay(till, "before")
        with forgotten(world):
            async with world.terminal() as till:
                paid = await pay(till)
        await asyncio.sleep(7 * DAY)
        async with world.terminal() as till:
            await pay(till, "after")
        assert await paid_again(world) == (paid.charge_id, ["before", "r", "after"])

    world.run(main())


def test_a_reference_of_which_compaction_took_the_first_attempt_can_be_tried_again(make):
    world = make(key_set_life=60 * DAY)

    async def main():
        async with world.activated() as till:
            ids = [(await pay(till, amount=DECLINED)).id]
            await asyncio.sleep(8 * DAY)
            ids.append((await pay(till, amount=DECLINED)).id)
            assert compact(till) == 1
            paid = await pay(till)
            return paid.state, len({*ids, paid.id})

    assert world.run(main()) == (State.APPROVED, 3)


@pytest.mark.parametrize("acted", [True, False])
def test_a_sale_that_left_by_compaction_is_not_taken_for_a_new_one_of_its_reference(make, acted):
    world = make(key_set_life=90 * DAY)

    async def main():
        async with world.activated() as till:
            old = await pay(till)
            await asyncio.sleep(40 * DAY)
            await pay(till, "other")
            assert compact(till) == 1
        async with world.terminal() as till:
            doubt = await doubtful(world, pay(till), acted=acted)
            await till.resolve()
            known = till.journal.payment(doubt.id)
            return known.state, known.charge_id == old.charge_id, await references(world)

    assert world.run(main()) == (State.APPROVED, False, ["r", "other", "r"])


def test_payments_stay_at_least_as_long_as_the_host_remembers_their_keys():
    with pytest.raises(SettingsError, match="retention_days"):
        parse(b"retention_days = 7\n[host]\nidempotency_life = 691200")
    assert parse(b"retention_days = 8\n[host]\nidempotency_life = 691200").retention_days == 8


def test_nothing_has_left_a_journal_that_was_never_compacted(tmp_path):
    with closing(Journal.create(tmp_path / "journal.db", "j1")) as journal:
        journal.begin(charge(), REQUEST)
        assert journal.kept_since is None
        assert journal.compact(NOON + timedelta(days=1), NOON + timedelta(days=2), scheme) == 0
        assert journal.kept_since == NOON + timedelta(days=2)


@pytest.mark.parametrize("memory", [timedelta(minutes=5), timedelta(hours=2), timedelta(days=1)])
def test_a_time_without_a_record_is_noticed_where_it_is_longer_than_the_hosts_memory(tmp_path, memory):
    with closing(Journal.create(tmp_path / "journal.db", "j1")) as journal:
        for number, after in ((1, timedelta()), (2, memory), (3, 2 * memory + timedelta(seconds=1))):
            assert not journal.may_lack(memory)
            journal.begin(replace(charge(number), created_at=NOON + after), REQUEST)
        assert journal.may_lack(memory)
