"""The GemCore driver against its emulator: on virtual time in memory, and on real lines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from hw.apdu import Command
from hw.atr import pps
from hw.card import ChipCard, EntryMode
from hw.ccid import Kind
from hw.errors import (
    BadAddress,
    CardError,
    CardGone,
    NotSupported,
    ProtocolError,
    TimedOut,
)
from hw.gemcore import GemcoreReader
from hw.reader import Capabilities, CardInserted, CardRemoved, open_reader
from hw.t1 import Block
from hw.trace import Tracer, read_trace
from sim.reader.contact import T0Card, T1Card
from sim.reader.gemcore import NAME, on_pty, on_socket
from sim.virtual_time import run
from tests.hw.contact import BOTH, FCI, LONG, SELECT, T0, T1, Chip, bench

RECORD = Command(0x00, 0xB2, 0x01, 0x0C, le=256)


@pytest.mark.parametrize("place", [on_pty, on_socket])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("atr", [T0, T1])
def test_a_card_is_asked_over_every_line(place: Callable[..., object], echo: bool, atr: bytes) -> None:
    async def main() -> None:
        async with place(echo=echo) as emulated, open_reader(emulated.url) as reader:
            await emulated.reader.insert(Chip(atr))
            card = await reader.wait_for_card(10)
            assert (card.entry_mode, card.answer, card.uid) == (EntryMode.CHIP, atr, b"")
            assert (await card.transmit(SELECT)).data == FCI
            assert (await card.transmit(RECORD)).data == LONG
            assert (await card.transmit(Command(0x00, 0xB2, 0x02, 0x0C, le=256))).sw == 0x6A83
            await card.release()
            await card.release()
            assert reader.firmware == NAME.decode()

    asyncio.run(main())


def test_the_driver_opens_asks_and_lets_go_with_the_frames_of_pcscd() -> None:
    sent: list[str] = []

    async def main(atr: bytes) -> None:
        async with bench() as on:
            write = on.line._out.put
            on.line._out.put = lambda data: (sent.append(data.hex()), write(data))[1]
            await on.reader.close()
            on.reader._channel = None
            await on.reader.open()
            await on.emulator.insert(Chip(atr))
            on.reader._channel._seq = 0x0C - 1
            card = await on.reader.wait_for_card(1)
            on.reader._channel._seq = 0x2B
            await card.release()

    run(main(T0))
    assert sent == [
        "03066b010000000000000000026d",
        "03066b0300000000010000000101016d",
        "03066500000000000200000062",
        "03066500000000000b0000006b",
        "03066200000000000c0100006a",
        "0306610500000000" + "0d" + "0000001100000a00" + "77",
        "03066300000000002b0000004d",
    ]
    sent.clear()
    run(main(T1))
    assert sent[5:7] == [
        "0306610700000000" + "0d" + "0100001110004500fe00" + "d5",
        "03066f0500000000" + "0e" + "00000000c101fe3e" + "61",
    ]


def test_a_card_that_comes_later_is_noticed_and_told() -> None:
    async def main() -> None:
        async with bench() as on:
            wait = asyncio.create_task(on.reader.wait_for_card(10))
            await asyncio.sleep(3)
            began = asyncio.get_running_loop().time()
            await on.emulator.insert(Chip(T0))
            await wait
            assert asyncio.get_running_loop().time() - began < 0.5
            await on.emulator.remove()
            with pytest.raises(TimedOut):
                await on.reader.wait_for_card(1)
            assert on.events == [CardInserted, CardRemoved]

    run(main())


def test_a_card_left_behind_does_not_count_again_until_it_was_taken_out() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card()
            await card.release()
            with pytest.raises(TimedOut):
                await on.reader.wait_for_card(5)
            await on.emulator.remove()
            await on.emulator.insert(Chip(T1))
            again = await on.reader.wait_for_card(5)
            assert again is not card
            with pytest.raises(CardGone, match="let go of"):
                await card.transmit(SELECT)

    run(main())


def test_a_card_that_is_there_when_the_reader_opens_counts() -> None:
    async def main() -> None:
        async with bench() as on:
            await on.emulator.insert(Chip(T1))
            await on.reader.close()
            assert isinstance(await on.reader.wait_for_card(1), ChipCard)

    run(main())


def test_cards_that_ask_for_time_get_it() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T1)
            half = on.emulator.card
            assert isinstance(half, T1Card)
            half.wtx = [1, 4]
            assert (await card.transmit(SELECT)).data == FCI
            answers = [m for m in on.emulator.seen if m.data[:2] == b"\x00\xe3"]
            assert [m.specific for m in answers] == [b"\0\0\0", b"\4\0\0"]  # bBWI
        async with bench() as on:
            card = await on.card(T0)
            half = on.emulator.card
            assert isinstance(half, T0Card)
            half.nulls = 5
            assert (await card.transmit(SELECT)).data == FCI

    run(main())


@pytest.mark.parametrize(("option", "kind"), [("auto", T0Card), ("t0", T0Card), ("t1", T1Card)])
def test_a_protocol_that_is_named_is_asked_for(option: str, kind: type) -> None:
    async def main() -> None:
        async with bench(f"?protocol={option}") as on:
            card = await on.card(BOTH)
            assert isinstance(on.emulator.card, kind)
            assert (pps(1) in [message.data for message in on.emulator.seen]) == (option == "t1")
            assert (await card.transmit(SELECT)).data == FCI

    run(main())


def test_a_protocol_that_the_card_does_not_speak_is_a_card_error() -> None:
    async def main() -> None:
        async with bench("?protocol=t1") as on:
            await on.emulator.insert(Chip(T0))
            with pytest.raises(CardError, match="does not speak T=1"):
                await on.reader.wait_for_card(5)

    run(main())


def test_an_extended_command_does_not_go_over_t0_and_is_said_so() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T0)
            with pytest.raises(NotSupported, match="extended length"):
                await card.transmit(Command(0, 0xB0, le=1000))
            assert (await card.transmit(SELECT)).data == FCI

    run(main())


@pytest.mark.parametrize("option", ["yes", "no"])
@pytest.mark.parametrize("echo", [True, False])
def test_an_echo_that_is_not_as_was_said_is_a_protocol_error(option: str, echo: bool) -> None:
    works = echo == (option == "yes")

    async def main() -> None:
        with nullcontext() if works else pytest.raises(ProtocolError, match="echo"):
            async with bench(f"?echo={option}", echo=echo) as on:
                await on.card()

    run(main())


def test_a_trace_shows_the_conversation_and_reads_back() -> None:
    lines: list[str] = []

    async def main() -> None:
        async with bench() as on:
            on.reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
            card = await on.card(T1)
            await card.transmit(SELECT)

    run(main())
    frames = list(read_trace(lines))
    assert any("I(0) SELECT 00 A4 04 00, 14 bytes" in frame.what for frame in frames)
    assert "card inserted" in [frame.what for frame in frames]
    assert {frame.way for frame in frames} == {"in", "out"}


def test_what_the_driver_can_do() -> None:
    reader = open_reader("gemcore:///dev/ttyUSB0")
    assert isinstance(reader, GemcoreReader)
    assert reader.capabilities == Capabilities(contact=True)
    assert reader._line == "/dev/ttyUSB0?baud=115200&stop=2"
    with pytest.raises(BadAddress, match="protocol is one of auto, t0, t1"):
        open_reader("gemcore:///dev/ttyUSB0?protocol=t2")


def test_every_block_of_an_exchange_is_one() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T1)
            await card.transmit(RECORD)
            for message in on.emulator.seen:
                if message.kind is Kind.XFR_BLOCK:
                    Block.decode(message.data)

    run(main())


def test_a_card_that_wants_a_crc_is_said_to() -> None:
    async def main() -> None:
        async with bench() as on:
            await on.emulator.insert(Chip(bytes.fromhex("3B8081410141")))
            with pytest.raises(CardError, match="wants a CRC"):
                await on.reader.wait_for_card(5)

    run(main())
