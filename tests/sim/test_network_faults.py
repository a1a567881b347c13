"""What a network does by rule: it refuses, goes down, doubles, holds back, breaks off; what a power cut leaves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from sim.faults import AnyRule, parse
from sim.host.wire import read_body, send_body
from sim.network import MAX_REQUESTS, Network, Trip
from sim.power import Power, PowerCut
from sim.virtual_time import run

TIMEOUTS = {"connect": 3.0, "write": 5.0, "read": 10.0}


def now() -> float:
    return asyncio.get_running_loop().time()


class Host:
    """Notes when it acts, and on what (None: the request broke off); answers with how many there were."""

    def __init__(self, works: float = 0.0) -> None:
        self.works = works
        self.acted: list[tuple[float, bytes | None]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(scope, receive, 2**20)
        await asyncio.sleep(self.works)
        self.acted.append((now(), body))
        if body is not None:
            await send_body(send, 200, b"%d" % len(self.acted))


def rule(**document: Any) -> AnyRule:
    return parse(json.dumps({"rules": [document]}), network=True)[0]


class Bench:
    """A host, its network with a rule for the first request, and callers."""

    def __init__(self, one: AnyRule | None = None, *, works: float = 0.0, power: Power | None = None) -> None:
        self.host = Host(works)
        self.rules = [one]
        self.network = Network(
            self.host, power=power, choose=lambda request: self.rules.pop(0) if self.rules else None
        )

    async def ask(self, body: bytes = b"a charge") -> bytes:
        request = httpx.Request(
            "POST", "http://127.0.0.1:8080/pos/charge", content=body, extensions={"timeout": TIMEOUTS}
        )
        response = await self.network.handle_async_request(request)
        return await response.aread()

    def lost(self, kind: type[httpx.TransportError]) -> tuple[float, list[tuple[float, bytes | None]]]:
        """When the caller heard of it, and what the host did in the end."""

        async def main() -> float:
            with pytest.raises(kind):
                await self.ask()
            heard = now()
            await self.network.finished()
            return heard

        return run(main()), self.host.acted


class TestUnreachable:
    def test_refused_at_once(self) -> None:
        assert Bench(rule(do="unreachable")).lost(httpx.ConnectError) == (0.0, [])

    def test_silent_until_the_callers_timeout(self) -> None:
        assert Bench(rule(do="unreachable", how="silence")).lost(httpx.ConnectTimeout) == (3.0, [])


class TestOutage:
    def test_nothing_gets_through_until_it_is_over(self) -> None:
        bench = Bench(rule(do="outage", seconds=100))

        async def main() -> list[float]:
            times = []
            for wait in (0.0, 50.0, 45.0):
                await asyncio.sleep(wait)
                try:
                    await bench.ask()
                except httpx.ConnectTimeout:
                    times.append(now())
            return [*times, now()]

        assert run(main()) == [3.0, 56.0, 101.0]
        assert [at for at, _ in bench.host.acted] == [101.0]

    def test_a_connection_that_is_asked_for_shortly_before_its_end_comes_about(self) -> None:
        bench = Bench(rule(do="outage", seconds=2))

        async def main() -> tuple[bytes, float]:
            return await bench.ask(), now()

        assert run(main()) == (b"1", 2.0)

    def test_refused(self) -> None:
        bench = Bench(rule(do="outage", seconds=10, how="refused"))

        async def main() -> bytes:
            for _ in range(2):
                with pytest.raises(httpx.ConnectError):
                    await bench.ask()
            await asyncio.sleep(10)
            return await bench.ask()

        assert run(main()) == b"1"

    def test_what_is_under_way_comes_afterwards(self) -> None:
        """An answer within the caller's patience; a request although its caller has given up."""
        bench = Bench(works=2.0)

        async def main() -> tuple[bytes, float]:
            asking = asyncio.create_task(bench.ask())
            await asyncio.sleep(1)
            bench.network.outage(6)
            return await asking, now()

        assert run(main()) == (b"1", 7.0)

        bench = Bench()
        bench.network.trip = lambda request: Trip(there=5.0)

        async def late() -> float:
            asking = asyncio.create_task(bench.ask())
            await asyncio.sleep(1)
            bench.network.outage(60)
            with pytest.raises(httpx.ReadTimeout):
                await asking
            gave_up = now()
            await bench.network.finished()
            return gave_up

        assert run(late()) == 10.0
        assert bench.host.acted == [(61.0, b"a charge")]


