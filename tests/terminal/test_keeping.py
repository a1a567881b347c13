"""A terminal's life between payments, against the real host, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import shutil
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import msgspec
import pytest

from hw.card import ManualCard
from sim.host import viopay_activation
from sim.host.config import HostConfig
from sim.reader.handed import HandedReader
from sim.virtual_time import EPOCH
from sim.world import World
from terminal.activation import Level
from terminal.crypto.vault import Vault
from terminal.crypto.vault_file import read_facts
from terminal.errors import HostUnreachable, JournalDamaged, KeystoreError, NotReady
from terminal.events import (
    ChoreFailed,
    ClockMoved,
    ClockRefused,
    ConfigChanged,
    DeviceClockJumped,
    HostBack,
    HostLost,
    KeysRenewed,
    LevelLost,
    LevelReached,
    ParametersChanged,
    RefreshRefused,
    UpdateWanted,
)
from terminal.home import VAULT_FILE
from terminal.money import Amount
from terminal.payment import State
from terminal.turn import PATIENCE

TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY = Amount(1250, "EUR")
HOUR, DAY = 3600.0, 86_400.0
HEARTBEAT = "POST /pos/heartbeat"


@pytest.fixture
def make(tmp_path):
    worlds = []

    def make(**config):
        worlds.append(World(tmp_path, config=HostConfig(**config)))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


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
    quiet = {type(event).__name__ for event in heard} - {"CardRead", "PaymentChanged", "Downloading"}
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


# -- keys ---------------------------------------------------------------------------------------------------------


class SlowShopper(HandedReader):
    """A reader whose shopper takes fifty seconds over the card."""

    async def wait_for_card(self, *, timeout):
        await asyncio.sleep(50)
        return await super().wait_for_card(timeout=timeout)


def test_keys_that_come_due_during_a_long_payment_are_renewed_after_it(make):
    """Half of the set's life is over while the shopper looks for the card."""
    world = make(key_set_life=3600, rotate_before=0)

    async def scenario(till, heard):
        await asyncio.sleep(1780)
        world.network.requests.clear()
        assert (await till.charge(TWELVE_FIFTY, reference="r")).state is State.APPROVED
        during = list(world.network.paths())
        assert not of(KeysRenewed, heard)
        await asyncio.sleep(10)
        assert len(of(KeysRenewed, heard)) == 1
        return during

    during = living(world, scenario, reader=SlowShopper(TYPED))
    assert "POST /pos/keys" not in during
    assert during.count("POST /pos/charge") == 1


def test_a_key_set_that_expires_during_a_payment_is_replaced_at_the_hosts_word(make):
    """Nobody keeps this terminal in order: its keys end between the card's request and the card."""
    world = make(key_set_life=3600)

    async def main():
        async with world.activated(reader=SlowShopper(TYPED)) as till:
            await asyncio.sleep(3590)
            payment = await till.charge(TWELVE_FIFTY, reference="r")
            return payment.state, len(await world.books())

    assert world.run(main()) == (State.APPROVED, 1)


@pytest.mark.parametrize("ended", ["superseded", "keys_revoked"])
def test_keys_that_the_host_ended_are_noticed_by_the_heartbeat_and_taken_anew(make, ended):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(HOUR)
        await control(world, **{ended: True})
        await asyncio.sleep(200)
        assert len(of(KeysRenewed, heard)) == 1
        world.network.requests.clear()
        assert (await charge(till)).state is State.APPROVED
        return world.network.paths()

    assert living(world, scenario).count("POST /pos/charge") == 1


