"""A terminal and its host in one process: late hosts, lost answers, and the same day twice from the same seed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from hw.card import ManualCard, StripeCard
from hw.errors import CardError, TimedOut
from sim.faults import FaultError
from sim.network import AT_ONCE, NEVER, Trip
from sim.reader.handed import HandedReader
from sim.virtual_time import EPOCH
from sim.world import World, WorldError
from terminal.activation import Level
from terminal.money import Amount
from terminal.payment import State

VISA = StripeCard(
    pan="4761739001010119", expiry="2812", service_code="201", track2="4761739001010119=28122011143804400000"
)
TYPED = ManualCard("4111111111111111", "2812")
TWELVE_FIFTY = Amount(1250, "EUR")
IMPATIENT = {"read_timeout": 10.0, "call_timeout": 25.0, "attempts": 1}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


class TestOneSeed:
    TROUBLE = (
        {"match": {"call": "charge", "nth": 2}, "do": "drop_answer"},
        {"match": {"call": "charge", "probability": 0.5}, "do": "corrupt"},
        {"match": {"call": "refund", "nth": 1}, "do": "status", "status": 503, "retry_after": 2},
    )

    def day(self, folder: Path, seed: int) -> list[Any]:
        """All that went over the wire, in both directions and with its time, and both sides' books."""
        wire: list[Any] = []

        async def main(world: World) -> None:
            async with world.activated(reader=HandedReader(VISA, CardError("bent"), VISA)) as till:
                world.fault(*self.TROUBLE)
                for n in range(2):
                    await till.charge(Amount(1250 + n, "EUR"), reference=f"order-{n}")
                world.fault()
                await till.resolve()
                charge = await till.charge(TWELVE_FIFTY, reference="typed", card=TYPED, pin="1234")
                await till.refund(charge.charge_id, Amount(100, "EUR"), reason="cold coffee")
                wire.append(till.journal.payments())
            wire.append(await world.books())

        with World(folder, seed=seed) as world:
            app = world.app

            async def overheard(scope: Any, receive: Any, send: Any) -> None:
                async def hear() -> Any:
                    message = await receive()
                    wire.append((world.loop.time(), scope["path"], scope["headers"], message))
                    return message

                async def say(message: Any) -> None:
                    wire.append((world.loop.time(), message))
                    await send(message)

                await app(scope, hear, say)

            world.network.app = overheard
            world.run(main(world))
        return wire

    def test_the_same_seed_is_the_same_day_to_the_byte(self, tmp_path: Path) -> None:
        folders = [tmp_path / name for name in ("one", "two")]
        for folder in folders:
            folder.mkdir()
        one, two = (self.day(folder, seed=7) for folder in folders)
        asked = [entry[1] for entry in one[:-2] if len(entry) == 4]
        assert asked.count("/pos/charge") > 3  # some were repeated
        assert asked[-1].endswith("/refund")
        assert repr(one) == repr(two)

    def test_another_seed_is_another_day(self, tmp_path: Path) -> None:
        folders = [tmp_path / name for name in ("one", "two")]
        for folder in folders:
            folder.mkdir()
        one, two = (
            {message["body"] for *_, message in self.day(folder, seed=seed)[:-2] if message.get("body")}
            for folder, seed in zip(folders, (7, 8), strict=True)
        )
        sealed = {body for body in one if b"ciphertext" in body or b"key_block" in body}
        assert len(sealed) > 5
        assert not sealed & two