class TestDuplicate:
    @pytest.mark.parametrize(("heard", "answer"), [("first", b"1"), ("second", b"2")])
    def test_the_host_acts_twice_and_the_caller_hears_one(self, heard: str, answer: bytes) -> None:
        bench = Bench(rule(do="duplicate", seconds=4, heard=heard))

        async def main() -> tuple[bytes, float]:
            heard = await bench.ask(), now()
            await bench.network.finished()
            return heard

        assert run(main()) == (answer, 0.0 if heard == "first" else 4.0)
        assert bench.host.acted == [(0.0, b"a charge"), (4.0, b"a charge")]


class TestReorder:
    @pytest.mark.parametrize(
        ("how", "error", "heard"),
        [("cut", httpx.RemoteProtocolError, 0.0), ("silence", httpx.ReadTimeout, 10.0)],
    )
    def test_it_arrives_when_its_caller_has_gone(
        self, how: str, error: type[httpx.TransportError], heard: float
    ) -> None:
        bench = Bench(rule(do="reorder", seconds=30, how=how))
        assert bench.lost(error) == (heard, [(30.0, b"a charge")])

    def test_a_later_one_arrives_first(self) -> None:
        bench = Bench(rule(do="reorder", seconds=30))

        async def main() -> None:
            with pytest.raises(httpx.RemoteProtocolError):
                await bench.ask(b"one")
            await bench.ask(b"two")
            await bench.network.finished()

        run(main())
        assert bench.host.acted == [(0.0, b"two"), (30.0, b"one")]


class TestCutRequest:
    def test_half_of_it_arrives_and_is_none(self) -> None:
        assert Bench(rule(do="cut_request")).lost(httpx.WriteError) == (0.0, [(0.0, None)])

    def test_one_without_a_body_does_not_arrive(self) -> None:
        bench = Bench(rule(do="cut_request"))

        async def main() -> None:
            with pytest.raises(httpx.WriteError):
                await bench.ask(b"")
            await bench.network.finished()

        run(main())
        assert bench.host.acted == []


class TestTheHostEnds:
    def test_connections_are_cut_and_what_is_under_way_arrives_at_the_next_one(self) -> None:
        bench = Bench(works=5.0)

        async def main() -> None:
            bench.network.trip = lambda request: Trip(there=2.0 if request.content == b"under way" else 0.0)
            asking = asyncio.create_task(bench.ask(b"with the host"))
            later = asyncio.create_task(bench.ask(b"under way"))
            await asyncio.sleep(1)
            bench.network.cut()
            with pytest.raises(httpx.RemoteProtocolError, match="disconnected without sending"):
                await asking
            assert await later == b"1"

        run(main())
        assert bench.host.acted == [(7.0, b"under way")]


class TestPowerCuts:
    WHEN = ("before", "under_way", "unread")

    @pytest.mark.parametrize(("when", "acted"), [("before", 0), ("under_way", 1), ("unread", 1)])
    @pytest.mark.parametrize("planned", ["by rule", "by number"])
    def test_the_terminal_dies_and_the_host_goes_on(self, planned: str, when: str, acted: int) -> None:
        power = Power()
        bench = Bench(rule(do="power_cut", when=when) if planned == "by rule" else None, power=power, works=1.0)
        if planned == "by number":
            power.cut_at = 1 + self.WHEN.index(when)

        async def main() -> None:
            with pytest.raises(PowerCut, match=rf"^request\.{when}$"):
                await bench.ask()
            with pytest.raises(PowerCut):
                await bench.ask()
            await bench.network.finished()

        run(main())
        assert len(bench.host.acted) == acted
        assert power.cuts == {f"request.{when}": 1}
        assert not power.on

    def test_an_answer_that_comes_to_the_dead_is_not_heard(self) -> None:
        power = Power()
        bench = Bench(power=power, works=5.0)
        heard = []

        async def program() -> None:
            heard.append(await bench.ask())

        async def main() -> None:
            running = asyncio.create_task(power.running(program()))
            await asyncio.sleep(1)
            power.off("at one second")
            with pytest.raises(PowerCut, match="at one second"):
                await running
            await bench.network.finished()

        run(main())
        assert (heard, bench.host.acted) == ([], [(5.0, b"a charge")])


def test_requests_are_remembered_up_to_a_limit() -> None:
    bench = Bench()

    async def main() -> None:
        for n in range(MAX_REQUESTS + 1):
            await bench.ask(b"%d" % n)

    run(main())
    assert len(bench.network.requests) == MAX_REQUESTS // 2 + 1
    assert bench.network.requests[-1].content == b"%d" % MAX_REQUESTS
