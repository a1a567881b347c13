"""What was approved here is forwarded, whatever the host says of it at first; its PIN and its card go."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from hw.card import StripeCard
from sim.reader.handed import HandedReader
from terminal.events import OfflineLost
from terminal.money import Amount
from terminal.payment import Outcome, State
from tests.terminal.worlds import Told, control

VISA = StripeCard(
    pan="4761739001010119", expiry="2812", service_code="201", track2="4761739001010119=28122011143804400000"
)
TEN = Amount(1000, "EUR")


def unreachable(request):
    raise httpx.ConnectError("no", request=request)


async def stored(world, till, reference="o"):
    world.network.before = unreachable
    payment = await till.charge(TEN, reference=reference)
    world.network.before = lambda request: None
    assert payment.state is State.OFFLINE
    return payment


@pytest.mark.parametrize(("status", "code"), [(429, "4290"), (403, "4030"), (426, "4260"), (401, "4010")])
def test_a_refusal_that_judges_nothing_loses_nothing(make, status, code):
    world = make()

    async def main():
        async with world.activated(reader=HandedReader(VISA)) as till:
            payment = await stored(world, till)
            world.fault({"match": {"call": "charge"}, "do": "status", "status": status, "code": code})
            await till.resolve()
            still = till.journal.payment(payment.id)
            world.fault()
            await till.activate()
            await till.resolve()
            return still.state in (State.OFFLINE, State.FORWARDING), till.journal.payment(payment.id).state

    assert world.run(main()) == (True, State.APPROVED)


def test_new_keys_that_cannot_be_had_lose_nothing(make):
    world = make()

    async def main():
        async with world.activated(reader=HandedReader(VISA)) as till:
            payment = await stored(world, till)
            world.fault(
                {"match": {"call": "charge"}, "do": "status", "status": 401, "code": "4011"},
                {"match": {"call": "keys"}, "do": "drop_request"},
            )
            await till.resolve()
            still = till.journal.payment(payment.id).state
            world.fault()
            await till.resolve()
            return still, till.journal.payment(payment.id).state

    assert world.run(main()) == (State.OFFLINE, State.APPROVED)


def test_what_the_host_can_no_longer_open_is_told_as_lost(make):
    """Its card is sealed under a key that only seals: nobody here can seal it again."""
    world = make()

    async def main():
        async with world.activated(reader=HandedReader(VISA)) as till:
            payment = await stored(world, till)
            told = Told(till)
            await control(world, superseded=True)
            await till.resolve()
            still = till.journal.payment(payment.id).state  # what its first key set let in may be under way
            await asyncio.sleep(400)
            await till.resolve()
            known = till.journal.payment(payment.id)
            return (
                still,
                known.state,
                known.outcome,
                [event.reference for event in told[OfflineLost]],
                await world.books(),
            )

    assert world.run(main()) == (State.FORWARDING, State.LOST, Outcome.APPROVED, ["o"], [])


def test_what_waits_is_voided_by_the_till_and_never_sent(make):
    world = make()

    async def main():
        async with world.activated(reader=HandedReader(VISA)) as till:
            payment = await stored(world, till)
            voided = await till.void("o")
            await till.resolve()
            await asyncio.sleep(60)
            return voided.state, till.journal.request(payment.id), await world.books()

    assert world.run(main()) == (State.WITHDRAWN, None, [])
