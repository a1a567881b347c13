"""The PN532's driver against its emulator: a bad line, a chip that is silent, another or gone, and its speed."""

from __future__ import annotations

import asyncio

import pytest

from hw import pn532_frames as frames
from hw.apdu import Command
from hw.errors import (
    BadAddress,
    Cancelled,
    CardGone,
    LineError,
    LineGone,
    NoAnswer,
    ProtocolError,
    TimedOut,
)
from hw.reader import CardInserted, CardRemoved, ReaderBack, ReaderGone, open_reader
from sim.reader import pn532_chip
from sim.reader.pn532 import Fault, on_pty
from sim.virtual_time import run
from tests.hw.pn532s import FCI, PPSE, Plastic, bench

SELECT = Command.decode(PPSE)
READ = Command(0x00, 0xB2, 0x01, 0x0C, le=256)
OPENING = [
    frames.command(frames.SAM_CONFIGURATION, b"\1"),
    frames.command(frames.GET_FIRMWARE_VERSION),
    frames.command(frames.SET_PARAMETERS, b"\x14"),
    frames.command(frames.RF_CONFIGURATION, b"\2\0\x0b\x0a"),
    frames.command(frames.RF_CONFIGURATION, b"\5\0\1\2"),
]


SURVIVED = {
    Fault.GARBAGE: 0,
    Fault.SPLIT: 0,
    Fault.JOINED: 0,
    Fault.BAD_CHECKSUM: 1,
    Fault.LOST_ACK: 0,
    Fault.SLOW_CARD: 0,
}


@pytest.mark.parametrize(("fault", "retries"), SURVIVED.items())
def test_an_apdu_survives_what_the_line_does_and_reaches_the_card_once(monkeypatch, fault, retries):
    async def main():
        async with bench(monkeypatch) as here:
            plastic = Plastic()
            card = await here.card(plastic)
            here.chip.misbehave(fault, on=frames.IN_DATA_EXCHANGE)
            assert (await card.transmit(SELECT)).encode() == FCI
            assert plastic.asked == [PPSE]
            assert here.reader.statistics.retries == retries

    run(main())


@pytest.mark.parametrize("fault", [*SURVIVED, Fault.SILENCE])
@pytest.mark.parametrize(
    "code", [frames.SAM_CONFIGURATION, frames.GET_FIRMWARE_VERSION, frames.IN_LIST_PASSIVE_TARGET]
)
def test_waking_and_polling_survive_what_the_line_does(monkeypatch, fault, code):
    async def main():
        async with bench(monkeypatch) as here:
            here.chip.slowness = 0.4
            here.chip.misbehave(fault, on=code)
            assert (await here.card()).uid

    run(main())


def test_an_answer_that_is_bent_every_time_is_no_answer_in_the_end(monkeypatch):
    bent = frames.answer(frames.IN_DATA_EXCHANGE, b"\0\x90\0")[:-2] + b"\x11\0"
    asked = []

    async def main():
        async with bench(monkeypatch) as here:
            heard = here.chip._hear

            async def hear(data):
                if not card:
                    await heard(data)
                    return
                asked.append(data)
                if data != frames.ACK:
                    await here.line.write(bent if data == frames.NACK else frames.ACK + bent)

            card = None
            here.chip._hear = hear
            card = await here.card()
            with pytest.raises(NoAnswer, match="InDataExchange"):
                await card.transmit(SELECT)
            await asyncio.sleep(0.1)
            assert asked[1:] == [frames.NACK] * 3 + [frames.ACK]
            assert here.reader.statistics.errors["FramingError"] == 3

    run(main())


