"""The climb, against the real host: every way up, every way back, and a power cut at every write."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest

from hw.card import ManualCard
from sim.world import World
from terminal.activation import Level
from terminal.climb import CONFIG, PARAMETERS
from terminal.crypto.policy import Role
from terminal.crypto.vault import Vault
from terminal.crypto.vault_file import read_facts
from terminal.errors import (
    EnvelopeError,
    HostAnswerInvalid,
    HostRefused,
    HostSilent,
    HostUnreachable,
    KeyPolicyError,
    VersionTooOld,
)
from terminal.events import (
    ClockMoved,
    DeviceClockJumped,
    Downloading,
    LevelLost,
    LevelReached,
    PairingCodeShown,
    PairingPolled,
)
from terminal.home import VAULT_FILE
from terminal.money import Amount

WAY_UP = ["bootstrapped", "pairing", "claimed", "attested", "keyed", "configured", "parameterised", "activated"]
CALLS_UP = [
    "POST /pos/bootstrap",
    "GET /pos/status",
    "POST /pos/pairing-code",
    "GET /pos/status",
    "POST /pos/attest",
    "POST /pos/keys",
    "POST /pos/config",
    "POST /pos/terminal-parameters",
    "POST /pos/activate",
]


@pytest.fixture
def world(make):
    return make()


@contextlib.asynccontextmanager
async def provisioned(world, *faults, **settings):
    """A terminal that has not climbed yet, of a host that fails so."""
    await world.provision()
    world.fault(*faults)
    async with world.terminal(**settings) as till:
        yield till


async def climbed(till, world):
    """The events of its way to the top."""
    events = await world.activate(till)
    assert till.level is Level.ACTIVATED
    return events


async def climb(world, *faults, **settings):
    """The events of a new terminal's way to the top, of a host that fails so."""
    async with provisioned(world, *faults, **settings) as till:
        return await climbed(till, world)


async def climb_on(world):
    """The same of the next process of a terminal that is on its way."""
    async with world.terminal() as till:
        return await climbed(till, world)


def refusing(call, status, code, **match):
    """A fault: the host refuses that call."""
    return {"match": {"call": call, **match}, "do": "status", "status": status, "code": code}


async def stopped(world, call, level):
    """A climb that came to that level, as the call after it was refused; now it would not be."""
    async with provisioned(world, refusing(call, 409, "4090")) as till:
        with pytest.raises(HostRefused):
            await world.activate(till)
        assert till.level is level
    world.fault()


async def pairing(till):
    """An activation that has come to its pairing code: its task, the code, and the events from then on."""
    events = till.events()
    task = asyncio.create_task(till.activate())
    return task, await the_next(PairingCodeShown, events), events


async def the_next(kind, events):
    while not isinstance(event := await anext(events), kind):
        pass
    return event


def levels(events):
    return [event.level for event in events if isinstance(event, LevelReached)]


def lost(events):
    """Why levels were lost."""
    return [event.reason for event in events if isinstance(event, LevelLost)]


def test_a_new_terminal_climbs_every_level_once_and_tells_of_each(world):
    async def main():
        async with provisioned(world) as till:
            events = await climbed(till, world)
            return events, [fact.role for fact in till.key_facts()]

    events, roles = world.run(main())
    assert levels(events) == WAY_UP
    assert world.network.paths() == CALLS_UP
    assert roles == [Role.ZMK, Role.IDENTITY, Role.TMK, Role.KEK, Role.MSK, Role.TPK, Role.TDK, Role.MAC]
    last = [event for event in events if isinstance(event, Downloading)][-1]
    assert last.received == last.total
    assert last.total > 20_000
    assert read_facts(world.home / VAULT_FILE)["level"] == "activated"


def test_activating_again_asks_nothing(world):
    async def main():
        async with world.activated() as till:
            await till.activate()
        async with world.terminal() as till:
            await till.activate()

    world.run(main())
    assert world.network.paths() == []


def test_what_was_brought_lies_in_the_vault(world):
    async def main():
        async with world.activated():
            pass
        with Vault.open(world.home / VAULT_FILE, world.secret, random=bytes) as vault:
            return {name: vault.get(name) for name in (CONFIG, PARAMETERS)}

    kept = world.run(main())
    assert json.loads(kept[CONFIG])["terminal"]["device_id"] == world.device["device_id"]
    assert 150_000 < len(kept[PARAMETERS]) < 300_000
    files = b"".join(file.read_bytes() for file in world.home.iterdir())
    assert b"terminal_capabilities" not in files