def test_a_payment_that_comes_before_the_heartbeat_mends_the_keys_itself(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(HOUR)
        await control(world, superseded=True)
        assert (await charge(till)).state is State.APPROVED
        await asyncio.sleep(200)
        return len(of(KeysRenewed, heard)), len(await world.books())

    assert living(world, scenario) == (1, 1)


def test_a_key_set_with_a_wrong_kcv_is_not_taken_and_the_old_one_goes_on(make):
    world = make()

    async def scenario(till, heard):
        world.fault({"match": {"call": "keys"}, "do": "wrong_kcv"})
        await control(world, actions=["rotate_keys"])
        await asyncio.sleep(HOUR)
        assert [event.reason for event in of(RefreshRefused, heard) if event.what == "keys"] == [
            "tmk: its check value does not match"
        ]
        assert (await charge(till)).state is State.APPROVED
        world.fault()
        await asyncio.sleep(HOUR)
        return len(of(KeysRenewed, heard))

    assert living(world, scenario) >= 1


def test_tokens_end_and_are_replaced_each_time_that_one_is_needed(make):
    world = make(token_life=60)

    async def scenario(till, heard):
        await asyncio.sleep(4 * HOUR)

    living(world, scenario)
    paths = world.network.paths()
    assert (
        4
        <= paths.count("POST /pos/attest")
        <= paths.count("POST /pos/config") + paths.count("POST /pos/terminal-parameters")
    )


def test_renewing_more_than_half_of_a_sets_life_ahead_is_half_of_it(make):
    world = make(key_set_life=7200)

    async def scenario(till, heard):
        await asyncio.sleep(DAY)
        return len(of(KeysRenewed, heard))

    assert 22 <= living(world, scenario, renew_before=6000.0) <= 24


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


# -- configuration and parameters ---------------------------------------------------------------------------------


@pytest.fixture
def configure(monkeypatch):
    """From now on the host's configuration is changed by ``change(document)``."""
    plain = viopay_activation.terminal_config

    def configure(change):
        def changed(device, merchant_id):
            document = copy.deepcopy(plain(device, merchant_id))
            change(document)
            return document

        monkeypatch.setattr(viopay_activation, "terminal_config", changed)

    return configure


def test_another_configuration_is_in_force_without_a_restart(make, configure):
    world = make()

    async def scenario(till, heard):
        configure(lambda document: document["intervals"].update(heartbeat_sec=600))
        await control(world, actions=["refresh_config"])
        await asyncio.sleep(200)
        world.network.requests.clear()
        await asyncio.sleep(2 * HOUR)
        assert till.level is Level.ACTIVATED
        return [event.sections for event in of(ConfigChanged, heard)], till.config.intervals.heartbeat_sec

    assert living(world, scenario) == ([("intervals",)], 600)
    assert 10 <= world.network.paths().count(HEARTBEAT) <= 14


def _without(*path):
    def change(document):
        for name in path[:-1]:
            document = document[name]
        del document[path[-1]]

    return change


def _with(value, *path):
    def change(document):
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = value

    return change


BAD = [
    (_with("TID-000000", "terminal", "terminal_id"), "another terminal"),
    (_with("POS-00000000", "terminal", "device_id"), "another terminal"),
    (_without("merchant"), "merchant"),
    (_with("-1", "security", "cvm_limit"), "security.cvm_limit"),
    (_with("12.50", "security", "contactless_limit"), "security.contactless_limit"),
    (_with("9" * 13, "security", "offline", "max_total"), "security.offline.max_total"),
    (_with(-1, "security", "offline", "max_count"), "security.offline.max_count"),
    (_with("EURO", "location", "currency"), "location.currency"),
    (_with(0, "intervals", "heartbeat_sec"), "intervals.heartbeat_sec"),
    (_with(10**9, "intervals", "update_check_sec"), "intervals.update_check_sec"),
    (_with("60", "intervals", "heartbeat_sec"), "heartbeat_sec"),
]


@pytest.mark.parametrize(("change", "named"), BAD, ids=[named for _, named in BAD])
def test_a_bad_configuration_is_told_once_and_the_old_one_stays_in_force(make, configure, change, named):
    world = make()

    async def scenario(till, heard):
        before = till.config
        configure(change)
        await control(world, actions=["refresh_config"])
        await asyncio.sleep(2 * HOUR)
        assert (till.level, till.config) == (Level.ACTIVATED, before)
        assert (await charge(till)).state is State.APPROVED
        told = [(event.what, named in event.reason) for event in of(RefreshRefused, heard)]
        configure(lambda document: None)
        await asyncio.sleep(2 * HOUR)
        assert till.config == before
        return told

    assert living(world, scenario) == [("config", True)]


def test_a_bad_configuration_does_not_survive_the_next_start_either(make, configure):
    world = make()

    async def main():
        async with world.activated() as till, kept(till):
            before = till.config
            configure(_with("-1", "security", "cvm_limit"))
            await control(world, actions=["refresh_config"])
            await asyncio.sleep(HOUR)
        async with world.terminal() as till:
            assert (till.level, till.config) == (Level.ACTIVATED, before)
            return (await charge(till)).state

    assert world.run(main()) is State.APPROVED


def _parameters(world, **changes):
    host = world.app.host
    host.parameters = host.parameters | changes
    host.parameters_json = msgspec.json.encode(host.parameters)


def test_other_parameters_are_in_force_without_a_restart_and_bad_ones_are_not(make):
    world = make()

    async def scenario(till, heard):
        kept_before = till._vault.get("parameters")
        _parameters(world, capks="none")
        await control(world, actions=["refresh_parameters"])
        await asyncio.sleep(HOUR)
        assert till._vault.get("parameters") == kept_before
        _parameters(world, capks=[], version="2026.01.1")
        await asyncio.sleep(2 * HOUR)
        return (
            [event.what for event in of(RefreshRefused, heard)],
            [event.version for event in of(ParametersChanged, heard)],
            msgspec.json.decode(till._vault.get("parameters"))["version"],
            till.level,
        )

    assert living(world, scenario) == (["parameters"], ["2026.01.1"], "2026.01.1", Level.ACTIVATED)


def test_a_refresh_that_the_power_ends_leaves_the_old_or_the_new_whole(make, configure, monkeypatch):
    class Cut(BaseException):
        pass

    world, write = make(), Vault._write

    async def main():
        async with world.activated() as till:
            before = till.config
            configure(_with("After", "merchant", "name"))

            def cut(*words):
                raise Cut

            monkeypatch.setattr(Vault, "_write", cut)
            with pytest.raises(Cut):
                await till._climb.refresh_config()
            monkeypatch.setattr(Vault, "_write", write)
        async with world.terminal() as till:
            assert till.config == before
            await till._climb.refresh_config()
        async with world.terminal() as till:
            return till.config.merchant.name, till.level

    assert world.run(main()) == ("After", Level.ACTIVATED)


# -- a device that is nobody's ------------------------------------------------------------------------------------


def test_a_revoked_device_takes_no_payments_says_so_and_comes_back_by_itself(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(HOUR)
        await control(world, revoked=True)
        await asyncio.sleep(200)
        with pytest.raises(NotReady, match="revoked the device") as caught:
            await charge(till)
        assert "till activate" in caught.value.advice
        await asyncio.sleep(HOUR)
        heartbeats = world.network.paths().count(HEARTBEAT)
        asked = len(world.network.requests)
        await asyncio.sleep(HOUR)
        assert world.network.paths().count(HEARTBEAT) == heartbeats
        assert len(world.network.requests) - asked <= 60
        await control(world, revoked=False)
        await asyncio.sleep(400)
        assert (await charge(till)).state is State.APPROVED
        lost = [(event.level, event.reason) for event in of(LevelLost, heard)]
        return lost, [event.level for event in of(LevelReached, heard)][-1]

    assert living(world, scenario) == ([("bootstrapped", "revoked")], "activated")


def test_an_unclaimed_device_takes_no_payments_says_so_and_waits_for_its_code(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(HOUR)
        await control(world, unclaimed=True)
        await asyncio.sleep(200)
        with pytest.raises(NotReady, match="it is unclaimed") as caught:
            await charge(till)
        assert "code" in caught.value.advice
        await asyncio.sleep(HOUR)
        assert "POST /pos/pairing-code" not in world.network.paths()
        await world.activate(till)
        await asyncio.sleep(200)
        assert (await charge(till)).state is State.APPROVED
        return [event.reason for event in of(LevelLost, heard)]

    assert living(world, scenario) == ["unclaimed"]


def test_why_no_payment_is_taken_is_known_after_a_restart(make):
    world = make()

    async def main():
        async with world.activated() as till, kept(till):
            await control(world, revoked=True)
            await asyncio.sleep(200)
        async with world.terminal() as till:
            with pytest.raises(NotReady, match="revoked"):
                await charge(till)

    world.run(main())


def test_a_device_that_was_revoked_after_it_was_unclaimed_says_the_later(make):
    world = make()

    async def scenario(till, heard):
        await control(world, unclaimed=True)
        await asyncio.sleep(300)
        await control(world, revoked=True)
        await asyncio.sleep(HOUR)
        with pytest.raises(NotReady, match="revoked"):
            await charge(till)
        await control(world, revoked=False)
        await asyncio.sleep(HOUR)
        with pytest.raises(NotReady, match="unclaimed"):
            await charge(till)

    living(world, scenario)


def test_a_version_that_is_too_old_is_told_and_tried_again_without_hurry(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.fault(
            {"match": {"call": "heartbeat"}, "do": "status", "status": 426, "code": "4260"},
            {"match": {"call": "bootstrap"}, "do": "status", "status": 426, "code": "4260"},
        )
        await asyncio.sleep(100)
        with pytest.raises(NotReady, match="newer version"):
            await charge(till)
        asked = len(world.network.requests)
        await asyncio.sleep(HOUR)
        assert len(world.network.requests) - asked <= 60
        world.fault()
        await asyncio.sleep(400)
        return (await charge(till)).state

    assert living(world, scenario) is State.APPROVED


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


# -- the clock ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-365 * DAY, -HOUR, -5.0, 5.0, HOUR, 20 * 365 * DAY])
def test_a_devices_clock_that_jumps_while_we_run_is_told_and_moves_nothing(make, skew):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(600)
        world.skew = skew
        await asyncio.sleep(200)
        world.network.requests.clear()
        assert (await charge(till)).state is State.APPROVED
        assert right(till, world)
        return [event.seconds for event in of(DeviceClockJumped, heard)], of(ClockMoved, heard)

    assert living(world, scenario) == ([skew], [])
    assert world.network.paths().count("POST /pos/charge") == 1


@pytest.mark.parametrize("skew", [-365 * DAY, -300.0, 300.0, 365 * DAY])
def test_a_jump_that_was_told_is_no_surprise_at_the_next_start(make, skew):
    world = make()

    async def main():
        async with world.activated() as till, kept(till):
            world.skew = skew
            await asyncio.sleep(200)
        async with world.terminal() as till:
            world.network.requests.clear()
            return (await charge(till)).state

    assert world.run(main()) is State.APPROVED
    assert world.network.paths() == ["POST /pos/charge"]


def test_a_device_that_wakes_a_year_ago_goes_on_from_its_last_record(make):
    world = make()

    async def main():
        async with world.activated() as till:
            await asyncio.sleep(10 * DAY)
            with contextlib.suppress(HostUnreachable):
                await charge(till)
            last = till.journal.last_at
        world.skew = -365 * DAY
        async with world.terminal() as till, kept(till) as heard:
            woke = till._clock.now()
            await asyncio.sleep(200)
            assert (await charge(till, "after")).state is State.APPROVED
            assert right(till, world, within=1.0)
            return woke - last, heard

    gap, heard = world.run(main())
    assert timedelta() <= gap <= timedelta(seconds=1)
    assert not of(ClockRefused, heard)


def test_a_host_whose_clock_is_a_year_back_is_not_followed_and_told(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(600)
        assert (await charge(till, "before")).state is State.APPROVED
        world.fault({"do": "clock", "seconds": -365 * DAY})
        await asyncio.sleep(HOUR)
        assert right(till, world)
        assert of(ClockMoved, heard) == []
        refused = of(ClockRefused, heard)
        assert refused
        assert all(event.said < event.floor <= event.at for event in refused)
        assert all("clock_step" in event.advice for event in refused)
        world.fault()
        await asyncio.sleep(HOUR)
        return (await charge(till, "after")).state

    assert living(world, scenario) is State.APPROVED


def test_one_stray_answer_with_another_day_moves_nothing(make):
    world = make()

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.fault({"match": {"call": "bootstrap", "nth": 1}, "do": "clock", "seconds": 30 * DAY})
        assert not await till._climb.follow_clock()
        return right(till, world), of((ClockMoved, ClockRefused), heard)

    assert living(world, scenario) == (True, [])


def test_a_host_that_moves_a_day_ahead_and_says_so_twice_is_followed(make):
    world = make(key_set_life=30 * 86_400)

    async def scenario(till, heard):
        await asyncio.sleep(100)
        world.fault({"do": "clock", "seconds": DAY})
        await asyncio.sleep(400)
        assert (await charge(till)).state is State.APPROVED
        return [abs(event.seconds - DAY) <= 1 for event in of(ClockMoved, heard)]

    assert living(world, scenario) == [True]


def test_the_floor_can_be_lowered_for_a_start_where_the_host_is_right(make):
    """The host was a day ahead for an hour, and was believed."""
    world = make(key_set_life=30 * 86_400)

    async def main():
        async with world.activated() as till, kept(till):
            world.fault({"do": "clock", "seconds": DAY})
            await asyncio.sleep(400)
            assert (await charge(till)).state is State.APPROVED
            world.fault()
        async with world.terminal() as till, kept(till) as heard:
            await asyncio.sleep(200)
            assert of(ClockRefused, heard)
            assert of(ClockMoved, heard) == []
        async with world.terminal(clock_step=2 * DAY) as till, kept(till) as heard:
            await asyncio.sleep(200)
            assert [round(event.seconds / DAY) for event in of(ClockMoved, heard)] == [-1]
            return (await charge(till, "after")).state

    assert world.run(main()) is State.APPROVED


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
