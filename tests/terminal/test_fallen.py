"""A device that was revoked or given up takes no payments, says so, and comes back."""

from __future__ import annotations

import asyncio

import pytest

from terminal.errors import NotReady
from terminal.events import (
    LevelLost,
    LevelReached,
)
from terminal.payment import State
from tests.terminal.kept import (
    HEARTBEAT,
    HOUR,
    charge,
    control,
    kept,
    living,
    of,
)


def test_a_revoked_device_takes_no_payments_says_so_and_comes_back_by_itself(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(HOUR)
        await control(world, revoked=True)
        await asyncio.sleep(200)
        with pytest.raises(NotReady, match="revoked the device") as caught:
            await charge(till)
        assert "till activate" in caught.value.advice
        await asyncio.sleep(HOUR)
        heartbeats = world.network.paths().count(HEARTBEAT)
        asked = len(world.network.requests)
        await asyncio.sleep(HOUR)
        assert world.network.paths().count(HEARTBEAT) == heartbeats
        assert len(world.network.requests) - asked <= 60
        await control(world, revoked=False)
        await asyncio.sleep(400)
        assert (await charge(till)).state is State.APPROVED
        lost = [(event.level, event.reason) for event in of(LevelLost, heard)]
        return lost, [event.level for event in of(LevelReached, heard)][-1]

    assert living(world, scenario) == ([("bootstrapped", "revoked")], "activated")


def test_an_unclaimed_device_takes_no_payments_says_so_and_waits_for_its_code(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(HOUR)
        await control(world, unclaimed=True)
        await asyncio.sleep(200)
        with pytest.raises(NotReady, match="it is unclaimed") as caught:
            await charge(till)
        assert "code" in caught.value.advice
        await asyncio.sleep(HOUR)
        assert "POST /pos/pairing-code" not in world.network.paths()
        await world.activate(till)
        await asyncio.sleep(200)
        assert (await charge(till)).state is State.APPROVED
        return [event.reason for event in of(LevelLost, heard)]

    assert living(world, scenario) == ["unclaimed"]


def test_why_no_payment_is_taken_is_known_after_a_restart(make):
    world = make()

    async def main():
        async with world.activated() as till, kept(till):
            await control(world, revoked=True)
            await asyncio.sleep(200)
        async with world.terminal() as till:
            with pytest.raises(NotReady, match="revoked"):
                await charge(till)

    world.run(main())


def test_a_device_that_was_revoked_after_it_was_unclaimed_says_the_later(make):
    world = make()

    async def scenario(till, heard):
        await control(world, unclaimed=True)
        await asyncio.sleep(300)
        await control(world, revoked=True)
        await asyncio.sleep(HOUR)
        with pytest.raises(NotReady, match="revoked"):
            await charge(till)
        await control(world, revoked=False)
        await asyncio.sleep(HOUR)
        with pytest.raises(NotReady, match="unclaimed"):
            await charge(till)

    living(world, scenario)


def test_a_version_that_is_too_old_is_told_and_tried_again_without_hurry(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.fault(
            {"match": {"call": "heartbeat"}, "do": "status", "status": 426, "code": "4260"},
            {"match": {"call": "bootstrap"}, "do": "status", "status": 426, "code": "4260"},
        )
        await asyncio.sleep(100)
        with pytest.raises(NotReady, match="newer version"):
            await charge(till)
        asked = len(world.network.requests)
        await asyncio.sleep(HOUR)
        assert len(world.network.requests) - asked <= 60
        world.fault()
        await asyncio.sleep(400)
        return (await charge(till)).state

    assert living(world, scenario) is State.APPROVED