def test_the_code_is_polled_every_few_seconds_until_somebody_claims(world):
    async def main():
        async with provisioned(world, pairing_poll=4.0) as till:
            task, code, events = await pairing(till)
            polls = [await the_next(PairingPolled, events) for _ in range(3)]
            await world.claim(code.pairing_code)
            await task
            return polls

    polls = world.run(main())
    assert [event.seconds_left for event in polls] == [296, 292, 288]


def test_an_expired_code_is_replaced_by_a_new_one(world):
    async def main():
        async with provisioned(world) as till:
            heard = []
            events = till.events()
            task = asyncio.create_task(till.activate())
            while sum(isinstance(event, PairingCodeShown) for event in heard) < 2:
                heard.append(await anext(events))
            codes = [event.pairing_code for event in heard if isinstance(event, PairingCodeShown)]
            await world.claim(codes[-1])
            await task
            return codes, lost(heard)

    codes, reasons = world.run(main())
    assert codes[0] != codes[1]
    assert reasons == ["code_expired"]


def test_a_resumed_pairing_shows_its_unexpired_code_again(world):
    async def main():
        async with provisioned(world) as till:
            task, first, _ = await pairing(till)
            task.cancel()
        heard = await climb_on(world)
        return first, next(event for event in heard if isinstance(event, PairingCodeShown))

    first, again = world.run(main())
    assert (again.pairing_code, again.expires_at) == (first.pairing_code, first.expires_at)
    assert (first.resumed, again.resumed) == (False, True)
    assert world.network.paths().count("POST /pos/pairing-code") == 1


def test_who_asks_again_is_shown_the_code_again(world):
    async def main():
        async with provisioned(world) as till:
            task, first, _ = await pairing(till)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            heard = await climbed(till, world)
            return first, next(event for event in heard if isinstance(event, PairingCodeShown))

    first, again = world.run(main())
    assert (again.pairing_code, again.resumed) == (first.pairing_code, True)
    assert world.network.paths().count("POST /pos/pairing-code") == 1


def test_a_claim_that_came_while_the_power_was_off_needs_no_new_code(world):
    async def main():
        async with provisioned(world) as till:
            task, code, _ = await pairing(till)
            task.cancel()
        await world.claim(code.pairing_code)
        await asyncio.sleep(3600)
        assert levels(await climb_on(world))[0] == "claimed"

    world.run(main())


class PowerCut(BaseException):
    """The process is gone."""


def cut_at(world, monkeypatch, chosen):
    """A power cut at the chosen moment: before or after a request, or before or after a vault write."""
    moments = 0

    def moment(*_):
        nonlocal moments
        moments += 1
        if moments == chosen:
            raise PowerCut

    write = Vault._write if hasattr(Vault, "_write") else None
    assert write is not None, "the vault's one writing method is not where this test looks"

    def cut_write(self, *words):
        moment()
        result = write(self, *words)
        moment()
        return result

    world.network.before = world.network.after = moment
    monkeypatch.setattr(Vault, "_write", cut_write)


HELD = {  # what a level on disk promises will not be asked again
    "bootstrapped": "POST /pos/bootstrap",
    "pairing": "POST /pos/pairing-code",
    "attested": "POST /pos/attest",
    "keyed": "POST /pos/keys",
    "configured": "POST /pos/config",
    "parameterised": "POST /pos/terminal-parameters",
    "activated": "POST /pos/activate",
}


@pytest.mark.parametrize("chosen", range(1, 36))
def test_a_power_cut_at_any_moment_resumes_at_the_right_level(tmp_path, monkeypatch, chosen):
    world = World(tmp_path, seed=chosen)

    async def main():
        await world.provision()
        with monkeypatch.context() as patch:
            cut_at(world, patch, chosen)
            try:
                async with world.terminal() as till:
                    await world.activate(till)
            except PowerCut:
                pass
        world.network.before = world.network.after = lambda request: None
        held = read_facts(world.home / VAULT_FILE)["level"]
        before = len(world.network.requests)
        await climb_on(world)
        return held, world.network.paths()[before:], await world.exchanges()

    held, resumed, exchanges = world.run(main())
    world.close()
    order = [level.value for level in Level]
    for level in HELD:
        if order.index(level) <= order.index(held):
            assert HELD[level] not in resumed, held
    assert exchanges.count("activate 200") == 1
    assert not [line for line in exchanges if not line.endswith(" 200")]


