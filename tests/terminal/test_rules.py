"""One test for each rule of recovery (``docs/recovery.md`` lists them), on the real terminal and the real host."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import httpx
import pytest

from hw.card import ManualCard, StripeCard
from sim.host.ledger import Refund, to_ms
from sim.network import Trip
from sim.reader.handed import HandedReader
from terminal.errors import HostRefused, HostUnreachable, PaymentRefused
from terminal.events import OfflineLost, Overdue, RefundFailed, RestoredImageSuspected, SuspectedDuplicate
from terminal.money import Amount
from terminal.payment import Happened, Kind, Outcome, State
from tests.terminal.worlds import Told, control, doubtful, forgotten, happened, lose, paying, sent

TYPED = ManualCard("4111111111111111", "2812")
VISA = StripeCard(
    pan="4761739001010119", expiry="2812", service_code="201", track2="4761739001010119=28122011143804400000"
)
TWELVE_FIFTY = Amount(1250, "EUR")
DAY = 86_400
GONE = 121
"""Seconds after which a shopper whom nobody asks for counts as gone."""
NO_LOOKUP = {"host": {"offers_lookup": False}}


def charge(till, reference="r", amount=TWELVE_FIFTY, **words):
    return till.charge(amount, reference=reference, card=TYPED, **words)


def away(request):
    raise httpx.ConnectError("no", request=request)


async def statuses(world):
    return [one["status"] for one in await world.books()]


# -- the answer was lost ----------------------------------------


def test_an_answer_dropped_after_the_host_has_charged_is_looked_up_and_the_charge_is_approved(make):
    world = make()

    async def scenario(till):
        world.fault({"match": {"call": "charge"}, "do": "drop_answer"})
        return (await charge(till)).state, await statuses(world)

    assert paying(world, scenario) == ((State.APPROVED, ["approved"]), [])


@pytest.mark.parametrize("acted", [True, False])
def test_a_look_up_comes_before_the_same_bytes_under_the_same_key(make, acted):
    world = make()

    async def scenario(till):
        doubt = await doubtful(world, charge(till), acted=acted)
        before = world.network.requests[:]
        (known,) = await till.resolve()
        return doubt.id, before, known.state

    (key, before, state), found = paying(world, scenario)
    after = [request for request in world.network.requests if request not in before]
    assert (state, found) == (State.APPROVED, [])
    assert [request.method for request in after] == (["GET"] if acted else ["GET", "POST"])
    bodies = {request.content for request in world.network.requests if request.content}
    assert len(bodies) == 1
    assert {request.headers["idempotency-key"] for request in world.network.requests if request.content} == {key}


def test_a_shopper_who_has_gone_pays_nothing_the_charge_is_found_and_canceled(make):
    world = make()

    async def scenario(till):
        doubt = await doubtful(world, charge(till), acted=True)
        await asyncio.sleep(GONE)
        times = sent(world)
        (known,) = await till.resolve()
        return known, happened(till, doubt.id)[-3:], sent(world) - times, await statuses(world)

    (known, last, again, books), found = paying(world, scenario)
    assert (known.state, known.outcome) == (State.CANCELED, Outcome.DECLINED)
    assert last == [Happened.LEFT, Happened.APPROVED, Happened.CANCELED]
    assert (again, books, found) == (0, ["canceled"], [])


def test_that_the_host_has_nothing_is_a_proof_only_once_nothing_can_arrive_any_more(make):
    world = make()

    async def scenario(till):
        await doubtful(world, charge(till), acted=False)
        states = []
        for wait in (GONE, 300):
            await asyncio.sleep(wait)
            states += [payment.state for payment in await till.resolve()]
        return states, happened(till, till.journal.payments()[0].id).count(Happened.SENT_AGAIN)

    assert paying(world, scenario) == (([State.ABANDONED, State.WITHDRAWN], 0), [])


def test_a_charge_that_arrives_after_the_first_look_up_is_canceled_by_a_later_one(make):
    """A cancel that would overtake its charge is not sent: there is nothing to cancel yet, nor is it given up."""
    world = make()

    async def scenario(till):
        world.network.trip = lambda request: Trip(there=200.0 if request.method == "POST" else 0.0)
        doubt = await charge(till)
        world.network.trip = lambda request: Trip()
        till.abandon("r")
        (not_yet,) = await till.resolve()
        await asyncio.sleep(200)
        (known,) = await till.resolve()
        return doubt.state, not_yet.state, known.state, await statuses(world)

    (doubt, not_yet, known, books), found = paying(world, scenario)
    assert (doubt, not_yet, known) == (State.IN_DOUBT, State.ABANDONED, State.CANCELED)
    assert (books, found) == (["canceled"], [])


@pytest.mark.parametrize("acted", [True, False])
def test_without_look_ups_the_last_resort_sends_again_and_cancels_at_once(make, acted):
    world = make(offers_lookup=False)

    async def scenario(till):
        doubt = await doubtful(world, charge(till), acted=acted)
        await asyncio.sleep(GONE)
        (known,) = await till.resolve()
        return known.state, happened(till, doubt.id), await statuses(world)

    (state, all_of_it, books), found = paying(world, scenario, **NO_LOOKUP)
    assert (state, books, found) == (State.CANCELED, ["canceled"], [])
    assert all_of_it[-4:] == [Happened.LEFT, Happened.SENT_TO_CANCEL, Happened.APPROVED, Happened.CANCELED]


def test_without_look_ups_and_with_the_key_forgotten_only_a_person_can_say(make):
    world = make(offers_lookup=False, key_set_life=30 * DAY)

    async def scenario(till):
        doubt = await doubtful(world, charge(till), acted=True)
        told = Told(till)
        await asyncio.sleep(DAY)
        times = sent(world)
        await till.resolve()
        (alarm,) = [event for event in told[Overdue] if event.person]
        with pytest.raises(PaymentRefused, match="takes the host's id"):
            till.settle_by_hand(doubt.id, taken=True, who="Ada")
        charge_id = (await world.books())[0]["id"]
        owed = till.settle_by_hand(doubt.id, taken=True, who="Ada", charge_id=charge_id)
        (known,) = await till.resolve()
        return alarm.payment_id == doubt.id, owed.state, known.state, known.note, sent(world) - times

    result, found = paying(world, scenario, **NO_LOOKUP)
    assert result == (True, State.REVERSING, State.CANCELED, "Ada: taken", 0)
    assert found == []


# -- who is there ----------------------------------------


@pytest.mark.parametrize(("back", "state"), [(60, State.APPROVED), (600, State.CANCELED)])
def test_after_a_restart_the_shopper_is_there_for_as_long_as_the_payment_is_young(make, back, state):
    world = make()

    async def main():
        async with world.activated() as till:
            await doubtful(world, charge(till), acted=True)
        await asyncio.sleep(back)
        async with world.terminal() as till:
            (known,) = await till.resolve()
            return known.state, len(await world.books())

    assert world.run(main()) == (state, 1)


def test_who_asks_again_is_there_however_late(make):
    world = make()

    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        await asyncio.sleep(600)
        return (await charge(till)).state

    assert paying(world, scenario) == (State.APPROVED, [])


def test_who_was_given_up_does_not_come_back(make):
    world = make()

    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        assert till.abandon("r").state is State.ABANDONED
        return (await charge(till)).state

    assert paying(world, scenario) == (State.CANCELED, [])


def test_a_charge_whose_caller_is_cancelled_is_undone(make):
    world = make()

    async def scenario(till):
        world.network.trip = lambda request: Trip(back=5.0)
        asking = asyncio.create_task(charge(till))
        await asyncio.sleep(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        (left,) = till.journal.payments()
        (known,) = await till.resolve()
        return left.state, known.state, await statuses(world)

    assert paying(world, scenario) == ((State.ABANDONED, State.CANCELED, ["canceled"]), [])


def test_who_asks_again_and_is_cancelled_before_the_turn_comes_has_left_too(make):
    world = make()

    async def scenario(till):
        await doubtful(world, charge(till), acted=False)
        world.network.trip = lambda request: Trip(back=5.0)
        other = asyncio.create_task(charge(till, "s"))
        await asyncio.sleep(1)
        asking = asyncio.create_task(charge(till))
        await asyncio.sleep(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        times = sent(world)
        state = till.journal.charge_by_reference("r").state
        await other
        await till.resolve()
        return state, sent(world) - times

    assert paying(world, scenario)[0] == (State.ABANDONED, 0)


def test_an_approval_that_comes_after_the_till_has_given_up_is_undone(make):
    world = make()

    async def scenario(till):
        world.network.trip = lambda request: Trip(back=5.0)
        asking = asyncio.create_task(charge(till))
        await asyncio.sleep(1)
        till.abandon("r")
        return (await asking).state, await statuses(world)

    assert paying(world, scenario) == ((State.CANCELED, ["canceled"]), [])


def test_a_request_that_did_not_get_through_is_not_tried_again_once_the_till_has_given_up(make):
    world = make()

    async def scenario(till):
        def lost(request):
            if request.method == "POST":
                till.abandon("r")
                raise httpx.ReadError("lost", request=request)

        world.network.before = lost
        return (await charge(till)).state, sent(world)

    assert paying(world, scenario)[0] == (State.ABANDONED, 1)


def test_nor_once_the_shopper_counts_as_gone_in_the_middle_of_it(make):
    world = make()

    async def scenario(till):
        await doubtful(world, charge(till), acted=False)
        await asyncio.sleep(GONE - 1.01)
        before = sent(world)
        world.fault({"match": {"call": "charge"}, "do": "drop_request", "how": "cut"})
        await till.resolve()
        return sent(world) - before

    assert paying(world, scenario)[0] == 1


def test_a_new_attempt_after_the_till_has_given_up_is_not_sent_again_with_new_keys(make):
    world = make()

    async def scenario(till):
        await control(world, superseded=True)
        world.network.after = lambda request: till.abandon("r") if request.url.path == "/pos/keys" else None
        with pytest.raises(HostRefused, match="4011"):
            await charge(till)
        return till.journal.payments()[0].state, await statuses(world)

    assert paying(world, scenario) == ((State.REFUSED, []), [])
    assert sent(world) == 1


# -- cancels ----------------------------------------


def test_a_cancel_repeats_until_it_is_acknowledged_and_alarms(make):
    world = make()

    async def scenario(till):
        await charge(till, hold=True)
        end = lose(world, acted=False)
        told = Told(till)
        assert (await till.void("r")).state is State.REVERSING
        for _ in range(3):
            await asyncio.sleep(400)
            await till.resolve()
        alarmed = {(event.kind, event.state) for event in told[Overdue]}
        end()
        await till.resolve()
        (cancel,) = [payment for payment in till.journal.payments() if payment.kind is Kind.CANCEL]
        return alarmed, cancel.state, till.journal.charge_by_reference("r").state

    (alarmed, cancel, state), found = paying(world, scenario)
    assert alarmed == {("charge", "reversing"), ("cancel", "in_doubt")}
    assert (cancel, state, found) == (State.APPROVED, State.CANCELED, [])


@pytest.mark.parametrize("how", ["void", "charge"])
def test_who_voids_again_or_asks_again_need_not_wait_for_the_next_try(make, how):
    world = make()

    async def scenario(till):
        await charge(till, hold=True)
        world.network.before = away
        assert (await till.void("r")).state is State.REVERSING
        (cancel,) = [payment for payment in till.journal.unresolved() if payment.kind is Kind.CANCEL]
        world.network.before = lambda request: None
        again = await (till.void("r") if how == "void" else charge(till))
        return again.state, again.outcome, till.journal.payment(cancel.id).state, await statuses(world)

    expected = (State.CANCELED, Outcome.DECLINED, State.APPROVED, ["canceled"])
    assert paying(world, scenario) == (expected, [])


def test_a_void_while_the_host_is_away_changes_nothing_of_what_is_owed(make):
    world = make()

    async def scenario(till):
        await charge(till, hold=True)
        world.network.before = away
        for _ in range(3):
            assert (await till.void("r")).state is State.REVERSING
        owed = [payment.kind for payment in till.journal.unresolved()]
        world.network.before = lambda request: None
        await till.resolve()
        return owed, await statuses(world)

    assert paying(world, scenario) == (([Kind.CHARGE, Kind.CANCEL], ["canceled"]), [])


@pytest.mark.parametrize("lookup", [True, False])
def test_a_cancel_that_comes_after_settlement_becomes_a_refund_of_all(make, lookup):
    world = make(offers_lookup=lookup)

    async def scenario(till):
        await charge(till, hold=True)
        await world.ask("POST", "/sim/settle", {})
        known = await till.void("r")
        return known.state, [(p.kind, p.state, p.reference) for p in till.journal.payments()[1:]]

    (state, children), found = paying(world, scenario, host={"offers_lookup": lookup})
    assert (state, found) == (State.REVERSED, [])
    assert children == [(Kind.CANCEL, State.REFUSED, ""), (Kind.REFUND, State.APPROVED, "reversal")]


@pytest.mark.parametrize(("times", "state", "person"), [(1, State.REVERSED, 0), (2, State.REVERSING, 1)])
def test_the_refund_that_undoes_is_tried_twice(make, times, state, person):
    world = make()

    async def scenario(till):
        await charge(till, hold=True)
        await world.ask("POST", "/sim/settle", {})
        world.fault({"match": {"call": "refund", "times": times}, "do": "status", "status": 409})
        told = Told(till)
        await till.void("r")
        await asyncio.sleep(1)
        await till.resolve()
        (known,) = [p for p in till.journal.payments() if p.kind is Kind.CHARGE]
        ids = {p.id for p in till.journal.payments() if p.kind is Kind.REFUND}
        return known.state, len(ids), sum(event.person for event in told[Overdue])

    assert paying(world, scenario)[0] == (state, 2, person)


def test_a_late_approval_of_what_was_written_off_is_taken_back(make):
    world = make()

    async def scenario(till):
        world.network.before = _unreachable
        with pytest.raises(HostUnreachable):
            await charge(till)
        world.network.before = lambda request: None
        (withdrawn,) = till.journal.payments()
        other = await charge(till, "s")
        world.ledger._connection.execute(
            "UPDATE charges SET reference='r', idempotency_key=? WHERE id=?", (withdrawn.id, other.charge_id)
        )
        till.journal.record(other.id, Happened.FAILED, world.loop.now(), charge_id="")
        facts = {"charge_id": other.charge_id, "approved": TWELVE_FIFTY}
        till.journal.record(withdrawn.id, Happened.LATE, world.loop.now(), **facts)
        await till.resolve()
        return till.journal.payment(withdrawn.id).state, await statuses(world)

    assert paying(world, scenario)[0] == (State.CANCELED, ["canceled"])


def _unreachable(request):
    if "/charge" in request.url.path:
        raise httpx.ConnectError("no way", request=request)


# -- answers that do not fit ----------------------------------------


@pytest.mark.parametrize("decision", ["confirm", "void", "silence"])
def test_a_partial_approval_waits_for_the_till(make, decision):
    world = make()

    async def scenario(till):
        held = await charge(till, amount=Amount(1230, "EUR"))
        if decision == "silence":
            await asyncio.sleep(181)
            (known,) = await till.resolve()
        else:
            known = await getattr(till, decision)("r")
        return held.state, held.approved, held.outcome, known.state, known.outcome

    result, found = paying(world, scenario)
    ends = (State.APPROVED, Outcome.APPROVED) if decision == "confirm" else (State.CANCELED, Outcome.DECLINED)
    assert result == (State.HELD, Amount(615, "EUR"), Outcome.PENDING, *ends)
    assert found == []


def test_an_answer_for_another_amount_is_not_believed_and_the_host_is_asked(make):
    world = make()

    async def scenario(till):
        world.fault({"match": {"call": "charge"}, "do": "other_amount"})
        known = await charge(till)
        return known.state, known.approved

    assert paying(world, scenario) == ((State.APPROVED, TWELVE_FIFTY), [])


def test_a_charge_for_another_amount_is_never_approved_and_canceled_once_the_shopper_has_gone(make):
    world = make()

    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        world.ledger._connection.execute("UPDATE charges SET amount = amount + 1")
        (still,) = await till.resolve()
        till.abandon("r")
        (known,) = await till.resolve()
        return still.state, known.state, await statuses(world)

    assert paying(world, scenario)[0] == (State.IN_DOUBT, State.CANCELED, ["canceled"])


def test_a_charge_id_seen_before_is_not_believed(make, monkeypatch):
    world = make()

    async def scenario(till):
        first = await charge(till, "first")
        client = till._exchange._client
        asked = client.charge

        async def seen_before(*words):
            return replace(await asked(*words), id=first.charge_id)

        monkeypatch.setattr(client, "charge", seen_before)
        second = await charge(till, "second")
        return second.state, second.charge_id != first.charge_id

    assert paying(world, scenario) == ((State.APPROVED, True), [])


def test_a_charge_of_ours_whose_id_another_reference_was_told_is_never_taken_for_none(make, monkeypatch):
    world = make()

    async def scenario(till):
        doubt = await doubtful(world, charge(till, "first"), acted=True)
        (booked,) = await world.books()
        client = till._exchange._client
        asked = client.charge

        async def of_the_first(*words):
            return replace(await asked(*words), id=booked["id"])

        monkeypatch.setattr(client, "charge", of_the_first)
        await charge(till, "second")
        told = Told(till)
        await asyncio.sleep(2 * DAY)
        times = sent(world)
        (known,) = await till.resolve()
        (alarm,) = [event for event in told[Overdue] if event.person]
        assert known.id == alarm.payment_id == doubt.id
        return known.state, sent(world) - times

    result, found = paying(world, scenario)
    assert result == (State.ABANDONED, 0)
    assert [words.partition(" ")[2] for words in found] == [
        "(second): they differ in charge_id",
        "not resolved (abandoned)",
    ]


def test_a_status_of_500_is_no_outcome_also_under_a_key(make):
    world = make(offers_lookup=False)

    async def scenario(till):
        world.fault({"match": {"call": "charge"}, "do": "status", "status": 500, "acted": True})
        doubt = await charge(till)
        world.fault()
        return doubt.state, (await charge(till)).state

    assert paying(world, scenario, **NO_LOOKUP) == ((State.IN_DOUBT, State.APPROVED), [])


@pytest.mark.parametrize("lookup", [True, False])
def test_a_request_that_the_network_delivers_twice_is_not_refused_by_the_second_answer(make, lookup):
    """The nonce of the second copy was used before: the host has acted on the first."""
    world = make(offers_lookup=lookup)

    async def scenario(till):
        world.fault({"match": {"call": "charge"}, "do": "status", "status": 401, "code": "4010", "acted": True})
        told = await charge(till)
        world.fault()
        return told.state, (await charge(till)).state, await statuses(world)

    first = State.APPROVED if lookup else State.IN_DOUBT
    result = paying(world, scenario, host={"offers_lookup": lookup})
    assert result == ((first, State.APPROVED, ["approved"]), [])


# -- what others do ----------------------------------------


@pytest.mark.parametrize(("theirs", "state"), [(1250, State.REFUNDED), (900, State.PARTIALLY_REFUNDED)])
def test_a_charge_that_somebody_else_refunds_too_is_refunded_once_and_the_journal_learns_it(make, theirs, state):
    world = make()

    async def scenario(till):
        paid = await charge(till)
        now = to_ms(world.loop.now())
        world.ledger.add_refund(
            Refund(0, "rf_x", paid.charge_id, world.device["terminal_id"], None, theirs, "by hand", now, None)
        )
        with pytest.raises(HostRefused, match="4220"):
            await till.refund(paid.charge_id, reason="broken")
        return till.journal.payment(paid.id).state

    assert paying(world, scenario)[0] is state


@pytest.mark.parametrize("lookup", [True, False])
@pytest.mark.parametrize("theirs", [0, 1000])
def test_a_refund_in_doubt_that_is_refused_for_more_than_is_left(make, lookup, theirs):
    """What was given back in part may be this very refund, and what was not may be under way: it stays in doubt."""
    world = make(offers_lookup=lookup)

    async def scenario(till):
        paid = await charge(till)
        refund = await doubtful(world, till.refund(paid.charge_id, Amount(400, "EUR"), reason="cold"), acted=False)
        now = to_ms(world.loop.now())
        if theirs:
            world.ledger.add_refund(
                Refund(0, "rf_x", paid.charge_id, world.device["terminal_id"], None, theirs, "by hand", now, None)
            )
        else:
            world.fault({"match": {"call": "refund"}, "do": "status", "status": 422, "code": "4220"})
        known = await till.refund(paid.charge_id, Amount(400, "EUR"), reason="cold")
        assert known.id == refund.id
        return known.state

    assert paying(world, scenario, host={"offers_lookup": lookup})[0] is State.IN_DOUBT


def test_a_refund_of_all_in_doubt_needs_no_other_where_all_was_given_back(make):
    world = make()

    async def scenario(till):
        paid = await charge(till)
        await doubtful(world, till.refund(paid.charge_id, reason="cold"), acted=False)
        now = to_ms(world.loop.now())
        world.ledger.add_refund(
            Refund(0, "rf_x", paid.charge_id, world.device["terminal_id"], None, 1250, "by hand", now, None)
        )
        (known,) = await till.resolve()
        return known.state, till.journal.payment(paid.id).state, len((await world.books())[0]["refunds"])

    assert paying(world, scenario)[0] == (State.APPROVED, State.REFUNDED, 1)


def test_where_the_host_cannot_be_asked_about_that_refund_it_stays_in_doubt(make):
    world = make()

    async def scenario(till):
        paid = await charge(till)
        refund = await doubtful(world, till.refund(paid.charge_id, reason="cold"), acted=False)
        world.fault(
            {"match": {"call": "refund"}, "do": "status", "status": 422, "code": "4220"},
            {"match": {"call": "charge_lookup"}, "do": "drop_answer"},
        )
        (doubt,) = await till.resolve()
        world.fault()
        await till.resolve()
        return doubt.state, till.journal.payment(refund.id).state

    assert paying(world, scenario) == ((State.IN_DOUBT, State.APPROVED), [])


@pytest.mark.parametrize("status", ["canceled", "refunded", "partially_refunded"])
def test_what_the_back_office_did_to_a_charge_in_doubt_is_adopted(make, status):
    world = make()

    async def scenario(till):
        await doubtful(world, charge(till), acted=True)
        charge_id = (await world.books())[0]["id"]
        now = to_ms(world.loop.now())
        if status == "canceled":
            world.ledger.cancel(charge_id, now)
        else:
            theirs = 1250 if status == "refunded" else 900
            world.ledger.add_refund(
                Refund(0, "rf_x", charge_id, world.device["terminal_id"], None, theirs, "by hand", now, None)
            )
        (known,) = await till.resolve()
        return known.state.value, known.approved

    assert paying(world, scenario)[0] == (status, TWELVE_FIFTY)


def test_a_409_means_that_the_host_has_seen_the_key_so_an_old_image_charges_nothing_twice(make):
    world = make()

    async def main():
        async with world.activated():
            pass
        with forgotten(world):
            async with world.terminal() as till:
                paid = await charge(till)
        async with world.terminal() as till:
            told = Told(till)
            known = await charge(till)
            suspected = told[RestoredImageSuspected]
        return paid, known, [event.reference for event in suspected], await statuses(world)

    paid, known, suspected, books = world.run(main())
    assert (known.state, known.id, known.charge_id) == (State.APPROVED, paid.id, paid.charge_id)
    assert (suspected, books) == (["r"], ["approved"])
    assert world.network.paths()[-2:] == ["POST /pos/charge", "GET /pos/charge"]


def test_an_image_older_than_the_hosts_memory_looks_up_before_it_sends(make):
    world = make(key_set_life=30 * DAY)

    async def main():
        async with world.activated() as till:
            await charge(till, "before")
        with forgotten(world):
            async with world.terminal() as till:
                paid = await charge(till)
        await asyncio.sleep(7 * DAY)
        world.network.requests.clear()
        async with world.terminal() as till:
            told = Told(till)
            known = await charge(till)
            fresh = await charge(till, "after")
            suspected = told[RestoredImageSuspected]
        return paid.charge_id == known.charge_id, known.state, fresh.state, len(suspected), await statuses(world)

    assert world.run(main()) == (True, State.APPROVED, State.APPROVED, 1, ["approved"] * 3)
    assert world.network.paths() == ["GET /pos/charge", "GET /pos/charge", "POST /pos/charge"]


def test_an_old_image_refunds_nothing_twice(make):
    world = make(key_set_life=30 * DAY)

    async def main():
        async with world.activated() as till:
            paid = await charge(till)
        with forgotten(world):
            async with world.terminal() as till:
                await till.refund(paid.charge_id, reason="broken")
        await asyncio.sleep(7 * DAY)
        async with world.terminal() as till:
            with pytest.raises(PaymentRefused, match="is refunded"):
                await till.refund(paid.charge_id, reason="broken")
        return [len(one["refunds"]) for one in await world.books()]

    assert world.run(main()) == [1]


def test_keys_rotated_under_an_open_envelope_leave_its_bytes_as_they_are(make):
    world = make(offers_lookup=False)

    async def scenario(till):
        doubt = await doubtful(world, charge(till), acted=True)
        await control(world, superseded=True)
        await asyncio.sleep(GONE)
        (known,) = await till.resolve()
        return doubt.id, known.state, await statuses(world)

    (key, state, books), found = paying(world, scenario, **NO_LOOKUP)
    assert (state, books, found) == (State.CANCELED, ["canceled"], [])
    posts = [request for request in world.network.requests if request.headers.get("idempotency-key") == key]
    assert len({request.content for request in posts}) == 1
    assert len({request.headers["x-key-id"] for request in posts}) == 2


def test_the_same_card_and_amount_again_is_reported_and_not_refused(make):
    world = make()

    async def scenario(till):
        told = Told(till)
        first, second = await charge(till, "order-1"), await charge(till, "order-2")
        await charge(till, "order-3", Amount(1300, "EUR"))
        await asyncio.sleep(301)
        later = await charge(till, "order-4")
        (event,) = told[SuspectedDuplicate]
        return first, second, later, event

    (first, second, later, event), found = paying(world, scenario)
    assert (event.duplicate_of, event.earlier_reference, event.reference) == (first.id, "order-1", "order-2")
    assert (second.state, second.duplicate_of, later.duplicate_of) == (State.APPROVED, first.id, "")
    assert TYPED.pan not in first.card
    assert found == []


# -- a charge that waits ----------------------------------------


@pytest.mark.parametrize("restart", [True, False])
def test_a_held_charge_is_confirmed_or_else_undone_after_a_while(make, restart):
    world = make()

    async def main():
        async with world.activated() as till:
            first = await charge(till, "first", hold=True)
            await charge(till, "second", hold=True)
            confirmed = await till.confirm("first")
            assert await till.confirm("first") == confirmed
            if not restart:
                await asyncio.sleep(181)
                await till.resolve()
                return first.state, [p.state for p in till.journal.payments()]
        await asyncio.sleep(181)
        async with world.terminal() as till:
            await till.resolve()
            with pytest.raises(PaymentRefused, match="cannot be confirmed"):
                await till.confirm("second")
            return first.state, [p.state for p in till.journal.payments()]

    held, states = world.run(main())
    assert held is State.HELD
    assert states == [State.APPROVED, State.CANCELED, State.APPROVED]  # the last is the cancel


# -- pending, and who hears of it ----------------------------------------


def test_a_pending_charge_is_a_handle_that_becomes_an_outcome(make):
    world = make(pending_life=60)

    async def scenario(till):
        pending = await charge(till, amount=Amount(1240, "EUR"))
        still = await till.outcome(pending.id, timeout=1)
        return pending.outcome, still.outcome, (await till.outcome(pending.id)).outcome

    assert paying(world, scenario) == ((Outcome.PENDING, Outcome.PENDING, Outcome.APPROVED), [])


def test_outcomes_are_given_again_until_they_are_acknowledged(make):
    world = make()

    async def main():
        async with world.activated(acknowledgement="explicit") as till:
            paid = await charge(till)
        async with world.terminal(acknowledgement="explicit") as till:
            before = till.outcomes()
            till.acknowledge(paid.id)
            after = till.outcomes()
        async with world.terminal(acknowledgement="explicit") as till:
            return [p.id for p in before] == [paid.id], after, till.outcomes()

    assert world.run(main()) == (True, [], [])


def test_what_a_caller_was_given_is_acknowledged_and_what_it_died_of_is_not(make):
    world = make()

    class Killed(BaseException):
        pass

    def kill(request):
        raise Killed

    async def main():
        async with world.activated() as till:
            await charge(till, "heard")
            world.network.after = kill
            with pytest.raises(Killed):
                await charge(till, "unheard")
        world.network.after = lambda request: None
        async with world.terminal() as till:
            await till.resolve()
            return [payment.reference for payment in till.outcomes()]

    assert world.run(main()) == ["unheard"]


@pytest.mark.parametrize("amount", [Amount(400, "EUR"), None])
@pytest.mark.parametrize("waits", [False, True], ids=["later", "while the resolver has the turn"])
def test_a_refund_asked_again_before_anybody_heard_how_it_ended_is_the_same_refund(make, amount, waits):
    world, whole = make(), TWELVE_FIFTY if amount is None else amount

    async def scenario(till):
        def refund():
            return till.refund(paid.charge_id, amount, reason="cold")

        async def made():
            return [int(one["amount"]["value"]) for one in (await world.books())[0]["refunds"]]

        paid = await charge(till)
        doubt = await doubtful(world, refund(), acted=True)
        if waits:
            _, known = await asyncio.gather(till.resolver.everything(), refund())
        else:
            await till.resolve()
            known = await refund()
        assert (known.id, known.state, await made()) == (doubt.id, State.APPROVED, [whole.minor])
        with pytest.raises(PaymentRefused) if amount is None else contextlib.nullcontext():
            await refund()
        return await made()

    assert paying(world, scenario)[0] == ([whole.minor] if amount is None else 2 * [whole.minor])


# -- refunds that fail later ----------------------------------------


def test_a_refund_that_the_host_fails_later_is_noticed_and_told(make):
    world = make()

    async def scenario(till):
        paid = await charge(till, amount=Amount(1245, "EUR"))
        refund = await till.refund(paid.charge_id, reason="broken")
        told = Told(till)
        states = [till.journal.payment(paid.id).state]
        await asyncio.sleep(120)
        await till.resolver.round()
        (event,) = told[RefundFailed]
        states.append(till.journal.payment(paid.id).state)
        return states, event.refund_id == refund.refund_id, till.journal.payment(paid.id).left

    assert paying(world, scenario) == (([State.REFUNDED, State.APPROVED], True, 1245), [])


# -- offline ----------------------------------------


def test_what_is_approved_offline_is_forwarded_in_order_when_the_host_is_back(make):
    world = make()

    async def main():
        async with world.activated(reader=HandedReader(VISA, VISA, VISA)) as till:
            told = Told(till)
            world.network.before = _unreachable
            stored = [await till.charge(Amount(n, "EUR"), reference=f"o-{n}") for n in (1000, 1051)]
            with pytest.raises(HostUnreachable):
                await charge(till, "typed", Amount(900, "EUR"))
            with pytest.raises(HostUnreachable):
                await till.charge(Amount(900, "EUR"), reference="pin", pin="1234")
            await till.resolver.round()
            still = [till.journal.payment(payment.id).state for payment in stored]
            world.network.before = lambda request: None
            await till.resolve()
            ends = [till.journal.payment(payment.id).state for payment in stored]
            (lost,) = told[OfflineLost]
            return stored, still, ends, lost.reference, [one["reference"] for one in await world.books()]

    stored, still, ends, lost, books = world.run(main())
    assert [(p.state, p.outcome) for p in stored] == [(State.OFFLINE, Outcome.APPROVED)] * 2
    assert still == [State.OFFLINE] * 2
    assert ends == [State.APPROVED, State.LOST]
    assert (lost, books) == ("o-1051", ["o-1000", "o-1051"])
