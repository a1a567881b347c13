"""The PN532's driver on a real line's bad days: late first bytes, lost ones, late answers, nothing taken."""

from __future__ import annotations

import asyncio

import pytest

from hw import pn532_frames as frames
from hw.apdu import Command
from hw.errors import LineError, LineGone, NoAnswer
from hw.pn532_chip import CALLED_OFF, PAUSE
from hw.reader import CardInserted, CardRemoved, ReaderBack, ReaderGone, open_reader
from hw.wire import SENDING
from sim.reader.pn532 import Fault, on_pty
from sim.virtual_time import run
from tests.hw.pn532s import FCI, PPSE, Plastic, bench

SELECT = Command.decode(PPSE)


@pytest.mark.parametrize("late", [0.1, 0.3, 0.8, 1.2])
@pytest.mark.parametrize("ways", ["in", "both"])
def test_an_adapter_that_lets_the_first_bytes_wait_after_opening(monkeypatch, late, ways):
    async def main():
        async with bench(monkeypatch) as here:
            loop = asyncio.get_running_loop()
            opened = loop.time()

            def held_back(put):
                return lambda data: loop.call_at(max(loop.time(), opened + late), put, data)

            link = here.line.link
            here.line._back.put = held_back(here.line._back.put)
            if ways == "both":
                here.line._out.put = held_back(here.line._out.put)

            async def opening(*_, **__):
                return link

            monkeypatch.setattr("hw.reader.open_link", opening)
            card = await here.card()
            assert (await card.transmit(SELECT)).encode() == FCI
            assert here.reader.firmware == "PN532 1.6"

    run(main())


@pytest.mark.parametrize(
    "noise", [b"\0", b"\xff\xff\xff", b"\x55\0\0\xff", b"\0\0\xff\3\xfd\xd5", bytes(range(256))]
)
def test_an_adapter_that_makes_noise_when_it_is_opened(monkeypatch, noise):
    async def main():
        async with bench(monkeypatch) as here:
            heard = here.chip._hear
            first = True

            async def hear(data):
                nonlocal first
                if first:
                    first = False
                    await here.line.write(noise)
                await heard(data)

            here.chip._hear = hear
            assert (await here.card()).uid

    run(main())


@pytest.mark.parametrize("lost", [1, 2, 30])
@pytest.mark.parametrize("place", range(6, 57, 6))
def test_bytes_that_are_lost_from_an_answer_cost_a_pause_and_no_card(monkeypatch, place, lost):
    async def main():
        async with bench(monkeypatch) as here:
            plastic = Plastic()
            card = await here.card(plastic)
            write, spoiled = here.line.write, []

            async def losing(data):
                if len(data) > 50 and not spoiled:
                    spoiled.append(data)
                    data = data[:place] + data[place + lost :]
                await write(data)

            here.line.write = losing
            clock = asyncio.get_running_loop().time
            began = clock()
            assert (await card.transmit(SELECT)).encode() == FCI
            assert clock() - began <= PAUSE + 0.01
            assert len(spoiled) == 1
            assert plastic.asked == [PPSE]
            counts = here.reader.statistics
            assert (counts.retries, counts.errors["FramingError"]) == (1, 1)

    run(main())


def test_an_answer_to_what_was_called_off_is_not_the_answer_to_what_is_asked_next(monkeypatch):
    """On its way while the next command is: behind the latency of a USB adapter."""
    late = frames.answer(frames.IN_DATA_EXCHANGE, b"\0\xde\xad\x90\0")

    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card()
            heard, loop = here.chip._hear, asyncio.get_running_loop()

            async def hear(data):
                if data == frames.ACK:
                    loop.call_later(0.02, here.line._back.put, late)
                else:
                    await asyncio.sleep(0.03)
                await heard(data)

            here.chip._hear = hear
            here.chip.misbehave(Fault.SLOW_CARD, on=frames.IN_DATA_EXCHANGE)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await card.transmit(SELECT)
            began = loop.time()
            assert (await card.transmit(SELECT)).encode() == FCI
            assert loop.time() - began >= CALLED_OFF

    run(main())


def test_a_line_that_takes_nothing_is_no_answer_in_the_end(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card()

            async def stuck(_):
                await asyncio.Event().wait()

            monkeypatch.setattr(here.reader._link, "write", stuck)
            with pytest.raises(NoAnswer, match=f"takes nothing for {SENDING:g} s"):
                await card.transmit(SELECT)
            with pytest.raises(NoAnswer, match="takes nothing"):
                await here.reader.wait_for_card(None)

    run(main())


def test_a_reader_that_was_away_while_nobody_waited_is_opened_again_in_the_same_wait(tmp_path):
    device, told = tmp_path / "reader", []

    async def main():
        reader = open_reader(f"pn532://{device}")
        reader.on_event = told.append
        async with on_pty() as first:
            device.symlink_to(first.line.path)
            first.reader.tap(Plastic())
            await (await reader.wait_for_card(10)).release()
        device.unlink()
        with pytest.raises(LineError, match="there is no such port") as caught:
            await reader.wait_for_card(10)
        assert not isinstance(caught.value, LineGone)
        async with on_pty() as second:
            device.symlink_to(second.line.path)
            second.reader.tap(Plastic(uid=b"\1\2\3\4"))
            card = await reader.wait_for_card(10)
            assert (await card.transmit(SELECT)).encode() == FCI
            await card.release()
        async with on_pty() as third:
            device.unlink()
            device.symlink_to(third.line.path)
            third.reader.tap(Plastic(uid=b"\1\2\3\5"))
            assert (await reader.wait_for_card(10)).uid == b"\1\2\3\5"
            await reader.close()
        kinds = [type(event) for event in told]
        again = [ReaderGone, ReaderBack, CardRemoved, CardInserted]
        assert kinds == [CardInserted, *again, *again]
        assert reader.statistics.errors["LineGone"] == 2

    asyncio.run(main())


def test_closing_is_no_unplugging(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            wait = asyncio.create_task(here.reader.wait_for_card(None))
            await asyncio.sleep(1)
            await here.reader.close()
            with pytest.raises(LineGone, match=r"gone|closed"):
                await wait
            assert here.told == []
            assert (await here.card()).uid
            assert [type(event) for event in here.told] == [CardInserted]

    run(main())
