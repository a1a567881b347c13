"""Keys, configuration and parameters renewed in the middle of the day: proved first, then in force at once."""

from __future__ import annotations

import asyncio
import copy

import msgspec
import pytest

from sim.host import viopay_activation
from sim.reader.handed import HandedReader
from terminal.activation import Level
from terminal.crypto.vault import Vault
from terminal.events import (
    ConfigChanged,
    KeysRenewed,
    ParametersChanged,
    RefreshRefused,
)
from terminal.payment import State
from tests.terminal.kept import (
    DAY,
    HEARTBEAT,
    HOUR,
    TWELVE_FIFTY,
    TYPED,
    charge,
    control,
    kept,
    living,
    of,
)

# -- keys ---------------------------------------------------------------------------------------------------------


class SlowShopper(HandedReader):
    """A reader whose shopper takes fifty seconds over the card."""

    async def wait_for_card(self, *, timeout, sale):
        await asyncio.sleep(50)
        return await super().wait_for_card(timeout=timeout, sale=sale)


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
