"""What tests of payments in trouble share: a terminal in a world, and ways to lose what it sends and hears."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import contextmanager

import httpx

from sim.balance import differences, journal_rows, ledger_rows
from terminal.payment import State


def paying(world, scenario, **changes):
    """Run `scenario(till)` on an activated terminal; its result, and where the books of both sides part."""

    async def main():
        async with world.activated(**changes) as till:
            result = await scenario(till)
            till.journal.verify()
            ledger = ledger_rows({"charges": await world.books()}, world.device["terminal_id"])
            return result, differences(journal_rows(till.journal.payments()), ledger)

    return world.run(main())


def lose(world, *, acted):
    """From now on the host acts and its answers are lost, or nothing reaches it; give back how it ends."""

    def meddle(request):
        if "/charge" in request.url.path:
            raise httpx.ReadError("lost", request=request)

    def end():
        world.network.before = world.network.after = lambda request: None

    if acted:
        world.network.after = meddle
    else:
        world.network.before = meddle
    return end


async def doubtful(world, asking, *, acted):
    """A payment in doubt, of which the host knows or not."""
    end = lose(world, acted=acted)
    payment = await asking
    assert payment.state is State.IN_DOUBT
    end()
    return payment


@contextmanager
def forgotten(world):
    """What the terminal's home learns in this block it has forgotten after it: an old image of it was restored."""
    image = world.home.with_name("image")
    shutil.copytree(world.home, image)
    yield
    shutil.rmtree(world.home)
    image.rename(world.home)


async def control(world, **changes):
    await world.ask("POST", f"/sim/devices/{world.device['device_id']}", changes)


async def going_on(till, seconds):
    """The resolver alone, as ``keep`` calls it, for so long."""
    loop = asyncio.get_running_loop()
    until, waits = loop.time() + seconds, []
    while loop.time() < until:
        due = till.resolver.next_due()
        if due is None:
            return waits
        waits.append(due)
        await asyncio.sleep(min(due, until - loop.time()) or 0.001)
        await till.resolver.round()
    return waits


class Told:
    """The events of a till from now on, those of one class by indexing with it."""

    def __init__(self, till):
        self._events = till.events()

    def __getitem__(self, kind):
        return [event for event in self._events._events if isinstance(event, kind)]


def happened(till, payment_id):
    """What the journal says has happened to a payment, in order."""
    return [record.happened for record in till.journal.records() if record.payment_id == payment_id]


def sent(world):
    """How often a charge was sent."""
    return sum(request.method == "POST" and request.url.path == "/pos/charge" for request in world.network.requests)
