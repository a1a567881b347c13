"""A terminal that is kept in order while a test goes on, in a world on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from datetime import timedelta

from hw.card import ManualCard
from terminal.money import Amount

TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY = Amount(1250, "EUR")
HOUR, DAY = 3600.0, 86_400.0
HEARTBEAT = "POST /pos/heartbeat"


@asynccontextmanager
async def kept(till):
    """The terminal while it is kept in order; gives the list of events that grows."""
    heard, events = [], till.events()

    async def listen():
        async for event in events:
            heard.append(event)

    tasks = [asyncio.create_task(listen()), asyncio.create_task(till.keep())]
    try:
        yield heard
        assert not tasks[1].done(), tasks[1].exception()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def living(world, scenario, **changes):
    """Run ``scenario(till, heard)`` on an activated terminal that is kept in order."""

    async def main():
        async with world.activated(**changes) as till, kept(till) as heard:
            return await scenario(till, heard)

    return world.run(main())


def of(kind, heard):
    return [event for event in heard if isinstance(event, kind)]


async def control(world, **changes):
    return await world.ask("POST", f"/sim/devices/{world.device['device_id']}", changes)


async def charge(till, reference="r", amount=TWELVE_FIFTY):
    return await till.charge(amount, reference=reference, card=TYPED)


def right(till, world, within=0.001):
    """Whether the terminal's time is the world's; a device's clock has microseconds."""
    return abs(till._clock.now() - world.loop.now()) <= timedelta(seconds=within)


def jump(world, seconds):
    """The process stands still: nothing is done, and the time passes."""
    world.loop._virtual.elapsed += seconds
