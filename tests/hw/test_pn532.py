"""The PN532's driver against its emulator: cards that come, answer and go."""

from __future__ import annotations

import asyncio
import json

import pytest

from hw import pn532_frames as frames
from hw.apdu import Command
from hw.errors import (
    CardError,
    CardGone,
    ProtocolError,
    TimedOut,
)
from hw.pn532 import POLL_PAUSE
from hw.reader import CardInserted, CardRemoved, open_reader
from hw.trace import Tracer
from sim.reader import pn532_chip
from sim.reader.pn532 import on_pty, on_socket
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


@pytest.mark.parametrize("place", [on_pty, on_socket])
def test_a_tap_is_read_over_every_line(place):
    async def main():
        async with place() as emulated, open_reader(emulated.url) as reader:
            assert reader.firmware == "PN532 1.6"
            assert reader.capabilities.contactless
            for _ in range(2):
                emulated.reader.tap(Plastic())
                card = await reader.wait_for_card(10)
                assert (card.uid.hex(), card.answer.hex()) == ("08010203", "0578807000")
                assert (await card.transmit(SELECT)).encode() == FCI
                assert await card.is_present()
                await card.release()
                emulated.reader.remove()
                with pytest.raises(TimedOut):
                    await reader.wait_for_card(POLL_PAUSE)
            assert list(emulated.reader.heard)[:5] == OPENING

    asyncio.run(main())


def test_the_driver_says_what_is_published_byte_for_byte(monkeypatch):
    """But that it asks for two cards at most, where others ask for one: or it would not see the second."""

    async def main():
        async with bench(monkeypatch) as here:
            sent, put = [], here.line._out.put
            here.line._out.put = lambda data: (sent.append(data.hex(" ").upper()), put(data))[1]
            card = await here.card()
            assert (await card.transmit(SELECT)).encode() == FCI
            await card.release()
            assert sent == [
                "55 55 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 FF 03 FD D4 14 01 17 00",  # libnfc
                "00 00 FF 02 FE D4 02 2A 00",
                "00 00 FF 03 FD D4 12 14 06 00",
                "00 00 FF 06 FA D4 32 02 00 0B 0A E3 00",
                "00 00 FF 06 FA D4 32 05 00 01 02 F2 00",
                "00 00 FF 05 FB D4 4A 02 03 00 DD 00",
                "00 00 FF 04 FC D4 4A 02 00 E0 00",
                "00 00 FF 17 E9 D4 40 01 00 A4 04 00 0E 32 50 41 59 2E 53 59 53 2E 44 44 46 30 31 00 8F 00",
                "00 00 FF 03 FD D4 52 00 DA 00",
                "00 00 FF 04 FC D4 32 01 00 F9 00",
            ]

    run(main())


