"""A world in which power, host, network and clocks fail, and which is the same world each time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hw.card import ManualCard
from sim.host.config import HostConfig
from sim.power import PowerCut
from sim.world import World, WorldError
from terminal.activation import Level
from terminal.disk import Disk
from terminal.errors import HostUnreachable, KeystoreError, TillError
from terminal.money import Amount
from terminal.payment import Outcome, Payment, State

TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY = Amount(1250, "EUR")
IMPATIENT = {"read_timeout": 10.0, "call_timeout": 25.0, "attempts": 1}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, seed=7) as world:
        yield world


async def activated(world: World) -> None:
    async with world.activated():
        pass


async def charge(world: World, reference: str = "r", **changes: Any) -> Payment:
    async with world.terminal(**changes) as till:
        return await till.charge(TWELVE_FIFTY, reference=reference, card=TYPED)


async def settled(world: World, reference: str = "r") -> Payment | None:
    """What the journal says once there was time to find out; its chain is whole."""
    async with world.terminal() as till:
        await asyncio.sleep(400)
        await till.resolve()
        till.journal.verify()
        return till.journal.charge_by_reference(reference)


class TestPowerCuts:
    def test_at_every_moment_of_a_charge_the_books_agree_afterwards(self, tmp_path: Path) -> None:
        where: list[str] = []
        states = set()
        for moment in range(1, 200):
            (folder := tmp_path / str(moment)).mkdir()
            with World(folder, seed=moment) as world:
                world.run(activated(world))
                world.power.cut_at = moment
                try:
                    world.run(world.powered(charge(world)))
                    break
                except PowerCut as cut:
                    where.append(str(cut))
                world.power_back()
                payment = world.run(world.powered(settled(world)))
                booked = [charge["status"] for charge in world.run(world.books())]
                assert booked == ([] if payment is None or not payment.charge_id else [payment.state.value])
                states.add(payment and payment.state)
        assert {"request.before", "request.under_way", "request.unread", "commit.during"} <= set(where)
        assert {None, State.APPROVED, State.CANCELED} <= states
        assert len(where) > 20

    def test_the_program_is_gone_with_all_that_it_began(self, world: World) -> None:
        told: list[str] = []
        tasks: list[asyncio.Task[None]] = []

        async def aside() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                told.append("the side task ended")
            told.append("and went on")

        async def program() -> None:
            async with world.terminal() as till:
                tasks.append(asyncio.create_task(aside()))
                await asyncio.sleep(0)
                await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                told.append("charged")

        world.run(activated(world))
        world.fault({"do": "power_cut", "when": "under_way", "match": {"call": "charge"}})
        with pytest.raises(PowerCut, match=r"request\.under_way"):
            world.run(world.powered(program()))
        assert told == ["the side task ended"]
        assert world.fault_counts()["power_cut"] == 1
        assert len(world.run(world.books())) == 1

    def test_a_rule_for_the_disk(self, world: World) -> None:
        world.run(activated(world))
        world.disk_faults({"do": "lost", "match": {"op": "commit", "nth": 2}})
        with pytest.raises(PowerCut, match=r"commit\.during"):
            world.run(world.powered(charge(world)))
        assert any("-wal: 0 of" in lost for lost in world.power_back())
        assert world.power.cuts == {"commit.during": 1}
        assert world.fault_counts() == {"lost": 1}

    def test_at_will_from_outside(self, world: World) -> None:
        async def main() -> None:
            running = asyncio.create_task(world.powered(charge(world)))
            await asyncio.sleep(3)
            world.power.off()
            await running

        world.run(activated(world))
        world.fault({"do": "delay", "seconds": 5, "match": {"call": "charge"}})
        with pytest.raises(PowerCut, match="at will"):
            world.run(main())
        world.power_back()
        payment = world.run(world.powered(settled(world)))
        assert payment is not None
        assert payment.state is State.CANCELED

    def test_nothing_of_the_dead_reaches_the_disk_and_no_lock_stays(self, world: World) -> None:
        world.run(activated(world))
        world.fault({"do": "power_cut", "when": "under_way", "match": {"call": "charge"}})
        with pytest.raises(PowerCut):
            world.run(world.powered(charge(world)))
        world.fault()

        def home() -> dict[str, bytes]:
            return {file.name: file.read_bytes() for file in world.home.iterdir() if not file.name.endswith("-shm")}

        before = home()
        with pytest.raises(PowerCut):
            world.run(charge(world))
        assert home() == before
        world.power_back(lose=False)
        assert world.run(world.powered(settled(world))) is not None

    def test_a_program_that_ends_by_itself_leaves_its_answer_and_its_error(self, world: World) -> None:
        async def fails() -> None:
            raise KeystoreError("no")

        world.run(activated(world))
        assert world.run(world.powered(charge(world))).outcome is Outcome.APPROVED
        with pytest.raises(KeystoreError):
            world.run(world.powered(fails()))
        assert world.power_back() == []

    def test_what_a_program_began_ends_with_it(self, world: World) -> None:
        ended: list[bool] = []

        async def aside() -> None:
            try:
                await asyncio.sleep(10**6)
            finally:
                ended.append(True)

        async def program() -> asyncio.Task[None]:
            task = asyncio.create_task(aside())
            await asyncio.sleep(0)
            return task

        assert world.run(world.powered(program())).cancelled()
        assert ended == [True]
        assert world.loop.time() < 1

    def test_a_disk_of_ones_own_knows_no_faults(self, tmp_path: Path) -> None:
        with World(tmp_path, disk=Disk()) as world:
            world.run(activated(world))
            assert world.run(charge(world)).outcome is Outcome.APPROVED
            with pytest.raises(TypeError):
                world.disk_faults({"do": "full"})


class TestTheDisk:
    def test_full_and_then_not(self, world: World) -> None:
        """Nothing is sent that could not be written down, and all is well once there is room."""
        world.run(activated(world))
        world.disk_faults({"do": "full", "match": {"op": "commit"}})
        with pytest.raises(TillError):
            world.run(world.powered(charge(world)))
        assert world.run(world.books()) == []
        world.disk_faults()
        assert world.run(world.powered(charge(world))).outcome is Outcome.APPROVED


class TestTheHost:
    @pytest.mark.parametrize("durable", [False, True])
    def test_a_host_that_starts_anew_knows_what_it_has_answered(self, tmp_path: Path, durable: bool) -> None:
        async def main(world: World) -> tuple[list[Any], list[Any], list[Any]]:
            async with world.terminal() as till:
                first = await till.charge(TWELVE_FIFTY, reference="one", card=TYPED)
                before = await world.books()
                world.restart_host()
                after = await world.books()
                second = await till.charge(TWELVE_FIFTY, reference="two", card=TYPED)
                return before, after, [first.outcome, second.outcome]

        with World(tmp_path, durable=durable) as world:
            world.run(activated(world))
            before, after, outcomes = world.run(main(world))
        assert before == after
        assert outcomes == [Outcome.APPROVED] * 2

    def test_in_the_middle_of_a_charge_its_connection_is_cut(self, world: World) -> None:
        async def main() -> Payment:
            async with world.terminal(host=IMPATIENT) as till:
                charging = asyncio.create_task(till.charge(TWELVE_FIFTY, reference="r", card=TYPED))
                await asyncio.sleep(2)
                world.restart_host()
                return await charging

        world.run(activated(world))
        world.fault({"do": "delay", "seconds": 5, "match": {"call": "charge", "nth": 1}})
        payment = world.run(main())
        assert payment.outcome is not Outcome.DECLINED
        assert len(world.run(world.books())) == (1 if payment.outcome is Outcome.APPROVED else 0)

    def test_faults_go_on_in_the_next_one(self, world: World) -> None:
        world.run(activated(world))
        world.fault({"do": "status", "status": 422, "match": {"call": "charge"}})
        world.restart_host()
        with pytest.raises(TillError):
            world.run(charge(world))
        assert world.fault_counts() == {"status": 1}


class TestFaultsOfEitherKind:
    def test_the_first_that_matches_wins_wherever_it_is_done(self, world: World) -> None:
        world.run(activated(world))
        world.fault(
            {"do": "unreachable", "match": {"call": "charge", "amount": 1250, "card": "visa"}},
            {"do": "status", "status": 422, "match": {"call": "charge"}},
        )
        with pytest.raises(HostUnreachable):
            world.run(charge(world, host=IMPATIENT))
        assert world.fault_counts() == {"unreachable": 1}
        assert world.run(world.ask("GET", "/sim/faults"))["fired"] == [1, 0]

    def test_over_the_wire_of_a_world_too(self, world: World) -> None:
        rules = {"rules": [{"do": "outage", "seconds": 5}]}
        assert world.run(world.ask("POST", "/sim/faults", rules))["fired"] == [0]

    def test_the_merchant_is_not_on_the_terminals_network(self, world: World) -> None:
        world.fault({"do": "unreachable"})
        assert world.run(world.provision())["device_id"].startswith("POS-")


class TestTime:
    def test_everybody_stopped_for_an_hour(self, world: World) -> None:
        async def main() -> tuple[Payment, float]:
            async with world.terminal(host=IMPATIENT) as till:
                charging = asyncio.create_task(till.charge(TWELVE_FIFTY, reference="r", card=TYPED))
                await asyncio.sleep(2)
                began = world.loop.time()
                world.stop(3600)
                return await charging, world.loop.time() - began

        world.run(activated(world))
        world.fault({"do": "delay", "seconds": 5, "match": {"call": "charge", "nth": 1}})
        payment, passed = world.run(main())
        assert passed >= 3600
        final = world.run(settled(world))
        assert final is not None
        booked = [charge["status"] for charge in world.run(world.books())]
        assert booked == ([final.state.value] if final.charge_id else [])
        assert payment.reference == "r"

    def test_a_clock_that_jumps_back_a_year(self, world: World) -> None:
        world.run(activated(world))
        world.skew = -365 * 86_400.0
        assert world.run(charge(world, "one")).outcome is Outcome.APPROVED
        world.skew = 0.0
        assert world.run(charge(world, "two")).outcome is Outcome.APPROVED


class TestSeveralTerminals:
    def test_each_has_its_own_home_and_trouble_and_all_one_host(self, world: World) -> None:
        other = world.another()

        async def main() -> list[Any]:
            async with world.activated() as one, other.activated() as two:
                other.network.outage(60)
                first = await one.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                await asyncio.sleep(60)
                second = await two.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                return [first.outcome, second.outcome]

        assert world.run(main()) == [Outcome.APPROVED] * 2
        books = world.run(world.books())
        assert [charge["reference"] for charge in books] == ["r", "r"]
        assert len({charge["terminal_id"] for charge in books}) == 2
        assert world.home != other.home

    def test_the_power_of_one_is_not_the_others(self, world: World) -> None:
        other = world.another("till-2")

        async def charges(station: Any) -> Payment:
            async with station.activated() as till:
                payment: Payment = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                return payment

        async def main() -> list[Any]:
            both = (asyncio.create_task(station.powered(charges(station))) for station in (world.station, other))
            return await asyncio.gather(*both, return_exceptions=True)

        other.power.cut_at = 30
        one, two = world.run(main())
        assert one.outcome is Outcome.APPROVED
        assert isinstance(two, PowerCut)


class TestOneSeed:
    TROUBLE = (
        {"do": "power_cut", "when": "under_way", "match": {"call": "charge", "nth": 2}},
        {"do": "drop_answer", "how": "silence", "match": {"probability": 0.1}},
        {"do": "duplicate", "seconds": 2, "match": {"call": "charge", "probability": 0.3}},
        {"do": "corrupt", "match": {"probability": 0.1}},
        {"do": "outage", "seconds": 20, "match": {"probability": 0.05}},
    )
    DISK = (
        {"do": "power_cut", "when": "during", "match": {"op": "commit", "probability": 0.05}},
        {"do": "power_cut", "when": "during", "match": {"op": "write", "probability": 0.05}},
    )

    def day(self, folder: Path, seed: int) -> tuple[list[Any], Any]:
        """All that went over the wire with its time, every cut with what it cost, and both sides' books."""
        folder.mkdir()
        told: list[Any] = []
        with World(folder, seed=seed, config=HostConfig(slow_answer=2)) as world:
            app = world.network.app

            async def overheard(scope: Any, receive: Any, send: Any) -> None:
                async def say(message: Any) -> None:
                    told.append((world.loop.time(), message))
                    await send(message)

                told.append((world.loop.time(), scope["path"], scope["headers"]))
                await app(scope, receive, say)

            world.network.app = overheard
            world.run(activated(world))
            world.fault(*self.TROUBLE)
            world.disk_faults(*self.DISK)
            for n in range(25):
                try:
                    payment = world.run(world.powered(charge(world, f"order-{n}", host=IMPATIENT)))
                    told.append(payment)
                except PowerCut as cut:
                    told.append((str(cut), world.power_back()))
                except TillError as error:
                    told.append(str(error))
                world.run(asyncio.sleep(30))
            world.fault()
            world.disk_faults()
            world.run(world.powered(settled(world)))
            told.append(world.run(world.books()))
            return told, (dict(world.fault_counts()), dict(world.power.cuts))

    def test_the_same_seed_is_the_same_day_with_all_its_trouble(self, tmp_path: Path) -> None:
        one, counts = self.day(tmp_path / "one", 7)
        two, again = self.day(tmp_path / "two", 7)
        assert repr(one) == repr(two)
        assert counts == again
        faults, cuts = counts
        assert min(faults.get(kind, 0) for kind in ("power_cut", "drop_answer", "duplicate", "corrupt")) > 0
        assert len(cuts) > 1

    def test_another_seed_is_another_day(self, tmp_path: Path) -> None:
        assert repr(self.day(tmp_path / "one", 7)) != repr(self.day(tmp_path / "two", 8))


@pytest.mark.parametrize(
    "rule",
    [
        {"do": "drop_request", "how": "silence"},
        {"do": "drop_answer", "how": "cut"},
        {"do": "html", "status": 200},
        {"do": "corrupt", "at": 2},
    ],
    ids=lambda rule: rule["do"],
)
def test_a_merchant_who_gets_no_answer_is_told_and_may_claim_the_next_time(
    tmp_path: Path, rule: dict[str, Any]
) -> None:
    """Without a merchant, the terminal would wait for ever."""
    with World(tmp_path) as world:

        async def main():
            await world.provision()
            async with world.terminal() as till:
                world.fault({"match": {"call": "client_session", "nth": 1}, **rule})
                with pytest.raises(WorldError, match="/client/session"):
                    await world.activate(till)
                await world.activate(till)
                return till.level

        assert world.run(main()) is Level.ACTIVATED
