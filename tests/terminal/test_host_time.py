"""The host's time, followed in the middle of the day: by steps, above a floor, never back in silence."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import pytest

from terminal.errors import HostUnreachable
from terminal.events import (
    ClockMoved,
    ClockRefused,
    DeviceClockJumped,
)
from terminal.payment import State
from tests.terminal.kept import (
    DAY,
    HOUR,
    charge,
    kept,
    living,
    of,
    right,
)


@pytest.mark.parametrize("skew", [-365 * DAY, -HOUR, -5.0, 5.0, HOUR, 20 * 365 * DAY])
def test_a_devices_clock_that_jumps_while_we_run_is_told_and_moves_nothing(make, skew):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(600)
        world.skew = skew
        await asyncio.sleep(200)
        world.network.requests.clear()
        assert (await charge(till)).state is State.APPROVED
        assert right(till, world)
        return [event.seconds for event in of(DeviceClockJumped, heard)], of(ClockMoved, heard)

    assert living(world, scenario) == ([skew], [])
    assert world.network.paths().count("POST /pos/charge") == 1


@pytest.mark.parametrize("skew", [-365 * DAY, -300.0, 300.0, 365 * DAY])
def test_a_jump_that_was_told_is_no_surprise_at_the_next_start(make, skew):
    world = make()

    async def main():
        async with world.activated() as till, kept(till):
            world.skew = skew
            await asyncio.sleep(200)
        async with world.terminal() as till:
            world.network.requests.clear()
            return (await charge(till)).state

    assert world.run(main()) is State.APPROVED
    assert world.network.paths() == ["POST /pos/charge"]


def test_a_device_that_wakes_a_year_ago_goes_on_from_its_last_record(make):
    world = make()

    async def main():
        async with world.activated() as till:
            await asyncio.sleep(10 * DAY)
            with contextlib.suppress(HostUnreachable):
                await charge(till)
            last = till.journal.last_at
        world.skew = -365 * DAY
        async with world.terminal() as till, kept(till) as heard:
            woke = till._clock.now()
            await asyncio.sleep(200)
            assert (await charge(till, "after")).state is State.APPROVED
            assert right(till, world, within=1.0)
            return woke - last, heard

    gap, heard = world.run(main())
    assert timedelta() <= gap <= timedelta(seconds=1)
    assert not of(ClockRefused, heard)


def test_a_host_whose_clock_is_a_year_back_is_not_followed_and_told(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(600)
        assert (await charge(till, "before")).state is State.APPROVED
        world.fault({"do": "clock", "seconds": -365 * DAY})
        await asyncio.sleep(HOUR)
        assert right(till, world)
        assert of(ClockMoved, heard) == []
        refused = of(ClockRefused, heard)
        assert refused
        assert all(event.said < event.floor <= event.at for event in refused)
        assert all("clock_step" in event.advice for event in refused)
        world.fault()
        await asyncio.sleep(HOUR)
        return (await charge(till, "after")).state

    assert living(world, scenario) is State.APPROVED


def test_one_stray_answer_with_another_day_moves_nothing(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.fault({"match": {"call": "bootstrap", "nth": 1}, "do": "clock", "seconds": 30 * DAY})
        assert not await till._climb.follow_clock()
        return right(till, world), of((ClockMoved, ClockRefused), heard)

    assert living(world, scenario) == (True, [])


def test_a_host_that_moves_a_day_ahead_and_says_so_twice_is_followed(make):
    world = make(key_set_life=30 * 86_400)

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.fault({"do": "clock", "seconds": DAY})
        await asyncio.sleep(400)
        assert (await charge(till)).state is State.APPROVED
        return [abs(event.seconds - DAY) <= 1 for event in of(ClockMoved, heard)]

    assert living(world, scenario) == [True]


def test_the_floor_can_be_lowered_for_a_start_where_the_host_is_right(make):
    """The host was a day ahead for an hour, and was believed."""
    world = make(key_set_life=30 * 86_400)

    async def main():
        async with world.activated() as till, kept(till):
            world.fault({"do": "clock", "seconds": DAY})
            await asyncio.sleep(400)
            assert (await charge(till)).state is State.APPROVED
            world.fault()
        async with world.terminal() as till, kept(till) as heard:
            await asyncio.sleep(200)
            assert of(ClockRefused, heard)
            assert of(ClockMoved, heard) == []
        async with world.terminal(clock_step=2 * DAY) as till, kept(till) as heard:
            await asyncio.sleep(200)
            assert [round(event.seconds / DAY) for event in of(ClockMoved, heard)] == [-1]
            return (await charge(till, "after")).state

    assert world.run(main()) is State.APPROVED
