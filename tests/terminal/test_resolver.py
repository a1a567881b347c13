"""What goes on in the background: one step at a time, between payments, with waits that grow and end at once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from hw.card import ManualCard
from sim.network import Trip
from sim.world import World
from terminal.errors import JournalUnwritable
from terminal.events import Overdue
from terminal.money import Amount
from terminal.payment import Kind, Outcome, State
from terminal.resolver import WAIT_FIRST, WAIT_MOST
from tests.terminal.worlds import Told, doubtful, going_on, lose, paying

TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY = Amount(1250, "EUR")
DAY = 86_400


@pytest.fixture
def world(tmp_path):
    with World(tmp_path) as world:
        yield world


def charge(till, reference="r", **words):
    return till.charge(TWELVE_FIFTY, reference=reference, card=TYPED, **words)


def test_a_doubt_is_resolved_while_new_payments_are_taken(world):
    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        keeping = asyncio.create_task(till.keep())
        new = [await charge(till, f"order-{n}") for n in range(3)]
        await asyncio.sleep(90)
        keeping.cancel()
        return [payment.state for payment in (*new, till.journal.charge_by_reference("r"))]

    assert paying(world, scenario) == ([State.APPROVED] * 4, [])


def test_with_nothing_open_there_is_nothing_to_do(world):
    async def scenario(till):
        await charge(till)
        return till.resolver.next_due()

    assert paying(world, scenario) == (None, [])


def test_waits_grow_and_are_bounded_and_end_when_the_host_answers_anything(world):
    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        till.abandon("r")
        world.network.before = _unreachable
        waits = await going_on(till, 7200)
        world.network.before = lambda request: None
        before = till.resolver.next_due()
        await charge(till, "other")
        await till.resolver.round()
        return waits, before, till.journal.charge_by_reference("r").state

    (waits, before, state), found = paying(world, scenario)
    assert waits[0] == 0
    assert all(WAIT_FIRST <= wait <= WAIT_MOST for wait in waits[1:])
    assert max(waits) > 60
    assert len(waits) > 15
    assert before > 0
    assert (state, found) == (State.CANCELED, [])


def test_a_payment_that_never_gets_an_answer_keeps_no_other_from_its_own(world):
    def meddle(request):
        if b"first" in request.url.query:
            raise httpx.ReadError("lost", request=request)

    async def scenario(till):
        await doubtful(world, charge(till, "first"), acted=True)
        await doubtful(world, charge(till, "second"), acted=True)
        world.network.before = meddle
        await going_on(till, 1800)
        world.network.before = lambda request: None
        states = [payment.state for payment in till.journal.payments() if payment.kind is Kind.CHARGE]
        await going_on(till, 1800)
        return states, till.journal.charge_by_reference("first").state

    (states, first), found = paying(world, scenario)
    assert states[0] in (State.IN_DOUBT, State.ABANDONED)
    assert states[1] in (State.APPROVED, State.CANCELED)
    assert (first, found) == (State.CANCELED, [])


def test_a_payment_that_comes_does_not_wait_for_a_step_that_hangs(world):
    async def scenario(till):
        await doubtful(world, charge(till, "old"), acted=True)
        world.network.trip = lambda request: Trip(back=14.0 if b"old" in request.url.query else 0.0)
        going = asyncio.create_task(till.resolver.round())
        await asyncio.sleep(1)
        began = world.loop.time()
        new = await charge(till, "new")
        took = world.loop.time() - began
        await going
        world.network.trip = lambda request: Trip()
        await going_on(till, 60)
        return new.state, took, till.journal.charge_by_reference("old").state

    (new, took, old), found = paying(world, scenario)
    assert (new, old, found) == (State.APPROVED, State.APPROVED, [])
    assert took < 5


def test_a_step_that_payments_break_off_again_and_again_keeps_no_other_from_its_own(world):
    async def scenario(till):
        await doubtful(world, charge(till, "slow"), acted=True)
        await doubtful(world, charge(till, "quick"), acted=True)
        world.network.trip = lambda request: Trip(back=14.0 if b"slow" in request.url.query else 0.0)
        for n in range(2):
            going = asyncio.create_task(till.resolver.round())
            await asyncio.sleep(1)
            await charge(till, f"new-{n}")
            await going
        return till.journal.charge_by_reference("quick").state

    assert paying(world, scenario)[0] is State.APPROVED


def test_what_is_overdue_is_told_once(world):
    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        told = Told(till)
        end = lose(world, acted=False)
        await going_on(till, 3600)
        end()
        return [(event.reference, event.state, event.person) for event in told[Overdue]]

    assert paying(world, scenario)[0] == [("r", "abandoned", False)]


def test_what_waits_for_a_person_is_told_once_at_each_start(make):
    world, cannot_be_asked = make(offers_lookup=False, key_set_life=30 * DAY), {"offers_lookup": False}

    async def main():
        async with world.activated(host=cannot_be_asked) as till:
            await doubtful(world, charge(till), acted=True)
        await asyncio.sleep(DAY)  # the host has forgotten the key
        starts = []
        for _ in range(2):
            async with world.terminal(host=cannot_be_asked) as till:
                told = Told(till)
                await going_on(till, 3600)
                starts.append([event.person for event in told[Overdue]])
        return starts

    assert world.run(main()) == [[True], [True]]


def test_what_is_old_is_told_again_where_it_comes_to_wait_for_a_person(make):
    world = make(offers_lookup=False, key_set_life=30 * DAY)

    async def scenario(till):
        told = Told(till)
        await doubtful(world, charge(till), acted=True)
        end = lose(world, acted=False)
        await going_on(till, DAY)
        end()
        return [(event.person, event.seconds < DAY / 2) for event in told[Overdue]]

    assert paying(world, scenario, host={"offers_lookup": False})[0] == [(False, True), (True, False)]


def test_what_is_old_is_told_of_where_nothing_can_be_written(world):
    async def scenario(till):
        told = Told(till)
        await doubtful(world, charge(till), acted=True)
        world.disk_faults({"do": "full", "match": {"op": "commit"}})
        await asyncio.sleep(DAY)
        for _ in range(2):
            with pytest.raises(JournalUnwritable):
                await till.resolver.round()
        world.disk_faults()
        await till.resolve()
        return [(event.reference, event.state, event.person) for event in told[Overdue]]

    assert paying(world, scenario)[0] == [("r", "in_doubt", False)]


def test_a_held_charge_is_undone_when_its_time_is_over_and_not_before(world):
    async def scenario(till):
        await charge(till, hold=True)
        due = till.resolver.next_due()
        await going_on(till, 170)
        held = till.journal.charge_by_reference("r").state
        await going_on(till, 20)
        return due, held, till.journal.charge_by_reference("r").state

    (due, held, state), found = paying(world, scenario)
    assert (due, held, state, found) == (180, State.HELD, State.CANCELED, [])


def test_a_terminal_that_is_not_activated_any_more_tries_nobody_and_stands_it(world):
    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        await world.ask("POST", f"/sim/devices/{world.device['device_id']}", {"unclaimed": True})
        await going_on(till, 600)
        return till.journal.charge_by_reference("r").outcome

    assert paying(world, scenario)[0] is Outcome.PENDING


def _unreachable(request):
    raise httpx.ConnectError("no way", request=request)


def test_a_till_that_takes_one_payment_after_the_other_does_not_keep_what_is_owed_waiting(world):
    async def scenario(till):
        await charge(till, "held", hold=True)
        keeping = asyncio.create_task(till.keep())
        world.network.trip = lambda request: Trip(there=4.0 if request.url.path == "/pos/charge" else 0.0)
        loop = asyncio.get_running_loop()
        until, number = loop.time() + 400, 0
        while loop.time() < until:
            await charge(till, f"order-{number}")
            number += 1
        keeping.cancel()
        return till.journal.charge_by_reference("held").state

    assert paying(world, scenario) == (State.CANCELED, [])


def test_a_reversal_of_what_the_host_does_not_know_any_more_is_for_a_person(world):
    async def scenario(till):
        told = Told(till)
        await charge(till, hold=True)
        world.fault(
            {"match": {"call": "cancel"}, "do": "status", "status": 409, "code": "4090"},
            {"match": {"call": "charge_lookup"}, "do": "status", "status": 404, "code": "4040"},
            {"match": {"call": "refund"}, "do": "status", "status": 404, "code": "4040"},
        )
        await till.void("r")
        await till.resolve()
        await going_on(till, 3600)  # it grows old, which says less than has been told
        world.fault()
        return [event.person for event in told[Overdue]]

    assert paying(world, scenario)[0] == [True]
