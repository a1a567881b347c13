"""Refunds that were approved are looked at again: also those of before a start, and after looks in vain."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from hw.card import ManualCard
from terminal.money import Amount
from terminal.payment import State
from tests.terminal.worlds import going_on

TYPED = ManualCard("4111111111111111", "2812")
FAILS_LATER = Amount(1245, "EUR")
"""The simulator approves a refund of it, and fails it afterwards."""


@pytest.fixture
def world(make):
    """Its host fails refunds a minute after it has approved them."""
    return make(refund_fails_after=60)


async def refunded(till):
    """A charge, and a refund of it that the host will fail."""
    paid = await till.charge(FAILS_LATER, reference="r", card=TYPED)
    await till.refund(paid.charge_id, reason="broken")


def states(till):
    return [payment.state for payment in till.journal.payments()]


def test_refunds_of_before_the_start_are_looked_at_again(world):
    async def main():
        async with world.activated() as till:
            await refunded(till)
        await asyncio.sleep(3600)
        async with world.terminal() as till:
            await going_on(till, 10)
            return states(till), till.resolver.next_due()

    assert world.run(main()) == ([State.APPROVED, State.FAILED], None)


def test_a_look_that_a_start_was_too_short_for_is_made_by_the_next_one(world):
    async def main():
        async with world.activated() as till:
            await refunded(till)
        await asyncio.sleep(600)
        async with world.terminal() as till:  # writes, and goes before it has looked
            await till.charge(Amount(1250, "EUR"), reference="s", card=TYPED)
        async with world.terminal() as till:
            await going_on(till, 10)
            return states(till), till.journal.refunds_seen() is not None

    assert world.run(main()) == ([State.APPROVED, State.FAILED, State.APPROVED], True)


def test_a_look_in_vain_is_made_after_the_next_start(world):
    def no_looks(request):
        if "/pos/refund/" in request.url.path:
            raise httpx.ConnectError("no way", request=request)

    async def main():
        async with world.activated() as till:
            await refunded(till)
            world.network.before = no_looks
            await going_on(till, 130)
            before = states(till)
            world.network.before = lambda request: None
        async with world.terminal() as till:
            await going_on(till, 10)
            return before, states(till)

    assert world.run(main()) == ([State.REFUNDED, State.APPROVED], [State.APPROVED, State.FAILED])


def test_without_look_ups_nobody_asks_what_became_of_refunds(make):
    world, host = make(offers_lookup=False, refund_fails_after=60), {"offers_lookup": False}

    async def main():
        async with world.activated(host=host) as till:
            await refunded(till)
            before = till.resolver.next_due()
        async with world.terminal(host=host) as till:
            return before, till.resolver.next_due()

    assert world.run(main()) == (None, None)