def test_the_last_moment_of_a_climb_was_among_those_tried(world, monkeypatch):
    """The range above covers the whole climb: a climb has fewer moments than the range is long."""
    count = 0

    def counted(*_):
        nonlocal count
        count += 1

    write = Vault._write

    def counted_write(self, *words):
        counted()
        result = write(self, *words)
        counted()
        return result

    async def main():
        await world.provision()
        monkeypatch.setattr(Vault, "_write", counted_write)
        world.network.before = world.network.after = counted
        async with world.terminal() as till:
            await world.activate(till)

    world.run(main())
    assert 25 < count <= 34


# -- ways back ------------------------------------------------------------------------------------------------


def test_a_token_that_would_not_last_to_the_end_is_replaced_first(make):
    world = make(token_life=70)
    world.run(climb(world, {"match": {"call": "config"}, "do": "delay", "seconds": 14.0}))
    paths = world.network.paths()
    assert paths.count("POST /pos/keys") == 1
    assert paths.count("POST /pos/config") == 1


def test_a_token_from_before_a_long_power_cut_is_replaced_and_no_other_level(world):
    async def main():
        await stopped(world, "terminal_parameters", Level.CONFIGURED)
        await asyncio.sleep(600)
        world.network.requests.clear()
        await climb_on(world)

    world.run(main())
    assert world.network.paths() == ["POST /pos/attest", "POST /pos/terminal-parameters", "POST /pos/activate"]


def test_a_token_that_the_host_refuses_is_replaced_once(world):
    world.run(climb(world, refusing("config", 401, "4010", nth=1)))
    paths = world.network.paths()
    assert (paths.count("POST /pos/attest"), paths.count("POST /pos/keys"), paths.count("POST /pos/config")) == (
        2,
        1,
        2,
    )


def test_a_token_that_the_host_refuses_again_and_again_is_told(world):
    async def main():
        async with provisioned(world, refusing("config", 401, "4010")) as till:
            with pytest.raises(HostRefused, match="pos/config"):
                await world.activate(till)
            assert till.level is Level.KEYED

    world.run(main())


def test_keys_that_the_host_superseded_are_taken_anew(world):
    events = world.run(climb(world, refusing("activate", 401, "4011", nth=1)))
    assert "keys_expired" in lost(events)
    assert world.network.paths().count("POST /pos/keys") == 2


def test_keys_that_expired_during_a_long_power_cut_are_taken_anew(make):
    world = make(key_set_life=3600)

    async def main():
        await stopped(world, "terminal_parameters", Level.CONFIGURED)
        await asyncio.sleep(7200)
        await climb_on(world)

    world.run(main())
    assert world.network.paths().count("POST /pos/keys") == 2


def test_a_device_that_was_unclaimed_pairs_again(world):
    assert lost(world.run(climb(world, refusing("config", 403, "4031", nth=1)))) == ["unclaimed"]


def test_a_revoked_device_is_told_and_does_not_spin(world):
    async def main():
        await world.provision()
        await world.ask("POST", f"/sim/devices/{world.device['device_id']}", {"revoked": True})
        async with world.terminal() as till:
            with pytest.raises(HostRefused) as caught:
                await till.activate()
        return caught.value

    assert world.run(main()).status == 403


def test_a_host_that_wants_a_newer_version_is_believed(make):
    world = make(min_supported_version="9.0.0")

    async def main():
        async with provisioned(world) as till:
            with pytest.raises((VersionTooOld, HostRefused), match=r"9\.0\.0|4260"):
                await till.activate()
            assert till.level is Level.PROVISIONED

    world.run(main())


def test_a_version_that_becomes_too_old_on_the_way_falls_back_to_the_start(world):
    async def main():
        async with provisioned(world, refusing("keys", 426, "4260")) as till:
            with pytest.raises(HostRefused, match="426"):
                await world.activate(till)
            assert till.level is Level.PROVISIONED

    world.run(main())