class TestLateHosts:
    def test_a_host_that_is_asked_before_it_has_acted_acts_all_the_same(self, world: World) -> None:
        """Delayed at the host: when the terminal gives up there is no charge yet, and then there is."""

        async def main() -> tuple[State, int, int, list[State]]:
            async with world.activated(host=IMPATIENT) as till:
                world.fault({"match": {"call": "charge", "times": 1}, "do": "delay", "seconds": 60.0})
                doubt = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                before = len(await world.books())
                await world.network.finished()
                after = len(await world.books())
                return doubt.state, before, after, [known.state for known in await till.resolve()]

        assert world.run(main()) == (State.IN_DOUBT, 0, 1, [State.APPROVED])

    @pytest.mark.parametrize("trip", [Trip(there=45.0), Trip(back=45.0), Trip(back=NEVER)])
    def test_a_charge_whose_answer_nobody_waits_for_is_one_approved_charge(self, world: World, trip: Trip) -> None:
        async def main() -> tuple[State, list[State], list[str]]:
            async with world.activated(host=IMPATIENT) as till:
                world.network.trip = lambda request: trip
                doubt = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                world.network.trip = lambda request: AT_ONCE
                await asyncio.sleep(60)
                known = [payment.state for payment in await till.resolve()]
                return doubt.state, known, [charge["reference"] for charge in await world.books()]

        assert world.run(main()) == (State.IN_DOUBT, [State.APPROVED], ["r"])

    def test_the_same_bytes_twice_the_second_overtaking_the_first_are_one_charge(self, world: World) -> None:
        trips = [Trip(there=30.0)]

        async def main() -> tuple[State, int]:
            async with world.activated(host={"read_timeout": 10.0, "call_timeout": 60.0}) as till:
                world.network.trip = lambda request: trips.pop() if trips else AT_ONCE
                payment = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                await world.network.finished()
                return payment.state, len(await world.books())

        assert world.run(main()) == (State.APPROVED, 1)
        assert trips == []
        assert world.network.paths() == ["POST /pos/charge"] * 2

    def test_a_request_that_never_arrives_charges_nobody(self, world: World) -> None:
        async def main() -> tuple[State, list[Any]]:
            async with world.activated(host=IMPATIENT) as till:
                world.network.trip = lambda request: Trip(there=NEVER)
                doubt = await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                return doubt.state, await world.books()

        assert world.run(main()) == (State.IN_DOUBT, [])


class TestTime:
    def test_it_goes_on_from_one_run_to_the_next(self, world: World) -> None:
        world.run(asyncio.sleep(3600))
        world.run(asyncio.sleep(60))
        assert (world.loop.time(), world.loop.now()) == (3660.0, EPOCH + timedelta(seconds=3660))

    def test_what_the_host_has_not_ended_goes_on_in_the_next_run(self, world: World) -> None:
        async def first() -> State:
            async with world.activated(host=IMPATIENT) as till:
                world.fault({"match": {"call": "charge"}, "do": "delay", "seconds": 60.0})
                return (await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)).state

        async def second() -> list[str]:
            await world.network.finished()
            return [charge["reference"] for charge in await world.books()]

        assert world.run(first()) is State.IN_DOUBT
        assert world.run(world.books()) == []
        assert world.run(second()) == ["r"]

    def test_a_terminal_is_opened_again_from_its_home(self, world: World) -> None:
        async def first() -> list[Any]:
            async with world.activated() as till:
                await till.charge(TWELVE_FIFTY, reference="r", card=TYPED)
                return till.journal.payments()

        async def second() -> tuple[Level, list[Any]]:
            async with world.terminal() as till:
                return till.level, till.journal.payments()

        before = world.run(first())
        assert world.run(second()) == (Level.ACTIVATED, before)


class TestTheReader:
    def test_nobody_comes_with_a_card(self, world: World) -> None:
        reader = HandedReader()

        async def main() -> float:
            began = world.loop.time()
            with pytest.raises(TimedOut):
                await reader.wait_for_card(timeout=30)
            return world.loop.time() - began

        assert world.run(main()) == 30.0

    def test_cards_come_in_order_and_a_bad_one_is_raised(self, world: World) -> None:
        reader = HandedReader(VISA, CardError("bent"), TYPED)

        async def main() -> list[Any]:
            async with reader:
                first = await reader.wait_for_card()
                with pytest.raises(CardError, match="bent"):
                    await reader.wait_for_card()
                return [first, await reader.wait_for_card()]

        assert world.run(main()) == [VISA, TYPED]


class TestTheWorldsOwnCalls:
    def test_a_refusal_says_what_was_asked_and_what_came(self, world: World) -> None:
        with pytest.raises(WorldError, match=r"GET /sim/devices/nobody: 404 .*"):
            world.run(world.ask("GET", "/sim/devices/nobody"))

    def test_the_hooks_are_not_for_them(self, world: World) -> None:
        def never(request: httpx.Request) -> None:
            raise AssertionError(request)

        world.network.before = never
        assert world.run(world.books()) == []
        assert world.network.requests == []

    def test_an_unknown_word_in_a_fault_is_refused(self, world: World) -> None:
        with pytest.raises(FaultError):
            world.fault({"do": "explode"})

    def test_a_merchant_who_is_refused_is_heard(self, world: World) -> None:
        async def main() -> None:
            await world.provision()
            world.fault({"match": {"call": "claim"}, "do": "status", "status": 403})
            async with world.terminal() as till:
                await world.activate(till)

        with pytest.raises(WorldError, match="POST /pos/claim: 403"):
            world.run(main())