def test_type_b_is_read_too(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            here.chip.tap(Plastic(uid=b"\x11\x22\x33\x44"), pn532_chip.TYPE_B)
            card = await here.reader.wait_for_card(10)
            assert (card.uid.hex(), card.answer.hex()[:10]) == ("11223344", "5011223344")
            assert (await card.transmit(SELECT)).encode() == FCI

    run(main())


def test_the_same_card_pays_again_only_after_it_was_away(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card()
            await card.release()
            await card.release()
            with pytest.raises(TimedOut):
                await here.reader.wait_for_card(5)
            assert not here.chip.chip.field
            wait = asyncio.create_task(here.reader.wait_for_card(5))
            await asyncio.sleep(1)
            here.chip.remove()
            await asyncio.sleep(1)
            here.chip.tap(Plastic())
            assert (await wait).uid == card.uid
            assert [type(event) for event in here.told] == [CardInserted, CardRemoved, CardInserted]
            with pytest.raises(CardGone, match="let go of"):
                await card.transmit(SELECT)
            assert not await card.is_present()

    run(main())


def test_a_card_that_was_not_released_is_when_the_next_is_waited_for(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            await here.card()
            with pytest.raises(TimedOut):
                await here.reader.wait_for_card(1)
            assert frames.command(frames.IN_RELEASE, b"\0") in here.chip.heard

    run(main())


def test_two_cards_are_told_once_and_one_of_them_alone_is_read(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            here.chip.tap(Plastic())
            here.chip.tap(Plastic(uid=b"\1\2\3\4\5\6\7"))
            with pytest.raises(CardError, match="two cards in the field") as caught:
                await here.reader.wait_for_card(10)
            assert caught.value.advice == "Present one card alone."
            assert not here.chip.chip.field
            with pytest.raises(TimedOut):
                await here.reader.wait_for_card(2)
            del here.chip.chip.cards[0]
            assert (await here.reader.wait_for_card(2)).uid == b"\1\2\3\4\5\6\7"

    run(main())


def test_a_card_of_each_type_are_two_cards_as_well(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            here.chip.tap(Plastic())
            here.chip.tap(Plastic(uid=b"\x11\x22\x33\x44"), pn532_chip.TYPE_B)
            with pytest.raises(CardError, match="two cards in the field"):
                await here.reader.wait_for_card(10)
            with pytest.raises(TimedOut):
                await here.reader.wait_for_card(2)
            del here.chip.chip.cards[0]
            card = await here.reader.wait_for_card(2)
            assert card.uid == b"\x11\x22\x33\x44"
            assert (await card.transmit(SELECT)).encode() == FCI

    run(main())


def test_a_card_that_makes_up_its_number_does_not_pay_again_by_that(monkeypatch):
    async def main(kind, first, second):
        async with bench(monkeypatch) as here:
            here.chip.tap(Plastic(uid=first), kind)
            await (await here.reader.wait_for_card(2)).release()
            here.chip.remove()
            here.chip.tap(Plastic(uid=second), kind)
            with pytest.raises(TimedOut):
                await here.reader.wait_for_card(3)
            here.chip.remove()
            with pytest.raises(TimedOut):
                await here.reader.wait_for_card(1)
            here.chip.tap(Plastic(uid=second), kind)
            assert (await here.reader.wait_for_card(2)).uid == second

    run(main(pn532_chip.TYPE_A, b"\x08\1\2\3", b"\x08\4\5\6"))
    run(main(pn532_chip.TYPE_B, b"\x11\1\2\3", b"\x22\4\5\6"))


def test_a_card_without_apdus_is_no_payment_card(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            here.chip.tap(Plastic(ats=b""))
            with pytest.raises(CardError, match="no payment card"):
                await here.reader.wait_for_card(10)
            here.chip.remove()
            assert (await here.card(Plastic(uid=b"\1\2\3\4"))).uid == b"\1\2\3\4"

    run(main())


@pytest.mark.parametrize("size", [2, 255, 262, 263, 600, 65_538])
def test_answers_of_any_length_come_whole(monkeypatch, size):
    response = bytes(number % 251 for number in range(size - 2)) + b"\x90\0"

    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card(Plastic(says=lambda _: response))
            assert (await card.transmit(READ)).encode() == response

    run(main())


@pytest.mark.parametrize("size", [1, 250, 255, 256, 700, 65_535])
def test_commands_of_any_length_arrive_whole(monkeypatch, size):
    async def main():
        async with bench(monkeypatch) as here:
            plastic = Plastic(says=lambda _: b"\x90\0")
            card = await here.card(plastic)
            command = Command(0, 0xDA, 0, 0, bytes(number % 251 for number in range(size)))
            assert (await card.transmit(command)).ok
            assert plastic.asked == [command.encode()]

    run(main())


def test_a_card_taken_away_between_and_in_the_middle_of_commands(monkeypatch):
    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card()
            here.chip.remove()
            assert not await card.is_present()
            for _ in range(2):
                with pytest.raises(CardGone, match="taken away") as caught:
                    await card.transmit(SELECT)
                assert "leave it until it is done" in caught.value.advice
            plastic = Plastic()
            card = await here.card(plastic)
            here.chip.tear()
            with pytest.raises(CardGone):
                await card.transmit(SELECT)
            assert plastic.asked == [PPSE]
            assert [type(event) for event in here.told] == [CardInserted, CardRemoved] * 2

    run(main())


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (0x02, CardError, "CRC error"),
        (0x06, CardError, "collision"),
        (0x3F, CardError, "error 3F"),
        (0x0D, ProtocolError, "overheated"),
        (0x27, CardGone, "taken away"),
        (0x2B, CardGone, "taken away"),
    ],
)
def test_what_the_chip_reports_of_a_card(monkeypatch, status, error, said):
    async def broken(*_):
        return bytes((status,))

    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card()
            monkeypatch.setitem(pn532_chip._COMMANDS, frames.IN_DATA_EXCHANGE, broken)
            with pytest.raises(error, match=said) as caught:
                await card.transmit(SELECT)
            assert type(caught.value) is error

    run(main())


@pytest.mark.parametrize("response", [b"", b"\x90"])
def test_a_card_that_answers_nonsense_is_a_card_error(monkeypatch, response):
    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card(Plastic(says=lambda _: response))
            with pytest.raises(CardError, match="no response"):
                await card.transmit(SELECT)

    run(main())


@pytest.mark.parametrize(
    ("answer", "error"), [(b"", ProtocolError), (b"\x40", CardError), (b"\x40" + bytes(200), CardError)]
)
def test_an_answer_without_end_or_status_ends(monkeypatch, answer, error):
    async def endless(*_):
        return answer

    async def main():
        async with bench(monkeypatch) as here:
            card = await here.card()
            monkeypatch.setitem(pn532_chip._COMMANDS, frames.IN_DATA_EXCHANGE, endless)
            with pytest.raises(error):
                await card.transmit(SELECT)

    run(main())


def test_a_trace_holds_every_frame_and_no_card(monkeypatch):
    record = bytes.fromhex("7015571347617390010101 19D28122011000012300000F9000".replace(" ", ""))

    async def main():
        async with bench(monkeypatch) as here:
            lines = []
            here.reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
            card = await here.card(Plastic(says=lambda _: record))
            assert (await card.transmit(READ)).encode() == record
            await card.release()
            told = [json.loads(line) for line in lines]
            assert [one["what"] for one in told if one["way"] == "out"] == [
                "wake up, SAMConfiguration: 01",
                "GetFirmwareVersion",
                "SetParameters: 14",
                "RFConfiguration: 02 00 0B 0A",
                "RFConfiguration: 05 00 01 02",
                "InListPassiveTarget: 02 03 00",
                "InListPassiveTarget: 02 00",
                "InDataExchange: READ RECORD 00 B2 01 0C",
                "InRelease: 00",
                "RFConfiguration: 01 00",
            ]
            assert "4761739001010119" not in "".join(lines)
            assert "4761730000010119" in "".join(lines)

    run(main())