@pytest.mark.parametrize("skew", [3600.0, -3600.0, 86_400.0 * 365 * 20])
def test_a_clock_that_is_far_off_follows_the_hosts(world, skew):
    world.skew = skew

    async def main():
        events = await climb(world)
        world.network.requests.clear()
        async with world.terminal() as till:
            await till.resolve()
        return [event.seconds for event in events if isinstance(event, ClockMoved)]

    assert world.run(main()) == [-skew]


def test_an_attestation_that_is_refused_for_its_date_asks_for_the_time_and_tries_once_more(world):
    world.run(climb(world, {"match": {"call": "attest", "times": 1}, "do": "clock", "seconds": 7200}))
    assert world.network.paths().count("POST /pos/bootstrap") == 2
    assert world.network.paths().count("POST /pos/attest") == 2


def test_a_devices_clock_that_jumps_in_the_middle_changes_nothing_and_is_told(world):
    async def main():
        async with provisioned(world) as till:
            task, event, events = await pairing(till)
            heard = []
            world.skew = 7200.0
            await world.claim(event.pairing_code)
            await task
            while not isinstance(event, LevelReached) or event.level != "activated":
                heard.append(event := await anext(events))
        world.network.requests.clear()
        async with world.terminal() as till:
            await till.charge(Amount(1250, "EUR"), reference="r", card=ManualCard("4111111111111111", "2812"))
        return heard

    heard = world.run(main())
    assert [event.seconds for event in heard if isinstance(event, DeviceClockJumped)] == [7200]
    assert not [event for event in heard if isinstance(event, ClockMoved)]
    assert world.network.paths() == ["POST /pos/charge"]


# -- answers that must not be believed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "error", "level"),
    [
        ({"match": {"call": "keys"}, "do": "wrong_kcv"}, KeyPolicyError, Level.ATTESTED),
        ({"match": {"call": "config"}, "do": "wrong_key"}, EnvelopeError, Level.KEYED),
        ({"match": {"call": "config"}, "do": "wrong_kcv"}, EnvelopeError, Level.KEYED),
        ({"match": {"call": "terminal_parameters"}, "do": "wrong_key"}, EnvelopeError, Level.CONFIGURED),
        ({"match": {"call": "keys"}, "do": "html"}, HostSilent, Level.ATTESTED),
        ({"match": {"call": "config"}, "do": "cut"}, HostSilent, Level.KEYED),
        ({"match": {"call": "config"}, "do": "status", "status": 500}, HostRefused, Level.KEYED),
        (
            {"match": {"call": "config"}, "do": "status", "status": 429, "retry_after": 3600},
            HostRefused,
            Level.KEYED,
        ),
        ({"match": {"call": "activate"}, "do": "drop_answer"}, HostSilent, Level.PARAMETERISED),
    ],
)
def test_what_cannot_be_believed_installs_nothing_and_the_next_try_goes_on(world, rule, error, level):
    async def main():
        async with provisioned(world, rule) as till:
            with pytest.raises(error):
                await world.activate(till)
            assert till.level is level
        world.fault()
        await climb_on(world)
        return await world.exchanges()

    assert world.run(main()).count("activate 200") == 1


def test_passing_trouble_is_ridden_out(world):
    faults = (
        {"match": {"call": "bootstrap", "times": 2}, "do": "status", "status": 503},
        {"match": {"call": "keys", "times": 1}, "do": "drop_answer"},
        {"match": {"call": "config", "times": 1}, "do": "status", "status": 429, "retry_after": 5},
    )
    assert levels(world.run(climb(world, *faults))) == WAY_UP


def test_another_terminals_configuration_is_refused(world):
    async def main():
        async with provisioned(world) as till:
            plain = till._keystore.open

            def other(body, **words):
                return plain(body, **words).replace(b'"TID-', b'"TIX-')

            till._climb._keystore.open = other
            with pytest.raises(HostAnswerInvalid, match="another terminal"):
                await world.activate(till)
            assert till.level is Level.KEYED

    world.run(main())


def test_no_network_at_all_is_told_as_such(world):
    def down(request):
        raise httpx.ConnectError("no route to host", request=request)

    async def main():
        async with provisioned(world) as till:
            world.network.before = down
            with pytest.raises(HostUnreachable, match="cannot be connected"):
                await till.activate()
            assert till.level is Level.PROVISIONED

    world.run(main())