def test_a_chip_that_falls_silent_in_the_middle_of_an_apdu_is_told(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card()
            here.chip.misbehave(Fault.SILENCE, on=frames.IN_DATA_EXCHANGE)
            with pytest.raises(NoAnswer, match="no answer to InDataExchange within 10 s"):
                await card.transmit(SELECT)
            here.chip.remove()
            assert (await here.card(Plastic(uid=b"\1\2\3\4"))).uid == b"\1\2\3\4"

    run(main())


@pytest.mark.parametrize("after", [0.0, 2.0])
def test_a_chip_that_lost_its_power_is_woken_in_the_same_wait(monkeypatch, after):
    async def main():
        async with bench(monkeypatch) as here:
            await (await here.card()).release()
            here.chip.remove()
            wait = asyncio.create_task(here.reader.wait_for_card(30))
            await asyncio.sleep(after)
            here.chip.chip.on_power()
            await asyncio.sleep(1)
            here.chip.tap(Plastic(uid=b"\1\2\3\4"))
            assert (await wait).uid == b"\1\2\3\4"

    run(main())


def test_a_chip_that_is_not_to_be_woken_is_told_and_woken_for_the_next_wait(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            await here.reader.open()
            here.chip.misbehave(Fault.SILENCE, times=6)
            with pytest.raises(NoAnswer, match="SAMConfiguration"):
                await here.reader.wait_for_card(30)
            here.chip.chip.on_power()
            assert (await here.card()).uid

    run(main())


def test_a_command_that_is_cancelled_is_called_off_at_the_chip(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card()
            here.chip.misbehave(Fault.SLOW_CARD, on=frames.IN_DATA_EXCHANGE)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await card.transmit(SELECT)
            await asyncio.sleep(0.1)
            assert here.chip.heard[-1] == frames.ACK
            assert (await card.transmit(SELECT)).ok
            here.chip.remove()
            await card.release()
            wait = asyncio.create_task(here.reader.wait_for_card(30))
            await asyncio.sleep(1)
            here.reader.cancel()
            with pytest.raises(Cancelled):
                await wait
            assert not here.chip.chip.field

    run(main())


def test_nobody_there_is_no_answer_after_every_try(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            here.chip.misbehave(Fault.SILENCE, times=3)
            with pytest.raises(NoAnswer, match=r"no answer to SAMConfiguration within 2.25 s"):
                await here.reader.open()
            assert len(here.chip.heard) == 3
            assert here.line.baud == 115200
            await here.reader.open()

    run(main())


@pytest.mark.parametrize("version", [b"\x33\1\6\7", b"\x32", b""])
def test_another_chip_is_refused(monkeypatch, version):
    async def other(*_):
        return version

    async def main():
        async with bench(monkeypatch) as here:
            monkeypatch.setitem(pn532_chip._COMMANDS, frames.GET_FIRMWARE_VERSION, other)
            with pytest.raises(ProtocolError, match="it answers, and is no PN532"):
                await here.reader.open()

    run(main())


def test_a_chip_that_does_not_know_a_command_says_so(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            monkeypatch.delitem(pn532_chip._COMMANDS, frames.SET_PARAMETERS)
            with pytest.raises(ProtocolError, match="the chip does not know SetParameters"):
                await here.reader.open()

    run(main())


def test_a_line_that_echoes_is_not_taken_for_an_answer(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            heard = here.chip._hear

            async def echo(data):
                await here.line.write(data)
                await heard(data)

            here.chip._hear = echo
            card = await here.card()
            assert (await card.transmit(SELECT)).encode() == FCI

    run(main())


@pytest.mark.parametrize("stray", [frames.ACK, frames.answer(0x60), b"\0\0\xff\2\xfe\xd5\x41\0\0"])
def test_a_thing_that_talks_without_end_is_no_pn532(monkeypatch, stray):
    async def main():
        async with bench(monkeypatch) as here:

            async def flood(_):
                while not here.line.unplugged:
                    await here.line.write(stray * 10)
                    await asyncio.sleep(0)

            here.chip._hear = flood
            with pytest.raises(ProtocolError, match="talks without end"):
                await here.reader.open()
            await here.line.close()

    run(main())


@pytest.mark.parametrize("on", [frames.IN_LIST_PASSIVE_TARGET, frames.SAM_CONFIGURATION, frames.IN_DATA_EXCHANGE])
def test_a_reader_pulled_out_anywhere(monkeypatch, on):
    async def main():
        async with bench(monkeypatch) as here:
            here.chip.misbehave(Fault.UNPLUG, on=on)
            with pytest.raises(LineGone, match="gone"):
                await (await here.card()).transmit(SELECT)
            with pytest.raises(LineError):
                await here.reader.wait_for_card(1)
            assert [type(event) for event in here.told if not isinstance(event, CardInserted)] == [ReaderGone]

    run(main())


def test_a_reader_that_is_plugged_in_again_works_again(tmp_path):
    device, told = tmp_path / "reader", []

    async def main():
        async with on_pty() as first:
            device.symlink_to(first.line.path)
            reader = open_reader(f"pn532://{device}")
            reader.on_event = told.append
            first.reader.tap(Plastic())
            card = await reader.wait_for_card(10)
            first.reader.misbehave(Fault.UNPLUG)
            with pytest.raises(LineGone):
                await card.transmit(SELECT)
            await card.release()
            with pytest.raises(CardGone):
                await card.transmit(SELECT)
        async with on_pty() as second:
            device.unlink()
            device.symlink_to(second.line.path)
            second.reader.tap(Plastic(uid=b"\1\2\3\4"))
            card = await reader.wait_for_card(10)
            assert (await card.transmit(SELECT)).encode() == FCI
            await reader.close()
        kinds = [type(event) for event in told]
        assert kinds == [CardInserted, ReaderGone, ReaderBack, CardRemoved, CardInserted]

    asyncio.run(main())


def test_the_chip_goes_faster_and_is_left_as_it_was(monkeypatch):
    async def main():
        async with bench(monkeypatch, "?chip_baud=921600") as here:
            async with here.reader:
                assert (here.chip.chip.baud, here.line.baud) == (921600, 921600)
                assert frames.command(frames.SET_SERIAL_BAUD_RATE, b"\7") in here.chip.heard
            assert (here.chip.chip.baud, here.line.baud) == (115200, 115200)
            here.chip.chip.baud = 921600  # as after a crash
            async with here.reader:
                assert (await here.card()).uid

    run(main())


@pytest.mark.parametrize("left_at", [230400, 460800, 921600])
def test_a_chip_that_was_left_at_another_speed_is_called_home(monkeypatch, left_at):
    async def main():
        async with bench(monkeypatch) as here:
            here.chip.chip.asleep, here.chip.chip.baud = False, left_at
            assert (await here.card()).uid
            assert (here.chip.chip.baud, here.line.baud) == (115200, 115200)

    run(main())


def test_a_search_for_the_chip_that_is_called_off_leaves_the_line_at_its_speed(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            await here.reader.open()
            here.chip.misbehave(Fault.SILENCE, times=6)
            with pytest.raises(TimedOut):  # in the middle of it
                await here.reader.wait_for_card(0.5 + 2.25 + 0.1)
            assert here.line.baud != 115200
            here.chip._faults.clear()
            assert (await here.card()).uid
            assert here.line.baud == 115200

    run(main())


def test_a_speed_that_the_url_names_is_not_left(monkeypatch):
    async def main():
        async with bench(monkeypatch, "?baud=57600") as here:
            here.chip.misbehave(Fault.SILENCE, times=3)
            with pytest.raises(NoAnswer, match=r"SAMConfiguration within 2.25 s"):
                await here.reader.open()
            assert asyncio.get_running_loop().time() == pytest.approx(2.25)

    run(main())


def test_the_speed_of_a_pty_is_the_driver_s_too():
    async def main():
        async with on_pty() as emulated, open_reader(emulated.url + "?chip_baud=460800") as reader:
            assert (emulated.reader.chip.baud, emulated.line.baud) == (460800, 460800)
            emulated.reader.tap(Plastic())
            assert await reader.wait_for_card(10)

    asyncio.run(main())


@pytest.mark.parametrize(
    "url", ["pn532:///dev/ttyS0?chip_baud=57601", "pn532+socket://127.0.0.1:1?chip_baud=921600"]
)
def test_speeds_that_cannot_be(url):
    with pytest.raises(BadAddress, match="chip_baud"):
        open_reader(url)
