"""Charges, refunds and cancels through the one object, against the real host, and everything that may go wrong."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import httpx
import pytest

from hw.card import ManualCard, StripeCard
from hw.errors import CardError, FramingError, TimedOut
from hw.reader import Capabilities
from sim.balance import differences, journal_rows, ledger_rows
from sim.host.config import HostConfig
from sim.reader.handed import HandedReader
from sim.world import World
from terminal.activation import Level
from terminal.errors import (
    AmountError,
    CardDataError,
    HostRefused,
    HostUnreachable,
    JournalDamaged,
    JournalUnwritable,
    KeystoreError,
    LiveGuardError,
    NotReady,
    PaymentRefused,
    SettingsError,
)
from terminal.events import CardRead, CardRefused, CardWanted, PaymentChanged
from terminal.money import Amount
from terminal.payment import Happened, Kind, State
from terminal.settings import KeySettings
from terminal.terminal import Terminal

VISA = StripeCard(
    pan="4761739001010119", expiry="2812", service_code="201", track2="4761739001010119=28122011143804400000"
)
TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY = Amount(1250, "EUR")


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


def paying(world, scenario, *, cards=(), **changes):
    """Run `scenario(till)` on an activated terminal; afterwards the books of both sides must agree."""

    async def main():
        async with world.activated(reader=HandedReader(*cards), **changes) as till:
            result = await scenario(till)
            till.journal.verify()
            found = differences(
                journal_rows(till.journal.payments()),
                ledger_rows({"charges": await world.books()}, world.device["terminal_id"]),
            )
        return result, found

    result, found = world.run(main())
    return result, found


# -- what goes well ----------------------------------------


def test_a_swiped_charge_is_approved_and_told_step_by_step(world):
    async def scenario(till):
        events = till.events()
        payment = await till.charge(TWELVE_FIFTY, reference="order-17")
        return payment, [await anext(events) for _ in range(4)]

    (payment, events), found = paying(world, scenario, cards=[VISA])
    assert (payment.state, payment.approved, payment.response_code) == (State.APPROVED, TWELVE_FIFTY, "00")
    assert (payment.entry_mode, payment.masked_pan) == ("swipe", "476173******0119")
    assert payment.charge_id.startswith("ch_")
    assert [type(event) for event in events] == [CardWanted, CardRead, PaymentChanged, PaymentChanged]
    assert [event.state for event in events[2:]] == ["in_flight", "approved"]
    assert found == []


def test_a_typed_card_is_charged(world):
    payment, found = paying(world, lambda till: till.charge(TWELVE_FIFTY, reference="r", card=TYPED))
    assert (payment.state, payment.entry_mode) == (State.APPROVED, "manual")
    assert found == []


def test_a_charge_with_a_pin_and_a_tip(world):
    async def scenario(till):
        return await till.charge(TWELVE_FIFTY, reference="r", card=TYPED, pin="1234", tip=Amount(100, "EUR"))

    payment, _ = paying(world, scenario)
    assert payment.state is State.APPROVED


def test_the_card_travels_sealed_and_is_in_no_file_afterwards(world):
    async def scenario(till):
        await till.charge(TWELVE_FIFTY, reference="r")
        return [request.content for request in world.network.requests]

    bodies, _ = paying(world, scenario, cards=[VISA])
    written = b"".join(bodies) + b"".join(file.read_bytes() for file in world.home.iterdir())
    for trace in (VISA.pan.encode(), VISA.track2_equivalent(), VISA.track2_equivalent().hex().encode()):
        assert trace not in written


def test_refunds_in_part_and_whole_and_never_more(world):
    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        first = await till.refund(charge.charge_id, Amount(1000, "EUR"), reason="one returned")
        with pytest.raises(PaymentRefused, match=r"EUR 2\.50 is left of charge ch_\w+, and EUR 2\.51 was"):
            await till.refund(charge.charge_id, Amount(251, "EUR"), reason="too much")
        rest = await till.refund(charge.charge_id, reason="all returned")
        with pytest.raises(PaymentRefused):
            await till.refund(charge.charge_id, reason="again")
        return first, rest, till.journal.payment(charge.id)

    (first, rest, charge), found = paying(world, scenario)
    assert (first.state, rest.amount, rest.state) == (State.APPROVED, Amount(250, "EUR"), State.APPROVED)
    assert first.refund_id != rest.refund_id
    assert (charge.state, charge.left) == (State.REFUNDED, 0)
    assert found == []


def test_a_cancel_and_a_second_cancel(world):
    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        once, twice = await till.cancel(charge.charge_id), await till.cancel(charge.charge_id)
        return once, twice, till.journal.payment(charge.id).state

    (once, twice, state), found = paying(world, scenario)
    assert once == twice
    assert state is State.CANCELED
    assert found == []


@pytest.mark.parametrize(
    ("minor", "state", "code", "approved"),
    [
        (1201, State.DECLINED, "01", None),
        (1205, State.DECLINED, "05", None),
        (1214, State.DECLINED, "14", None),
        (1241, State.DECLINED, "41", None),
        (1243, State.DECLINED, "43", None),
        (1251, State.DECLINED, "51", None),
        (1254, State.DECLINED, "54", None),
        (1255, State.DECLINED, "55", None),
        (1261, State.DECLINED, "61", None),
        (1265, State.DECLINED, "65", None),
        (1291, State.DECLINED, "91", None),
        (1230, State.APPROVED, "10", 615),
        (1240, State.APPROVED, "00", 1240),
        (1208, State.APPROVED, "00", 1208),
        (1277, State.APPROVED, "00", 1277),
    ],
)
def test_every_outcome_of_the_host_is_understood(world, minor, state, code, approved):
    payment, found = paying(
        world, lambda till: till.charge(Amount(minor, "EUR"), reference="r", card=TYPED, accept_partial=True)
    )
    assert (payment.state, payment.response_code) == (state, code)
    assert (payment.approved and payment.approved.minor) == approved
    assert found == []


def test_a_charge_that_stays_pending_is_a_handle_that_a_later_question_resolves(tmp_path):
    world = World(tmp_path, config=HostConfig(pending_life=3600))

    async def scenario(till):
        payment = await till.charge(Amount(1240, "EUR"), reference="r", card=TYPED)
        assert payment.state is State.PENDING
        await asyncio.sleep(3600)
        return payment, await till.charge(Amount(1240, "EUR"), reference="r", card=TYPED)

    (before, after), found = paying(world, scenario)
    assert (after.id, after.state) == (before.id, State.APPROVED)
    assert found == []
    world.close()


def test_without_lookups_a_pending_charge_is_left_pending(tmp_path):
    world = World(tmp_path, config=HostConfig(offers_lookup=False))
    payment, _ = paying(
        world,
        lambda till: till.charge(Amount(1240, "EUR"), reference="r", card=TYPED),
        host={"offers_lookup": False},
    )
    assert payment.state is State.PENDING
    world.close()


# -- the card ----------------------------------------


@pytest.mark.parametrize("error", [CardError("track 2 could not be read"), FramingError("no frame of this reader")])
def test_a_card_that_cannot_be_read_may_be_presented_again(world, error):
    async def scenario(till):
        events = till.events()
        payment = await till.charge(TWELVE_FIFTY, reference="r")
        return payment, [await anext(events) for _ in range(3)]

    (payment, events), _ = paying(world, scenario, cards=[error, VISA])
    assert payment.state is State.APPROVED
    assert isinstance(events[1], CardRefused)
    assert (events[1].reason, events[1].advice) == (str(error), error.advice)


def test_nobody_presents_a_card_and_nothing_is_journalled(world):
    async def scenario(till):
        with pytest.raises(TimedOut):
            await till.charge(TWELVE_FIFTY, reference="r")
        return till.journal.payments()

    assert paying(world, scenario, cards=[TimedOut("no card within 60 seconds")]) == ([], [])


def test_no_reader_and_no_card_says_what_to_set(world):
    async def main():
        async with world.activated() as till:
            with pytest.raises(SettingsError, match="no reader is set"):
                await till.charge(TWELVE_FIFTY, reference="r")

    world.run(main())


# -- asking twice ----------------------------------------


def test_a_reference_is_charged_once(world):
    async def scenario(till):
        first = await till.charge(TWELVE_FIFTY, reference="order-17", card=TYPED)
        again = await till.charge(TWELVE_FIFTY, reference="order-17", card=TYPED)
        with pytest.raises(PaymentRefused, match=r"stands for a charge of EUR 12\.50, not of EUR 12\.51"):
            await till.charge(Amount(1251, "EUR"), reference="order-17", card=TYPED)
        return first, again

    (first, again), found = paying(world, scenario)
    assert first == again
    assert found == []
    assert world.network.paths().count("POST /pos/charge") == 1


def test_a_declined_reference_may_be_tried_with_another_card(world):
    async def scenario(till):
        declined = await till.charge(Amount(1251, "EUR"), reference="order-17", card=TYPED)
        return declined, await till.charge(Amount(1251, "EUR"), reference="order-17", card=TYPED)

    (first, second), found = paying(world, scenario)
    assert (first.state, second.state) == (State.DECLINED, State.DECLINED)
    assert first.id != second.id
    assert found == []


def test_two_tills_at_once_take_turns(world):
    async def scenario(till):
        return await asyncio.gather(
            *(till.charge(TWELVE_FIFTY, reference=f"order-{n % 2}", card=TYPED) for n in range(4))
        )

    payments, found = paying(world, scenario)
    assert len({payment.charge_id for payment in payments}) == 2
    assert found == []


# -- the network ----------------------------------------


def lost(kind, times):
    """Raises `kind` for the first so many requests."""
    left = times

    def meddle(request):
        nonlocal left
        if left > 0 and "/charge" in request.url.path:
            left -= 1
            raise kind("lost", request=request)

    return meddle


def test_an_answer_lost_after_the_host_has_charged_is_asked_for_again_with_the_same_bytes(world):
    async def scenario(till):
        world.network.after = lost(httpx.ReadError, 2)
        return await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)

    payment, found = paying(world, scenario)
    sent = [request for request in world.network.requests if request.url.path == "/pos/charge"]
    assert payment.state is State.APPROVED
    assert len(sent) == 3
    assert len({request.content for request in sent}) == 1
    assert {request.headers["idempotency-key"] for request in sent} == {payment.id}
    assert len({request.headers["x-nonce"] for request in sent}) == 3
    assert found == []


def test_a_host_that_stays_silent_leaves_the_payment_in_doubt_and_the_next_question_resolves_it(world):
    async def scenario(till):
        world.network.after = lost(httpx.ReadError, 99)
        doubt = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        assert doubt.state is State.IN_DOUBT
        assert till.journal.request(doubt.id) is not None
        world.network.after = lambda request: None
        resolved = await till.resolve()
        assert till.journal.request(doubt.id) is None
        return doubt, resolved

    (doubt, (resolved,)), found = paying(world, scenario)
    assert (resolved.id, resolved.state) == (doubt.id, State.APPROVED)
    assert found == []


def test_a_payment_in_doubt_survives_a_restart_and_is_charged_once(world):
    async def main():
        async with world.activated() as till:
            world.network.after = lost(httpx.ReadError, 99)
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        world.network.after = lambda request: None
        async with world.terminal() as till:
            payment = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        return payment, await world.books()

    payment, books = world.run(main())
    assert payment.state is State.APPROVED
    assert [charge["idempotency_key"] for charge in books] == [payment.id]


def test_a_terminal_killed_between_journal_and_answer_goes_on_with_the_same_bytes(world):
    class Killed(BaseException):
        pass

    def kill(request):
        if request.url.path == "/pos/charge":
            raise Killed

    async def main():
        async with world.activated() as till:
            world.network.after = kill
            with pytest.raises(Killed):
                await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        world.network.after = lambda request: None
        async with world.terminal() as till:
            (open_payment,) = till.journal.unresolved()
            assert open_payment.state is State.IN_FLIGHT
            (resolved,) = await till.resolve()
        return resolved, await world.books()

    resolved, books = world.run(main())
    assert resolved.state is State.APPROVED
    assert len(books) == 1
    sent = [request.content for request in world.network.requests if request.url.path == "/pos/charge"]
    assert len({body for body in sent if body}) == 1


def test_no_connection_means_no_payment(world):
    async def scenario(till):
        world.network.before = lost(httpx.ConnectError, 99)
        with pytest.raises(HostUnreachable):
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        (payment,) = till.journal.payments()
        world.network.before = lambda request: None
        return payment, await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)

    (withdrawn, later), found = paying(world, scenario)
    assert withdrawn.state is State.WITHDRAWN
    assert later.state is State.APPROVED
    assert later.id != withdrawn.id
    assert found == []


def test_a_payment_whose_key_set_is_gone_is_resolved_and_so_are_the_others(world):
    async def main():
        async with world.activated() as till:
            world.network.after = lost(httpx.ReadError, 99)
            await till.charge(TWELVE_FIFTY, reference="first", card=TYPED)
            world.network.after = lambda request: None
            for _ in range(2):  # the set before goes on; the one before that does not
                await till._climb.renew_keys()
            world.network.after = lost(httpx.ReadError, 99)
            await till.charge(TWELVE_FIFTY, reference="second", card=TYPED)
            world.network.after = lambda request: None
            return await till.resolve()

    first, second = world.run(main())
    assert (first.reference, first.state) == ("first", State.APPROVED)
    assert (second.reference, second.state) == ("second", State.APPROVED)


def test_no_connection_after_a_silence_is_still_a_doubt(world):
    async def scenario(till):
        world.network.after = lost(httpx.ReadError, 99)
        doubt = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        world.network.before = lost(httpx.ConnectError, 99)
        (still,) = await till.resolve()
        world.network.before = world.network.after = lambda request: None
        (known,) = await till.resolve()
        return doubt.state, still.state, known.state

    states, found = paying(world, scenario)
    assert states == (State.IN_DOUBT, State.IN_DOUBT, State.APPROVED)
    assert found == []


@pytest.mark.parametrize("kind", [Kind.REFUND, Kind.CANCEL])
def test_a_refund_or_cancel_whose_answer_was_lost_happens_once(world, kind):
    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)

        def ask():
            if kind is Kind.CANCEL:
                return till.cancel(charge.charge_id)
            return till.refund(charge.charge_id, Amount(400, "EUR"), reason="cold")

        world.network.after = lost(httpx.ReadError, 99)
        doubt = await ask()
        if kind is Kind.REFUND:
            with pytest.raises(PaymentRefused, match=r"refund of EUR 4\.00 .* is not known yet"):
                await till.refund(charge.charge_id, Amount(500, "EUR"), reason="other")
        world.network.after = lambda request: None
        return doubt, await ask()

    (doubt, known), found = paying(world, scenario)
    assert doubt.state is State.IN_DOUBT
    assert (known.id, known.state) == (doubt.id, State.APPROVED)
    assert found == []


@pytest.mark.parametrize(
    "rule",
    [
        {"do": "status", "status": 500, "acted": True},
        {"do": "status", "status": 503},
        {"do": "html", "acted": True},
        {"do": "cut"},
        {"do": "corrupt", "at": 60},
        {"do": "wrong_key"},
        {"do": "wrong_kcv"},
        {"do": "other_amount"},
        {"do": "drop_answer"},
        {"do": "delay", "seconds": 60.0},
    ],
)
def test_what_cannot_be_believed_is_a_doubt_and_never_shown_as_approved(world, rule):
    async def scenario(till):
        world.fault({"match": {"call": "charge"}, **rule})
        doubt = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        world.fault()
        (known,) = await till.resolve()
        return doubt.state, known.state

    host = {"read_timeout": 15.0, "call_timeout": 40.0, "offers_lookup": False}  # or it would be looked up at once
    (doubt, known), found = paying(world, scenario, host=host)
    assert doubt is State.IN_DOUBT
    assert known is State.APPROVED
    assert found == []


@pytest.mark.parametrize(
    ("status", "code"), [(400, "4000"), (403, "4031"), (404, "4040"), (422, "4220"), (426, "4260")]
)
def test_a_refusal_is_told_and_no_money_moved(world, status, code):
    async def scenario(till):
        world.fault({"match": {"call": "charge"}, "do": "status", "status": status, "code": code})
        with pytest.raises(HostRefused) as caught:
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        (payment,) = till.journal.payments()
        return caught.value, payment.state

    (error, state), found = paying(world, scenario)
    assert (error.status, error.code, state) == (status, code, State.REFUSED)
    assert found == []


def test_a_host_too_busy_is_waited_for(world):
    async def scenario(till):
        world.fault({"match": {"call": "charge", "times": 2}, "do": "status", "status": 429, "retry_after": 7})
        started = world.loop.time()
        payment = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        return payment.state, world.loop.time() - started

    (state, waited), found = paying(world, scenario)
    assert state is State.APPROVED
    assert waited >= 14
    assert found == []


# -- keys ----------------------------------------


def test_a_superseded_key_set_is_replaced_and_the_charge_sealed_again_under_the_same_key(world):
    async def scenario(till):
        before = till.key_facts()
        await world.ask("POST", f"/sim/devices/{world.device['device_id']}", {"superseded": True})
        payment = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        happened = [record.happened for record in till.journal.records()]
        return before, till.key_facts(), payment, happened

    (before, after, payment, happened), found = paying(world, scenario)
    assert payment.state is State.APPROVED
    assert happened == [Happened.JOURNALLED, Happened.SEALED_AGAIN, Happened.APPROVED]
    assert {fact.kcv for fact in before if fact.role == "msk"} != {fact.kcv for fact in after if fact.role == "msk"}
    sent = [request for request in world.network.requests if request.url.path == "/pos/charge"]
    assert {request.headers["idempotency-key"] for request in sent} == {payment.id}
    assert found == []


def test_an_expired_key_set_is_replaced_before_the_next_payment(tmp_path):
    world = World(tmp_path, config=HostConfig(key_set_life=3600))

    async def scenario(till):
        await asyncio.sleep(3700)
        return await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)

    payment, found = paying(world, scenario)
    assert payment.state is State.APPROVED
    assert world.network.paths()[:3] == ["POST /pos/attest", "POST /pos/keys", "POST /pos/charge"]
    assert found == []
    world.close()


# -- what the terminal will not do ----------------------------------------


def test_a_terminal_that_is_not_activated_takes_nothing(world):
    async def main():
        await world.provision()
        async with world.terminal() as till:
            assert till.level is Level.PROVISIONED
            with pytest.raises(NotReady, match="provisioned"):
                await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
            assert till.journal.payments() == []

    world.run(main())


def test_amounts_above_the_terminals_limit_are_refused_before_anything_else(world):
    async def scenario(till):
        with pytest.raises(AmountError, match=r"above this terminal's limit of EUR 10\.00"):
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        return till.journal.payments()

    assert paying(world, scenario, max_amounts={"EUR": 1000}) == ([], [])


def test_charges_of_others_are_not_ours_to_refund_or_cancel(world):
    async def scenario(till):
        with pytest.raises(PaymentRefused, match="has taken no charge"):
            await till.refund("ch_abc123def456", reason="x")
        with pytest.raises(PaymentRefused, match="has taken no charge"):
            await till.cancel("ch_abc123def456")
        declined = await till.charge(Amount(1251, "EUR"), reference="r", card=TYPED)
        with pytest.raises(PaymentRefused, match="is declined: there is nothing to give back"):
            await till.refund(declined.charge_id, reason="x")
        with pytest.raises(PaymentRefused, match="is declined: there is nothing to cancel"):
            await till.cancel(declined.charge_id)
        charge = await till.charge(TWELVE_FIFTY, reference="s", card=TYPED)
        with pytest.raises(PaymentRefused, match="was in EUR, not in USD"):
            await till.refund(charge.charge_id, Amount(100, "USD"), reason="x")
        await till.refund(charge.charge_id, Amount(100, "EUR"), reason="x")
        with pytest.raises(PaymentRefused, match="nothing to cancel"):
            await till.cancel(charge.charge_id)

    assert paying(world, scenario)[1] == []


def test_a_settled_charge_cannot_be_cancelled_and_stays_refundable(world):
    async def scenario(till):
        charge = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        await world.ask("POST", "/sim/settle", {})
        with pytest.raises(HostRefused, match="409"):
            await till.cancel(charge.charge_id)
        return await till.refund(charge.charge_id, reason="after settlement")

    payment, found = paying(world, scenario)
    assert payment.state is State.APPROVED
    assert found == []


@pytest.mark.parametrize("reference", ["", "x" * 65, "line\nbreak"])
def test_a_reference_that_does_not_fit_is_refused_before_it_is_journalled(world, reference):
    async def scenario(till):
        with pytest.raises(PaymentRefused, match="reference has 1 to 64"):
            await till.charge(TWELVE_FIFTY, reference=reference, card=TYPED)
        return till.journal.payments()

    assert paying(world, scenario) == ([], [])


@pytest.mark.parametrize("pin", ["123", "1" * 13, "12a4"])
def test_a_pin_that_cannot_be_one_is_refused_and_not_repeated(world, pin):
    async def scenario(till):
        with pytest.raises(CardDataError) as caught:
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED, pin=pin)
        assert till.journal.payments() == []
        return str(caught.value)

    assert pin not in paying(world, scenario)[0]


def live(world, scenario, **changes):
    """The scenario on a terminal that was activated against the simulator and is now pointed at a live host."""

    async def main():
        async with world.activated():
            pass
        async with world.terminal(url="https://api.viopay.io", **changes) as till:
            return await scenario(till)

    return world.run(main())


def test_against_a_live_host_clear_card_data_and_typed_pins_are_refused(world):
    async def scenario(till):
        with pytest.raises(LiveGuardError):
            await till.charge(TWELVE_FIFTY, reference="r")
        with pytest.raises(LiveGuardError):
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        assert till.journal.payments() == []

    live(world, scenario, reader=HandedReader(VISA))
    assert world.network.requests == []


def test_against_a_live_host_the_key_set_is_installed_without_its_pin_key(world):
    async def main():
        await world.provision()
        async with world.terminal(url="https://api.viopay.io") as till:
            await world.activate(till)
            with pytest.raises(KeystoreError, match="tpk"):
                till._keystore.pin_block("1234", TYPED.pan)

    world.run(main())


def test_a_reader_that_encrypts_is_not_the_guards_business(world):
    async def scenario(till):
        await till._cards.wait(TWELVE_FIFTY, "r")

    live(world, scenario, reader=HandedReader(VISA, capabilities=Capabilities(encrypts=True)))


# -- files ----------------------------------------


def test_a_journal_that_cannot_be_written_stops_the_payment_before_anything_leaves(world):
    async def scenario(till):
        till.journal._store.db.execute("PRAGMA query_only = ON")
        with pytest.raises(JournalUnwritable):
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
        till.journal._store.db.execute("PRAGMA query_only = OFF")
        return [path for path in world.network.paths() if "charge" in path]

    assert paying(world, scenario) == ([], [])


def test_a_missing_journal_stops_the_terminal(world):
    async def main():
        async with world.activated():
            pass
        (world.home / "journal.db").unlink()
        with pytest.raises(JournalDamaged, match="is missing"):
            async with world.terminal():
                pass

    world.run(main())


def test_without_a_secret_the_vault_stays_closed(world, monkeypatch):
    for name in ("TILL_PASSPHRASE", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

    async def main():
        await world.provision()
        with pytest.raises(KeystoreError, match="nothing was given"):
            async with Terminal.open(world.settings()):
                pass

    world.run(main())


@pytest.mark.parametrize(("name", "known"), [("lower_case_hex", True), ("m6_hmac", True), ("everything", False)])
def test_named_tolerances_are_looked_up_and_unknown_ones_refused(world, name, known):
    async def main():
        await world.provision()
        refused = nullcontext() if known else pytest.raises(SettingsError, match="'everything' is none of")
        with refused:
            async with world.terminal(keys=KeySettings(tolerate=(name,))):
                pass

    world.run(main())


def test_one_altered_row_of_the_ledger_is_seen(world):
    async def main():
        async with world.activated() as till:
            await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
            world.ledger._connection.execute("UPDATE charges SET amount = amount + 1")
            return differences(
                journal_rows(till.journal.payments()),
                ledger_rows({"charges": await world.books()}, world.device["terminal_id"]),
            )

    assert [line.split(": ")[1] for line in world.run(main())] == ["they differ in minor"]
