"""A terminal's life between payments, against the real host, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from datetime import timedelta

import httpx
import pytest

from sim.network import Trip
from sim.virtual_time import EPOCH
from terminal.activation import Level
from terminal.crypto.vault import Vault
from terminal.crypto.vault_file import read_facts
from terminal.errors import HostUnreachable, JournalDamaged, KeystoreError
from terminal.events import (
    ChoreFailed,
    ClockMoved,
    ConfigChanged,
    DeviceClockJumped,
    HostBack,
    HostLost,
    KeysRenewed,
    LevelLost,
    ParametersChanged,
    UpdateWanted,
)
from terminal.home import VAULT_FILE
from terminal.money import Amount
from terminal.payment import State
from terminal.totals import scheme
from terminal.turn import PATIENCE
from tests.terminal.kept import (
    DAY,
    HEARTBEAT,
    HOUR,
    charge,
    control,
    jump,
    living,
    of,
)

# -- an ordinary day ----------------------------------------------------------------------------------------------


def test_a_day_of_heartbeats_with_the_keys_renewed_before_they_end(make):
    world = make()

    async def scenario(till, heard):
        for hour in range(24):
            assert (await charge(till, f"order-{hour}")).state is State.APPROVED
            await asyncio.sleep(HOUR)
        return heard, await world.exchanges()

    heard, exchanges = living(world, scenario)
    assert 1400 <= world.network.paths().count(HEARTBEAT) <= 1480
    assert len(of(KeysRenewed, heard)) == 1
    assert [line for line in exchanges if not line.endswith(" 200")] == []
    for event in of(KeysRenewed, heard):
        assert timedelta(seconds=HOUR - 120) <= EPOCH + timedelta(days=1) - event.at <= timedelta(seconds=HOUR + 10)
    assert 23 <= world.network.paths().count("POST /pos/config") <= 27
    assert of(ConfigChanged, heard) == of(ParametersChanged, heard) == []
    quiet = {type(event).__name__ for event in heard} - {"CardRead", "PaymentChanged"}
    assert quiet == {"KeysRenewed"}


def test_a_day_in_which_nothing_changes_costs_the_disk_two_writes_of_the_vault(make, monkeypatch):
    """One is for the new key set, and the other for the one before, which goes when it has expired."""
    world, written = make(), []
    write = Vault._write
    monkeypatch.setattr(Vault, "_write", lambda *words: (written.append(1), write(*words)))

    async def scenario(till, heard):
        written.clear()
        await asyncio.sleep(DAY + HOUR)

    living(world, scenario)
    assert len(written) == 2


def test_the_heartbeat_says_how_long_we_run_and_how_many_payments_are_open(make):
    world = make()

    async def scenario(till, heard):
        world.network.after = _lose_charges
        with contextlib.suppress(TimeoutError):
            await charge(till)
        await asyncio.sleep(100)
        said = await world.ask("GET", "/sim/exchanges")
        return [e["request"] for e in said["exchanges"] if e["path"] == "/pos/heartbeat"]

    beats = living(world, scenario)
    assert beats[0]["pending"] <= 1 == beats[-1]["pending"]
    assert beats[-1]["uptime_sec"] > beats[0]["uptime_sec"] + 40
    assert {beat["version"] for beat in beats} == {"0.1.0"}


def _lose_charges(request):
    if "/charge" in request.url.path:
        raise httpx.ReadError("lost", request=request)


# -- what the host asks for ---------------------------------------------------------------------------------------


def test_each_action_of_a_heartbeat_is_done_and_then_no_more(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.network.requests.clear()
        await control(world, actions=["rotate_keys", "refresh_config", "refresh_parameters", "update"])
        await asyncio.sleep(600)
        device = await world.ask("GET", f"/sim/devices/{world.device['device_id']}")
        return device["actions"], len(of(KeysRenewed, heard)), len(of(UpdateWanted, heard))

    assert living(world, scenario) == (["update"], 1, 1)
    for call in ("keys", "config", "terminal-parameters"):
        assert world.network.paths().count(f"POST /pos/{call}") == 1


def test_an_update_that_is_wanted_again_is_told_again(make):
    world = make()

    async def scenario(till, heard):
        for actions in (["update"], [], ["update"]):
            await control(world, actions=actions)
            await asyncio.sleep(200)
        return len(of(UpdateWanted, heard))

    assert living(world, scenario) == 2


# -- a host that is not there -------------------------------------------------------------------------------------


def test_a_host_that_is_down_for_an_hour_is_told_twice_and_asked_less_and_less(make):
    world = make()

    def down(request):
        raise httpx.ConnectError("no route to host", request=request)

    async def scenario(till, heard):
        await asyncio.sleep(600)
        world.network.before = down
        asked = len(world.network.requests)
        await asyncio.sleep(1800)
        with pytest.raises(HostUnreachable):
            await charge(till, "during")
        await asyncio.sleep(1800)
        asked = len(world.network.requests) - asked
        world.network.before = lambda request: None
        await asyncio.sleep(310)
        lost, back = of(HostLost, heard), of(HostBack, heard)
        assert (len(lost), len(back)) == (1, 1)
        assert 3500 < back[0].seconds < 3910
        assert (await charge(till, "after")).state is State.APPROVED
        beats = world.network.paths().count(HEARTBEAT)
        await asyncio.sleep(600)
        assert world.network.paths().count(HEARTBEAT) - beats >= 9
        return asked

    assert living(world, scenario) < 250


def test_one_heartbeat_that_goes_astray_is_nothing_to_tell(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.fault({"match": {"call": "heartbeat", "nth": 1}, "do": "drop_answer"})
        await asyncio.sleep(300)
        return heard

    assert of((HostLost, HostBack, ChoreFailed), living(world, scenario)) == []


def test_a_host_that_answers_nonsense_is_told_once(make):
    world = make()

    async def scenario(till, heard):
        world.fault({"match": {"call": "heartbeat"}, "do": "wrong_key"})
        await asyncio.sleep(HOUR)
        return [event.chore for event in of(ChoreFailed, heard)]

    assert living(world, scenario) == ["heartbeat"]


def test_a_payment_in_doubt_is_settled_soon_after_the_host_is_back(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.network.after = _lose_charges
        payment = await charge(till)
        assert payment.state is State.IN_DOUBT
        world.network.after = lambda request: None
        await asyncio.sleep(400)
        return till.journal.payment(payment.id).outcome, [row["status"] for row in await world.books()]

    outcome, books = living(world, scenario)
    assert (outcome.value, books) in [("approved", ["approved"]), ("declined", ["canceled"])]


# -- payments come first ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["attest", "keys", "config", "terminal_parameters", "heartbeat"])
def test_a_host_that_is_slow_between_payments_does_not_hold_them_up(make, call):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.fault({"match": {"call": call}, "do": "delay", "seconds": 14})
        await control(world, actions=["rotate_keys", "refresh_config", "refresh_parameters"])
        longest = 0.0
        for number in range(40):
            began = world.loop.time()
            assert (await charge(till, f"order-{number}")).state is State.APPROVED
            longest = max(longest, world.loop.time() - began)
            await asyncio.sleep(7)
        return longest

    assert living(world, scenario) <= PATIENCE


def test_payments_without_a_pause_hold_up_nothing_but_what_can_wait(make):
    world = make()

    async def scenario(till, heard):
        async def till_by_till(name):
            for number in range(60):
                await charge(till, f"{name}-{number}", Amount(1208, "EUR"))  # eight seconds each

        await control(world, actions=["rotate_keys"])
        await asyncio.gather(till_by_till("a"), till_by_till("b"))
        beats = world.network.paths().count(HEARTBEAT)
        await asyncio.sleep(200)
        return beats, len(of(KeysRenewed, heard)), len(await world.books())

    beats, renewed, books = living(world, scenario)
    assert beats >= 14
    assert (renewed, books) == (1, 120)


# -- a process that stands still ----------------------------------------------------------------------------------


def test_a_process_that_is_stopped_for_an_hour_goes_on_as_if_nothing_had_been(make):
    world = make(key_set_life=7200)

    async def scenario(till, heard):
        await asyncio.sleep(600)
        beats = world.network.paths().count(HEARTBEAT)
        jump(world, HOUR)
        await asyncio.sleep(10)
        assert world.network.paths().count(HEARTBEAT) - beats == 1
        jump(world, 2 * HOUR)  # longer than the keys last
        await asyncio.sleep(120)
        assert (await charge(till)).state is State.APPROVED
        return of((ClockMoved, DeviceClockJumped, LevelLost), heard), len(of(KeysRenewed, heard)) >= 1

    assert living(world, scenario) == ([], True)


def test_a_process_that_is_stopped_in_the_middle_of_a_payment_ends_it_once(make):
    world = make()

    async def scenario(till, heard):
        paying = asyncio.create_task(charge(till, amount=Amount(1208, "EUR")))  # eight seconds
        await asyncio.sleep(4)
        jump(world, HOUR)
        payment = await paying
        await asyncio.sleep(600)
        return till.journal.payment(payment.id).outcome, [row["status"] for row in await world.books()]

    outcome, books = living(world, scenario)
    assert (outcome.value, books) in [("approved", ["approved"]), ("declined", ["canceled"])]


# -- the vault and the journal ------------------------------------------------------------------------------------


def test_the_vault_notes_how_long_the_journal_is_and_an_older_journal_is_refused(make, tmp_path):
    world = make()

    async def main():
        async with world.activated() as till:
            await charge(till, "first")
        shutil.copytree(world.home, tmp_path / "last week")
        async with world.terminal() as till:
            await charge(till, "second")
            await till._climb.renew_keys()
            seq = till.journal.seq
        assert read_facts(world.home / VAULT_FILE)["journal_seq"] == str(seq)
        for file in (tmp_path / "last week").glob("journal*"):
            shutil.copy(file, world.home)
        with pytest.raises(JournalDamaged, match="old copy"):
            async with world.terminal():
                pass

    world.run(main())


def test_a_disk_that_refuses_the_new_keys_leaves_the_old_ones_in_force(make, monkeypatch):
    world = make()
    write = Vault._write

    def full(*words):
        raise KeystoreError("the vault cannot be written: the disk is full")

    async def scenario(till, heard):
        await charge(till, "first")
        before = [fact.key_set_id for fact in till.key_facts()]
        monkeypatch.setattr(Vault, "_write", full)
        await control(world, actions=["rotate_keys"])
        await asyncio.sleep(300)
        assert [fact.key_set_id for fact in till.key_facts()] == before
        assert [(event.chore, "full" in event.reason) for event in of(ChoreFailed, heard)] == [("renew_keys", True)]
        assert (await charge(till)).state is State.APPROVED
        monkeypatch.setattr(Vault, "_write", write)
        await asyncio.sleep(400)
        return len(of(KeysRenewed, heard))

    assert living(world, scenario) == 1


def test_what_ended_long_ago_leaves_the_journal_and_its_totals_stay(make):
    world = make()

    async def scenario(till, _heard):
        old = await charge(till, "old")
        before = till.journal.totals(scheme)
        await asyncio.sleep(6 * DAY)
        young = await charge(till, "young")
        await asyncio.sleep(2.5 * DAY)
        return old, young, before, till.journal.payments(), till.journal.totals(scheme), till.journal.verify()

    old, young, before, left, after, records = living(
        world, scenario, retention_days=7, host={"idempotency_life": 3600}
    )
    assert [payment.id for payment in left] == [young.id]
    assert len(before) == 1
    assert set(before) < set(after)
    assert records > 0
    assert old.state is State.APPROVED


def test_a_heartbeat_that_is_refused_takes_no_keys_from_a_payment_under_way(make):
    """The payment needs them to hear its own answer."""
    world = make()

    async def scenario(till, heard):
        world.fault({"match": {"call": "heartbeat"}, "do": "status", "status": 403, "code": "4031"})
        world.network.trip = lambda request: Trip(back=14.0 if request.url.path == "/pos/charge" else 0.0)
        paying = asyncio.create_task(charge(till))
        await asyncio.sleep(13)
        during = till.level
        paid = await paying
        world.network.trip = lambda request: Trip()
        await asyncio.sleep(HOUR)
        world.fault()
        await asyncio.sleep(HOUR)
        return during, paid.state, len(of(LevelLost, heard)) > 0, till.level

    assert living(world, scenario) == (Level.ACTIVATED, State.APPROVED, True, Level.ACTIVATED)
