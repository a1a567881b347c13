"""Which outcomes a till is given again: what it asked for and has not heard of, and nothing else."""

from __future__ import annotations

import pytest

from hw.card import ManualCard
from terminal.errors import HostRefused, HostUnreachable
from terminal.money import Amount
from terminal.payment import State
from tests.terminal.worlds import doubtful, paying

TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY = Amount(1250, "EUR")


def charge(till, **words):
    return till.charge(TWELVE_FIFTY, reference="r", card=TYPED, **words)


async def settle(world):
    await world.ask("POST", "/sim/settle", {})


@pytest.mark.parametrize("settled", [False, True])
def test_what_undid_a_charge_is_no_outcome_for_who_voided_it(make, settled):
    world = make()

    async def scenario(till):
        await charge(till, hold=True)
        if settled:
            await settle(world)
        voided = await till.void("r")
        return voided.state, till.outcomes()

    assert paying(world, scenario)[0] == (State.REVERSED if settled else State.CANCELED, [])


@pytest.mark.parametrize("acknowledgement", ["return", "explicit"])
def test_of_a_charge_that_was_undone_alone_the_charge_itself_is_told(make, acknowledgement):
    world = make()

    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        till.abandon("r")
        await till.resolve()
        return [(told.kind.value, told.state) for told in till.outcomes()]

    assert paying(world, scenario, acknowledgement=acknowledgement) == ([("charge", State.CANCELED)], [])


def test_a_cancel_that_was_refused_has_been_heard_of(make):
    world = make()

    async def scenario(till):
        paid = await charge(till)
        await settle(world)
        with pytest.raises(HostRefused):
            await till.cancel(paid.charge_id)
        return till.outcomes()

    assert paying(world, scenario) == ([], [])


@pytest.mark.parametrize("undo", ["cancel", "refund"])
def test_what_could_not_be_sent_has_been_heard_of(make, undo):
    world = make()

    async def scenario(till):
        paid = await charge(till)
        world.fault({"do": "unreachable", "how": "refused"})
        with pytest.raises(HostUnreachable):
            await (till.cancel(paid.charge_id) if undo == "cancel" else till.refund(paid.charge_id, reason="x"))
        return till.journal.payments()[-1].state, till.outcomes()

    assert paying(world, scenario) == ((State.WITHDRAWN, []), [])
