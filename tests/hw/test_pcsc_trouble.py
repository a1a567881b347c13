"""The PC/SC driver where calls are called off, readers come and go, and the service hangs or dies."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hw.apdu import Command
from hw.errors import Cancelled, LineError, LineGone, NoAnswer, TimedOut
from hw.reader import CardInserted, ReaderBack, ReaderGone
from tests.hw.contact import T1
from tests.hw.peers import until
from tests.hw.scards import READER, inserted, opened, plugged_in, scards, taken

RECORD = Command(0x00, 0xB2, 1, 0x0C, le=256)


def test_a_wait_that_is_over_or_called_off_leaves_nothing_waiting() -> None:
    async def main() -> None:
        async with plugged_in() as (service, reader, _):
            with pytest.raises(TimedOut):
                await taken(reader, 0.0)
            wait = asyncio.create_task(taken(reader, None))
            await until(service.waiting)
            reader.cancel()
            with pytest.raises(Cancelled):
                await wait
            assert service.waits == 0
            wait = asyncio.create_task(taken(reader, None))
            await until(service.waiting)
            wait.cancel()
            await asyncio.wait((wait,))
            assert wait.cancelled()
            assert service.waits == 0
            assert (await inserted(service, reader)).answer == T1
        assert service.contexts == 0

    asyncio.run(main())


def test_closing_ends_a_wait_and_leaves_nothing() -> None:
    async def main() -> None:
        with scards(READER) as service:
            reader, _ = opened()
            wait = asyncio.create_task(taken(reader, None))
            await until(service.waiting)
            await reader.close()
            with pytest.raises(LineGone, match="the reader is closed"):
                await wait
            assert (service.waits, service.contexts) == (0, 0)

    asyncio.run(main())


def test_an_opening_that_is_called_off_leaves_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        begun, goes_on = threading.Event(), threading.Event()
        with scards(READER) as service:
            established = service.SCardEstablishContext

            def slowly(scope: int) -> tuple[int, int]:
                begun.set()
                assert goes_on.wait(20)
                return established(scope)

            monkeypatch.setattr(service, "SCardEstablishContext", slowly)
            opening = asyncio.create_task(opened()[0].open())
            await until(begun.is_set)
            opening.cancel()
            await asyncio.wait((opening,))
            assert opening.cancelled()
            released = asyncio.Event()
            loop = asyncio.get_running_loop()

            def release(_: int) -> int:
                loop.call_soon_threadsafe(released.set)
                return 0

            monkeypatch.setattr(service, "SCardReleaseContext", release)
            goes_on.set()
            async with asyncio.timeout(20):
                await released.wait()

    asyncio.run(main())


@pytest.mark.parametrize("stops", [False, True])
def test_a_reader_that_goes_ends_a_wait_and_comes_back_to_the_next(
    stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr("hw.pcsc.RETURNS", 20.0)
        async with plugged_in("pcsc://ACS*") as (service, reader, events):
            wait = asyncio.create_task(taken(reader, None))
            await until(service.waiting)
            service.stop() if stops else service.unplug(READER)
            with pytest.raises(LineGone):
                await wait
            assert events == [ReaderGone]
            if stops:
                with pytest.raises(LineError, match="not running"):
                    await taken(reader)
                service.running = True
                wait = asyncio.create_task(taken(reader))
            else:
                wait = asyncio.create_task(taken(reader))
                await until(service.waiting)  # for a notice that a reader has come
                service.plug("ACS ACR39U ICC Reader 01 00")
                await until(lambda: events == [ReaderGone, ReaderBack])
                assert reader.reader_name == "ACS ACR39U ICC Reader 01 00"
            service.insert(reader.reader_name, T1)
            assert (await wait).answer == T1
        assert events == [ReaderGone, ReaderBack, CardInserted]
        assert reader.statistics.openings == 2
        assert service.contexts == 0

    asyncio.run(main())


def test_a_reader_that_was_named_in_full_is_the_same_one_under_another_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setattr("hw.pcsc.RETURNS", 0.05)
        with scards(READER) as service:
            reader, events = opened(f"pcsc://{READER}")
            async with reader:
                wait = asyncio.create_task(taken(reader, None))
                await until(service.waiting)
                service.unplug(READER)
                with pytest.raises(LineGone):
                    await wait
                for other in ("ACS ACR39U ICC Reader 01 01", "ACS ACR38 ICC Reader 00 00"):  # a slot, a model
                    service.plug(other)
                    with pytest.raises(LineError, match="no reader is called"):
                        await taken(reader)
                service.plug("ACS ACR39U ICC Reader 02 00")
                service.insert("ACS ACR39U ICC Reader 02 00", T1)
                assert (await taken(reader)).answer == T1
            assert events == [ReaderGone, ReaderBack, CardInserted]
            with pytest.raises(LineError, match="no reader is called"):  # to one that is new it is a name
                await opened(f"pcsc://{READER}")[0].open()
        assert service.contexts == 0

    asyncio.run(main())


def test_a_reader_that_is_closed_while_it_is_looked_for_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("hw.pcsc.RETURNS", 20.0)
        async with plugged_in("pcsc://ACS*") as (service, reader, events):
            wait = asyncio.create_task(taken(reader, None))
            await until(service.waiting)
            service.unplug(READER)
            with pytest.raises(LineGone):
                await wait
            wait = asyncio.create_task(taken(reader, None))
            await until(service.waiting)
            await reader.close()
            service.plug(READER)
            with pytest.raises(LineGone, match="the reader was closed"):
                await wait
            assert service.contexts == 0
            assert events == [ReaderGone]

    asyncio.run(main())


def test_a_reader_that_stays_away_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("hw.pcsc.RETURNS", 0.05)
        async with plugged_in("pcsc://ACS*") as (service, reader, _):
            card = await inserted(service, reader)
            service.unplug(READER)
            with pytest.raises(LineGone, match="the reader is gone"):
                await card.transmit(RECORD)
            with pytest.raises(LineError, match="no reader is called"):
                await taken(reader)
            assert service.lists > 2

    asyncio.run(main())


def test_a_command_that_nobody_waits_for_any_more_is_over_before_the_next_call() -> None:
    async def main() -> None:
        async with plugged_in() as (service, reader, _):
            card = await inserted(service, reader)
            service.holding = threading.Event()
            asking = asyncio.create_task(card.transmit(RECORD))
            await until(service.begun.is_set)
            asking.cancel()
            await asyncio.wait((asking,))
            assert asking.cancelled()
            letting_go = asyncio.create_task(card.release())
            service.holding.set()
            await letting_go
            assert not service.slots[READER].held

    asyncio.run(main())


def test_a_connect_that_nobody_waits_for_any_more_is_undone() -> None:
    async def main() -> None:
        async with plugged_in() as (service, reader, _):
            service.holding = threading.Event()
            service.insert(READER, T1)
            wait = asyncio.create_task(taken(reader, None))
            await until(service.begun.is_set)
            reader.cancel()
            with pytest.raises(Cancelled):
                await wait
            service.holding.set()
            await until(lambda: service.slots[READER].powered and not service.slots[READER].held)
            service.remove(READER)
            assert (await inserted(service, reader)).answer == T1
        assert not service.slots[READER].held

    asyncio.run(main())


def test_a_reader_that_is_stuck_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("hw.pcsc_service.PATIENCE", 0.05)
        monkeypatch.setattr("hw.pcsc_service.SETTLES", 0.05)
        async with plugged_in() as (service, reader, events):
            card = await inserted(service, reader)
            service.holding = threading.Event()
            with pytest.raises(NoAnswer, match="not done within"):
                await card.transmit(RECORD)
            assert events == [CardInserted, ReaderGone]
            service.holding.set()
            await until(lambda: service.contexts == 0)

    asyncio.run(main())