def test_a_token_shorter_than_our_timeouts_is_used_and_not_replaced_without_end(make):
    world = make(token_life=50)

    def bounded(request):
        assert world.network.paths().count("POST /pos/attest") < 5

    world.network.before = bounded
    world.run(climb(world, host={"read_timeout": 15.0}))
    assert world.network.paths().count("POST /pos/attest") == 1


@pytest.mark.parametrize("skew", [-86_400.0 * 300, 86_400.0 * 300])
def test_a_clock_that_was_lost_at_a_level_with_keys_follows_the_hosts(world, skew):
    """A device without a battery wakes up in the wrong year, in the middle of its activation."""

    async def main():
        await stopped(world, "config", Level.KEYED)
        world.skew = skew
        await asyncio.sleep(600)
        await climb_on(world)

    world.run(main())


def test_credentials_refused_while_pairing_are_told_as_what_they_are(world):
    async def main():
        async with provisioned(world, refusing("status", 401, "4010")) as till:
            with pytest.raises(HostRefused, match="pos/status"):
                await till.activate()
            world.fault()
            await climbed(till, world)

    world.run(main())


@pytest.mark.parametrize(
    ("call", "status", "code", "level"),
    [
        ("attest", 403, "4031", Level.BOOTSTRAPPED),
        ("keys", 401, "4011", Level.CLAIMED),
        ("keys", 426, "4260", Level.PROVISIONED),
    ],
)
def test_a_renewal_that_costs_the_level_says_why_and_the_next_climb_mends_it(world, call, status, code, level):
    async def main():
        async with world.activated() as till:
            world.fault(refusing(call, status, code))
            with pytest.raises(HostRefused, match=str(status)):
                await till._climb.renew_keys()
            assert till.level is level
            world.fault()
            await climbed(till, world)

    world.run(main())


@pytest.mark.parametrize("rule", [{"do": "drop_answer"}, {"do": "wrong_key"}, {"do": "cut"}])
def test_an_activation_whose_answer_was_lost_is_not_made_twice_by_the_same_process(world, rule):
    async def main():
        async with provisioned(world, {"match": {"call": "activate"}, **rule}) as till:
            with pytest.raises((HostSilent, EnvelopeError)):
                await world.activate(till)
            world.fault()
            await climbed(till, world)

    world.run(main())
    assert world.network.paths().count("POST /pos/activate") == 1


def test_a_code_that_was_used_up_without_a_claim_is_replaced(world):
    """The merchant claimed the device and gave it up again, between two polls."""

    async def main():
        async with provisioned(world) as till:
            task, _, events = await pairing(till)
            world.ledger._connection.execute("UPDATE pairing_codes SET used_at = 1")
            while not isinstance(event := await anext(events), LevelLost):
                assert not isinstance(event, PairingPolled)
            code = await the_next(PairingCodeShown, events)
            await world.claim(code.pairing_code)
            await task

    world.run(main())


def key_sets(till):
    return {fact.key_set_id for fact in till.key_facts() if fact.key_set_id}


def test_the_key_set_before_goes_when_it_has_expired(make):
    world = make(key_set_life=3600)

    async def main():
        async with world.activated() as till:
            first = key_sets(till)
            await asyncio.sleep(1800)
            await till._climb.renew_keys()
            assert len(key_sets(till)) == 2
            await asyncio.sleep(1801)
            await till.resolve()
            assert first.isdisjoint(key_sets(till))
            assert len(key_sets(till)) == 1

    world.run(main())


def test_a_device_that_is_nobodys_keeps_no_key_set(world):
    async def main():
        async with world.activated() as till:
            await world.ask("POST", f"/sim/devices/{world.device['device_id']}", {"unclaimed": True})
            with pytest.raises(HostRefused, match="4031"):
                await till.charge(Amount(1250, "EUR"), reference="r", card=ManualCard("4111111111111111", "2812"))
            assert till.level is Level.BOOTSTRAPPED
            assert key_sets(till) == set()
            assert "key_set_id" not in read_facts(world.home / VAULT_FILE)
            await world.activate(till)
            assert len(key_sets(till)) == 1

    world.run(main())
