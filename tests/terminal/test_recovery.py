"""Ways out: of doubt, of refusals that name what can be mended, and of levels that were lost between payments."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from hw.card import ManualCard
from sim.host.ledger import Refund
from sim.network import Trip
from terminal.activation import Level
from terminal.errors import HostRefused, PaymentRefused, TillError
from terminal.events import Overdue
from terminal.money import Amount
from terminal.payment import Happened, Kind, State
from tests.terminal.worlds import Told, control, doubtful, paying

TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY = Amount(1250, "EUR")
FOUR = Amount(400, "EUR")
DAY = 86_400
GONE = 121
"""Seconds after which a shopper whom nobody asks for counts as gone."""
UNDER_WAY = 500
"""Seconds after which nothing that was sent can still arrive, or be acted on."""


# -- a host that has forgotten the key ----------------------------------------


@pytest.mark.parametrize("acted", [True, False])
def test_a_charge_that_the_host_has_forgotten_the_key_of_is_looked_up_and_never_sent_again(make, acted):
    world = make(key_set_life=30 * DAY)

    async def scenario(till):
        doubt = await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=acted)
        await asyncio.sleep(DAY + 60)
        world.network.requests.clear()
        (known,) = await till.resolve()
        assert known.id == doubt.id
        return known

    known, found = paying(world, scenario)
    assert known.state is (State.CANCELED if acted else State.WITHDRAWN)  # nobody waits for it any more
    assert "POST /pos/charge" not in world.network.paths()
    assert found == []


def test_the_charge_of_another_payment_with_the_same_reference_is_not_taken_for_it(make):
    world = make(key_set_life=30 * DAY)

    async def scenario(till):
        declined = await till.charge(Amount(1251, "EUR"), reference="r", card=TYPED)
        await doubtful(world, till.charge(Amount(1251, "EUR"), reference="r", card=TYPED), acted=False)
        await asyncio.sleep(DAY)
        (known,) = await till.resolve()
        return declined.state, known.state

    states, found = paying(world, scenario)
    assert states == (State.DECLINED, State.WITHDRAWN)
    assert found == []


def test_two_charges_that_may_both_be_it_leave_it_in_doubt(make):
    world = make(key_set_life=30 * DAY)

    async def scenario(till):
        await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=True)
        await asyncio.sleep(DAY)
        world.ledger._connection.execute("CREATE TEMP TABLE twin AS SELECT * FROM charges")
        world.ledger._connection.execute(
            "UPDATE twin SET n = n + 1, id = 'ch_twintwintwin', idempotency_key = NULL"
        )
        world.ledger._connection.execute("INSERT INTO charges SELECT * FROM twin")
        (known,) = await till.resolve()
        return known.state

    assert paying(world, scenario)[0] is State.ABANDONED


def test_a_refund_that_the_host_has_forgotten_the_key_of_is_not_made_twice(make):
    world = make(key_set_life=30 * DAY)

    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        await doubtful(world, till.refund(charge.charge_id, FOUR, reason="cold"), acted=True)
        await asyncio.sleep(DAY)
        (known,) = await till.resolve()
        return known, [refund["id"] for refund in (await world.books())[0]["refunds"]]

    (known, refunds), _ = paying(world, scenario)
    assert known.state is State.IN_DOUBT
    assert len(refunds) == 1


def test_a_refund_that_nobody_can_tell_of_is_for_a_person_and_one_of_all_is_told_by_its_charge(make):
    world = make(key_set_life=30 * DAY)

    async def scenario(till):
        told = Told(till)
        for reference in ("a", "b"):
            await till.charge(TWELVE_FIFTY, reference=reference, card=TYPED)
        part, whole = till.journal.payments()
        await doubtful(world, till.refund(part.charge_id, FOUR, reason="cold"), acted=True)
        await doubtful(world, till.refund(whole.charge_id, reason="cold"), acted=True)
        await asyncio.sleep(DAY)
        known = await till.resolve()
        return [payment.state for payment in known], [event.person for event in told[Overdue]]

    (states, called), _ = paying(world, scenario)
    assert states == [State.IN_DOUBT, State.APPROVED]
    assert True in called


def test_a_host_that_cannot_be_asked_leaves_an_old_charge_in_doubt_and_makes_no_second(make):
    world = make(key_set_life=30 * DAY, offers_lookup=False)

    async def scenario(till):
        await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=True)
        await asyncio.sleep(DAY)
        asked_again = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        return asked_again.state, len(await world.books())

    (state, charges), _ = paying(world, scenario, host={"offers_lookup": False})
    assert (state, charges) == (State.IN_DOUBT, 1)


def test_a_clock_that_runs_ahead_makes_no_payment_old(make):
    world = make(key_set_life=1000 * DAY)

    async def scenario(till):
        await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=False)
        world.skew = 365.0 * DAY
        (known,) = await till.resolve()
        return known.state

    assert paying(world, scenario) == (State.APPROVED, [])


def test_an_old_charge_is_looked_up_under_the_key_set_of_today(make):
    world = make(key_set_life=30 * DAY)

    async def scenario(till):
        await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=True)
        await asyncio.sleep(DAY)
        await control(world, superseded=True)
        (known,) = await till.resolve()
        return known.state

    assert paying(world, scenario) == (State.CANCELED, [])


# -- keys that went in the meantime ----------------------------------------


def test_what_the_older_keys_let_in_may_still_be_acted_on_after_the_newer_were_refused(make):
    """The host takes its time over the charge; meanwhile it revokes the device, which comes back with new keys."""
    world = make()

    async def scenario(till):
        world.fault({"match": {"call": "charge"}, "do": "delay", "seconds": 200})
        doubt = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        world.fault()
        await control(world, revoked=True)
        await till.resolve()
        await control(world, revoked=False)
        await till.activate()
        (still,) = await till.resolve()
        await asyncio.sleep(UNDER_WAY)
        await till.resolve()
        return doubt.state, still.state, till.journal.payment(doubt.id).state

    states, found = paying(world, scenario, shopper_wait=3600.0)
    assert states == (State.IN_DOUBT, State.IN_DOUBT, State.APPROVED)
    assert found == []


def test_an_older_key_set_and_the_one_in_use_may_be_superseded_both(make):
    world = make(offers_lookup=False)

    async def scenario(till):
        await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=True)
        async with till._turn:
            await till._climb.renew_keys()
        await control(world, superseded=True)
        (known,) = await till.resolve()
        return known.state

    assert paying(world, scenario, host={"offers_lookup": False}) == (State.APPROVED, [])


@pytest.mark.parametrize("acted", [True, False])
@pytest.mark.parametrize("gone", ["expired", "superseded"])
@pytest.mark.parametrize("kind", [Kind.CHARGE, Kind.REFUND, Kind.CANCEL])
def test_a_payment_whose_keys_went_ends_by_the_same_bytes_under_the_new_set(make, kind, gone, acted):
    world = make(key_set_life=1800)

    async def scenario(till):
        charge = None
        if kind is not Kind.CHARGE:
            charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        asking = {
            Kind.CHARGE: lambda: till.charge(TWELVE_FIFTY, reference="r", card=TYPED),
            Kind.REFUND: lambda: till.refund(charge.charge_id, FOUR, reason="cold"),
            Kind.CANCEL: lambda: till.cancel(charge.charge_id),
        }[kind]
        await doubtful(world, asking(), acted=acted)
        if gone == "expired":
            await asyncio.sleep(1900)
        else:
            await control(world, superseded=True)
        (soon,) = await till.resolve()
        await asyncio.sleep(UNDER_WAY)
        await till.resolve()
        return soon.state, till.journal.payment(soon.id).state

    states, found = paying(world, scenario, shopper_wait=3600.0)
    granted = acted or kind is Kind.CANCEL  # which asks for the same thing again, and may do so
    assert states == ((State.APPROVED, State.APPROVED) if granted else (State.IN_DOUBT, State.REFUSED))
    assert found == []
    bodies = {request.content for request in world.network.requests if request.headers.get("idempotency-key")}
    assert len(bodies) == (2 if kind is Kind.REFUND else 1)


@pytest.mark.parametrize("status", [422, 503])
def test_a_renewal_that_fails_inside_a_charge_leaves_no_charge_behind(make, status):
    world = make()

    async def scenario(till):
        await control(world, superseded=True)
        world.fault({"match": {"call": "keys"}, "do": "status", "status": status})
        with pytest.raises(HostRefused, match=f"pos/keys.* {status}"):
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        (refused,) = till.journal.payments()
        world.fault()
        return refused.state, (await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)).state

    states, found = paying(world, scenario)
    assert states == (State.REFUSED, State.APPROVED)
    assert found == []


def test_a_terminal_that_dies_while_it_renews_inside_a_charge_resolves_it(make):
    world = make()

    class Killed(BaseException):
        pass

    def kill(request):
        if request.url.path == "/pos/keys":
            raise Killed

    async def main():
        async with world.activated() as till:
            await control(world, superseded=True)
            world.network.after = kill
            with pytest.raises(Killed):
                await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        world.network.after = lambda request: None
        async with world.terminal() as till:
            await asyncio.sleep(GONE)
            await asyncio.sleep(UNDER_WAY)
            (known,) = await till.resolve()
            return known.state, len(await world.books())

    assert world.run(main()) == (State.WITHDRAWN, 0)


def test_a_cancel_under_a_superseded_key_set_takes_the_new_one(make):
    world = make()

    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        await control(world, superseded=True)
        return (await till.cancel(charge.charge_id)).state

    assert paying(world, scenario) == (State.APPROVED, [])


def test_a_pending_charge_is_still_watched_after_its_key_set_was_superseded(make):
    world = make(pending_life=60)

    async def scenario(till):
        pending = await till.charge(Amount(1240, "EUR"), reference="r", card=TYPED)
        await control(world, superseded=True)
        await asyncio.sleep(60)
        (known,) = await till.resolve()
        return pending.state, known.state

    assert paying(world, scenario) == ((State.PENDING, State.APPROVED), [])


# -- refusals of a repeat ----------------------------------------


def test_a_repeat_that_the_host_judges_for_the_first_time_and_refuses_was_never_made(make):
    world = make()

    async def scenario(till):
        await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=False)
        world.fault({"match": {"call": "charge"}, "do": "status", "status": 422, "code": "4220"})
        (known,) = await till.resolve()
        world.fault()
        return known.state, (await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)).state

    assert paying(world, scenario) == ((State.REFUSED, State.APPROVED), [])


@pytest.mark.parametrize(
    ("status", "code"), [(400, "4000"), (401, "4010"), (404, "4040"), (409, "4090"), (429, "")]
)
def test_a_repeat_whose_refusal_proves_nothing_stays_in_doubt(make, status, code):
    world = make(offers_lookup=False)

    async def scenario(till):
        await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=True)
        world.fault({"match": {"call": "charge"}, "do": "status", "status": status, "code": code or "4290"})
        (still,) = await till.resolve()
        world.fault()
        (known,) = await till.resolve()
        return still.state, known.state

    host = {"offers_lookup": False}
    assert paying(world, scenario, host=host) == ((State.IN_DOUBT, State.APPROVED), [])


def test_a_cancel_in_doubt_that_came_too_late_is_refused_once_the_charge_is_seen_to_stand(make):
    world = make()

    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        await doubtful(world, till.cancel(charge.charge_id), acted=False)
        await world.ask("POST", "/sim/settle", {})
        (known,) = await till.resolve()
        return known.state, (await till.refund(charge.charge_id, reason="too late")).state

    assert paying(world, scenario) == ((State.REFUSED, State.APPROVED), [])


# -- answers that do not fit refunds and cancels ----------------------------------------


def test_an_answer_that_belongs_to_an_earlier_refund_is_not_believed(make, monkeypatch):
    world = make()

    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        first = await till.refund(charge.charge_id, FOUR, reason="one")
        client = till._exchange._client
        asked = client.refund

        async def earlier(*words):
            return replace(await asked(*words), id=first.refund_id)

        with monkeypatch.context() as patch:
            patch.setattr(client, "refund", earlier)
            doubt = await till.refund(charge.charge_id, FOUR, reason="two")
        (known,) = await till.resolve()
        return doubt.state, known.state, known.refund_id != first.refund_id

    assert paying(world, scenario) == ((State.IN_DOUBT, State.APPROVED, True), [])


def test_a_charge_that_somebody_else_canceled_long_ago_is_canceled(make):
    world = make()

    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        world.ledger.cancel(charge.charge_id, int(1000 * world.loop.now().timestamp()))
        await asyncio.sleep(3600)
        return (await till.cancel(charge.charge_id)).state

    assert paying(world, scenario) == (State.APPROVED, [])


def test_a_charge_is_not_canceled_over_a_refund_in_doubt(make):
    world = make()

    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        await doubtful(world, till.refund(charge.charge_id, FOUR, reason="cold"), acted=False)
        with pytest.raises(PaymentRefused, match=r"refund of EUR 4\.00 .* is not known yet"):
            await till.cancel(charge.charge_id)
        (known,) = await till.resolve()
        return known.state

    assert paying(world, scenario) == (State.APPROVED, [])


def test_a_cancel_granted_over_somebodys_refund_stays_in_doubt_and_is_no_error(make, monkeypatch):
    """A host that grants both: the second is not believed, where it cannot follow on the first."""
    world = make()

    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        await doubtful(world, till.cancel(charge.charge_id), acted=False)
        till._exchange.happened(charge, Happened.REFUNDED_IN_PART)  # by the back office
        client = till._exchange._client
        granted = type("Granted", (), {"as_answer": lambda self: replace(fits, happened=Happened.APPROVED)})()
        fits = (await client.charge_by_id(charge.charge_id)).as_answer()
        fits = replace(fits, amount=None, reference=None)

        async def cancel(charge_id):
            return granted

        monkeypatch.setattr(client, "cancel", cancel)
        (known,) = await till.resolve()
        return known.state, "the charge is partially_refunded" in known.message

    result, _ = paying(world, scenario)
    assert result == (State.IN_DOUBT, True)


def test_a_pending_refund_is_watched_until_the_host_has_decided(make, monkeypatch):
    world = make()

    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        with monkeypatch.context() as patch:
            patch.setattr(Refund, "status", lambda self, now: "pending")
            pending = await till.refund(charge.charge_id, FOUR, reason="cold")
        (known,) = await till.resolve()
        return pending.state, known.state, till.journal.payment(charge.id).left

    assert paying(world, scenario) == ((State.PENDING, State.APPROVED, 850), [])


# -- what befalls an activated terminal ----------------------------------------


@pytest.mark.parametrize("skew", [7200.0, -7200.0, -86_400.0 * 365])
def test_a_devices_clock_that_jumps_costs_a_charge_nothing(make, skew):
    world = make()

    async def scenario(till):
        world.skew = skew
        return (await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)).state

    assert paying(world, scenario) == (State.APPROVED, [])
    assert world.network.paths().count("POST /pos/charge") == 1
    assert world.network.paths().count("POST /pos/bootstrap") == 0


def test_a_charge_dated_in_the_future_is_believed_once_the_clock_is_right(make):
    world = make()

    async def scenario(till):
        world.skew = 7200.0
        await doubtful(world, till.charge(TWELVE_FIFTY, reference="r", card=TYPED), acted=False)
        world.skew = 0.0
        (known,) = await till.resolve()
        return known.state

    assert paying(world, scenario) == (State.APPROVED, [])


def test_credentials_that_are_wrong_with_the_right_date_are_refused_once_and_prove_nothing(make):
    world = make()

    async def scenario(till):
        world.fault({"match": {"call": "charge"}, "do": "status", "status": 401, "code": "4010"})
        refused = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        times = world.network.paths().count("POST /pos/charge")
        world.fault()
        return refused.state, times, (await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)).state

    assert paying(world, scenario) == ((State.IN_DOUBT, 1, State.APPROVED), [])


def test_a_device_that_was_unclaimed_stops_and_activates_again(make):
    world = make()

    async def scenario(till):
        await control(world, unclaimed=True)
        with pytest.raises(HostRefused, match="4031"):
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        assert till.level is Level.BOOTSTRAPPED
        with pytest.raises(TillError, match="not activated"):
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        await world.activate(till)
        return (await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)).state

    assert paying(world, scenario) == (State.APPROVED, [])


@pytest.mark.parametrize("acted", [True, False])
def test_a_charge_is_not_refunded_over_a_cancel_in_doubt(make, acted):
    world = make()

    async def scenario(till):
        paid = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        await doubtful(world, till.cancel(paid.charge_id), acted=acted)
        with pytest.raises(PaymentRefused, match="cancel"):
            await till.refund(paid.charge_id, Amount(500, "EUR"), reason="broken")
        await till.resolve()
        return [payment.state for payment in till.journal.payments()]

    assert paying(world, scenario) == ([State.CANCELED, State.APPROVED], [])


def test_a_cancel_in_doubt_ends_also_where_a_look_up_has_found_the_charge_canceled(make):
    world = make()

    async def scenario(till):
        pending = await till.charge(Amount(1240, "EUR"), reference="r", card=TYPED)
        await doubtful(world, till.cancel(pending.charge_id), acted=True)
        await till.charge(Amount(1240, "EUR"), reference="r", card=TYPED)  # looks the charge up, and not the cancel
        await till.resolve()
        return [payment.state for payment in till.journal.payments()]

    assert paying(world, scenario, pending_wait=0) == ([State.CANCELED, State.APPROVED], [])


def test_a_refund_whose_reason_reads_like_ours_is_noticed_when_it_fails(make):
    world = make()

    async def scenario(till):
        paid = await till.charge(Amount(1245, "EUR"), reference="r", card=TYPED)
        refund = await till.refund(paid.charge_id, reason="reversal")
        await asyncio.sleep(120)
        await till.resolver.round()
        return till.journal.payment(paid.id).state, till.journal.payment(refund.id).state

    assert paying(world, scenario) == ((State.APPROVED, State.FAILED), [])


def test_resolving_renews_no_keys_in_the_middle_of_a_payment(make):
    world = make()

    async def scenario(till):
        await asyncio.sleep(86_400 - 10)  # the keys end while the charge is on its way
        world.network.trip = lambda request: Trip(back=14.0 if request.url.path == "/pos/charge" else 0.0)
        world.network.requests.clear()
        async with asyncio.TaskGroup() as tasks:
            paying = tasks.create_task(till.charge(TWELVE_FIFTY, reference="r", card=TYPED))
            await asyncio.sleep(12)
            tasks.create_task(till.resolve())
        return paying.result().state, world.network.paths()

    (state, paths), found = paying(world, scenario)
    assert (state, found) == (State.APPROVED, [])
    assert paths == ["POST /pos/charge", "POST /pos/attest", "POST /pos/keys"]
