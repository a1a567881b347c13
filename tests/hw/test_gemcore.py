"""The GemCore driver against its emulator: on virtual time in memory, and on real lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.apdu import Command
from hw.atr import pps
from hw.card import ChipCard, EntryMode
from hw.ccid import Kind
from hw.ccid_reader import CcidReader
from hw.errors import (
    BadAddress,
    CardError,
    CardGone,
    LineGone,
    NoAnswer,
    NotSupported,
    ProtocolError,
    ReaderError,
    TimedOut,
)
from hw.gemcore import GemcoreReader
from hw.reader import Capabilities, CardInserted, CardRemoved, ReaderBack, ReaderEvent, ReaderGone, open_reader
from hw.t1 import Block
from hw.trace import Tracer, read_trace
from sim.reader.ccid import Fault
from sim.reader.contact import T0Card, T1Card
from sim.reader.gemcore import NAME, GemcoreEmulator, on_pty, on_socket
from sim.reader.memory import MemoryLine
from sim.virtual_time import run
from tests.hw.contact import BOTH, FCI, LONG, SELECT, T0, T1, Chip, in_memory

RECORD = Command(0x00, 0xB2, 0x01, 0x0C, le=256)


class Bench:
    """A driver, its emulator, and what happened."""

    def __init__(self, reader: CcidReader, emulator: GemcoreEmulator, line: MemoryLine) -> None:
        self.reader, self.emulator, self.line = reader, emulator, line
        self.events: list[type[ReaderEvent]] = []
        reader.on_event = lambda event: self.events.append(type(event))

    async def card(self, atr: bytes = T1, *faults: Fault) -> ChipCard:
        """A card that was just inserted."""
        await self.emulator.insert(Chip(atr))
        card = await self.reader.wait_for_card(10)
        assert isinstance(card, ChipCard)
        self.emulator.misbehave(*faults)
        return card

    @property
    def kinds(self) -> list[Kind]:
        return [message.kind for message in self.emulator.seen]


@asynccontextmanager
async def bench(options: str = "", *, echo: bool = False) -> AsyncIterator[Bench]:
    line = MemoryLine()
    emulator = GemcoreEmulator(line, echo=echo)
    async with in_memory(f"gemcore:///dev/ttyUSB0{options}", emulator, line) as reader:
        yield Bench(reader, emulator, line)


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


@pytest.mark.parametrize("atr", [T0, T1])
@pytest.mark.parametrize(
    "fault",
    [Fault.GARBAGE, Fault.SPLIT, Fault.JOINED, Fault.WRONG_CHECK, Fault.NAK, Fault.LOST_ACK, Fault.SLOW],
)
@pytest.mark.parametrize("echo", [False, True])
def test_what_a_line_does_to_an_answer_is_survived_and_the_card_asked_once(
    fault: Fault, atr: bytes, echo: bool
) -> None:
    async def main() -> None:
        async with bench(echo=echo) as on:
            card = await on.card(atr, fault)
            chip = on.emulator._chip
            assert isinstance(chip, Chip)
            for _ in range(3):
                assert (await card.transmit(SELECT)).data == FCI
            assert len(chip.commands) == 3
            if fault in (Fault.WRONG_CHECK, Fault.NAK, Fault.LOST_ACK):
                assert on.reader.statistics.retries == 1

    run(main())


@pytest.mark.parametrize(
    "fault", [Fault.GARBAGE, Fault.SPLIT, Fault.WRONG_CHECK, Fault.NAK, Fault.LOST_ACK, Fault.SLOW]
)
@pytest.mark.parametrize("after", range(6))
def test_the_same_faults_while_a_card_is_powered(fault: Fault, after: int) -> None:
    async def main() -> None:
        async with bench() as on:
            await on.emulator.insert(Chip(T1))
            on.emulator.misbehave(*[Fault.SPLIT] * after, fault)
            card = await on.reader.wait_for_card(30)
            assert (await card.transmit(SELECT)).data == FCI

    run(main())


def test_a_block_that_went_wrong_between_card_and_reader_is_repaired_by_t1() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T1, Fault.LOST_BLOCK, Fault.LOST_BLOCK)
            assert (await card.transmit(SELECT)).data == FCI
            on.emulator.misbehave(Fault.MUTE)
            assert (await card.transmit(SELECT)).data == FCI
            on.emulator.misbehave(Fault.MUTE, Fault.MUTE, Fault.MUTE)
            assert (await card.transmit(SELECT)).data == FCI
            resynchronised = [m for m in on.emulator.seen if m.data[:2] == b"\x00\xc0"]
            assert len(resynchronised) == 1

    run(main())


def test_a_card_that_stays_mute_is_a_card_error() -> None:
    async def main(atr: bytes) -> None:
        async with bench() as on:
            card = await on.card(atr, *[Fault.MUTE] * 10)
            with pytest.raises(CardError, match="does not answer"):
                await card.transmit(SELECT)

    run(main(T0))
    run(main(T1))


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


def test_a_card_torn_away_in_the_middle_is_gone() -> None:
    async def main(atr: bytes) -> None:
        async with bench() as on:
            card = await on.card(atr, Fault.TEAR)
            with pytest.raises(CardGone, match="the card was taken away") as caught:
                await card.transmit(SELECT)
            assert "leave it until it is done" in caught.value.advice
            with pytest.raises(CardGone):
                await card.transmit(SELECT)
            await card.release()
            assert on.events == [CardInserted, CardRemoved]
            assert (await (await on.card(atr)).transmit(SELECT)).data == FCI

    run(main(T0))
    run(main(T1))


def test_a_card_torn_away_while_it_is_powered() -> None:
    async def main(after: int) -> None:
        async with bench() as on:
            await on.emulator.insert(Chip(T1))
            on.emulator.misbehave(*[Fault.SPLIT] * after, Fault.TEAR)
            with pytest.raises((CardGone, TimedOut)):
                await on.reader.wait_for_card(5)
            assert isinstance(await on.card(), ChipCard)

    for after in range(4):
        run(main(after))


def test_a_card_the_wrong_way_round_is_tried_at_each_voltage_and_is_a_card_error() -> None:
    async def main() -> None:
        async with bench() as on:
            await on.emulator.insert(Chip(T0))
            on.emulator.misbehave(Fault.SPLIT, *[Fault.MUTE] * 3)
            with pytest.raises(CardError, match="does not answer") as caught:
                await on.reader.wait_for_card(5)
            assert "chip first" in caught.value.advice
            tried = [message.specific[0] for message in on.emulator.seen if message.kind is Kind.POWER_ON]
            assert tried == [1, 2, 3]
            assert on.kinds[-1] is Kind.POWER_OFF

    run(main())


def test_a_card_whose_answer_to_reset_is_nonsense_is_let_go_of() -> None:
    async def main() -> None:
        async with bench() as on:
            chip = Chip(T0)
            await on.emulator.insert(chip)
            original, chip.atr = chip.atr, T0
            on.emulator._half = lambda _chip: T0Card(chip)
            on.emulator._answer = _with_atr(on.emulator, b"\x3b\x60\x00")
            with pytest.raises(CardError, match="answer to reset breaks off"):
                await on.reader.wait_for_card(5)
            assert on.kinds[-1] is Kind.POWER_OFF
            assert original == T0

    run(main())


def _with_atr(emulator: GemcoreEmulator, atr: bytes) -> Callable[..., object]:
    answer = emulator._answer
    return lambda command, data=b"", **words: answer(
        command, atr if command.kind is Kind.POWER_ON and data else data, **words
    )


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


def test_a_reader_that_falls_silent_is_no_answer_and_its_next_answer_is_not_mistaken() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T0, Fault.SILENCE)
            began = asyncio.get_running_loop().time()
            with pytest.raises(NoAnswer, match="no answer to xfr block within 15 s"):
                await card.transmit(SELECT)
            assert asyncio.get_running_loop().time() - began == 15
            on.emulator.speak()
            assert (await card.transmit(SELECT)).data == FCI

    run(main())


def test_nobody_there_and_somebody_else_there_are_told_apart() -> None:
    async def main() -> None:
        line = MemoryLine()
        emulator = GemcoreEmulator(line)
        emulator.misbehave(Fault.SILENCE)
        with pytest.raises(NoAnswer, match="no answer to escape within 3 s"):
            async with in_memory("gemcore:///dev/ttyUSB0", emulator, line):
                pass
        line = MemoryLine()
        emulator = GemcoreEmulator(line)
        emulator.misbehave(*[Fault.NAK] * 3)
        with pytest.raises(ProtocolError, match="does not understand escape"):
            async with in_memory("gemcore:///dev/ttyUSB0", emulator, line):
                pass

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


def test_a_reader_that_asks_for_time_for_ever_is_given_a_minute() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T0, Fault.SILENCE)
            asking = asyncio.create_task(card.transmit(SELECT))
            for _ in range(100):
                await asyncio.sleep(1)
                await on.line.write(b"\x80")
            with pytest.raises(NoAnswer, match="within 60 s"):
                await asking

    run(main())


def test_pulled_out_in_the_middle_and_back_under_the_same_name() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T1, Fault.UNPLUG)
            with pytest.raises(LineGone, match="the device is gone"):
                await card.transmit(SELECT)
            assert on.events == [CardInserted, ReaderGone]
            on.line.unplugged = False
            on.line._out.open = True
            life = asyncio.create_task(on.emulator.run())
            wait = asyncio.create_task(on.reader.wait_for_card(5))
            fresh = await wait
            assert ReaderBack in on.events
            assert (await fresh.transmit(SELECT)).data == FCI
            await card.release()
            life.cancel()

    run(main())


def test_pulled_out_while_nobody_is_there() -> None:
    async def main() -> None:
        async with on_pty() as emulated, open_reader(emulated.url) as reader:
            wait = asyncio.create_task(reader.wait_for_card(10))
            await asyncio.sleep(0)
            await emulated.line.close()
            with pytest.raises(LineGone):
                await wait

    asyncio.run(main())


def test_an_exchange_that_is_called_off_leaves_the_card_usable() -> None:
    async def main(atr: bytes) -> None:
        async with bench() as on:
            card = await on.card(atr, Fault.LOST_ACK)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await card.transmit(SELECT)
            assert (await card.transmit(RECORD)).data == LONG

    run(main(T0))
    run(main(T1))


def test_a_trace_shows_the_conversation_and_reads_back() -> None:
    lines: list[str] = []

    async def main() -> None:
        async with bench() as on:
            on.reader.tracer = Tracer(lines.append, asyncio.get_running_loop().time)
            card = await on.card(T1)
            await card.transmit(SELECT)

    run(main())
    frames = list(read_trace(lines))
    assert any("I(0), 20 bytes" in frame.what for frame in frames)
    assert "card inserted" in [frame.what for frame in frames]
    assert {frame.way for frame in frames} == {"in", "out"}


def test_what_the_driver_can_do() -> None:
    reader = open_reader("gemcore:///dev/ttyUSB0")
    assert isinstance(reader, GemcoreReader)
    assert reader.capabilities == Capabilities(contact=True)
    assert reader._line == "/dev/ttyUSB0?baud=115200&stop=2"
    with pytest.raises(BadAddress, match="protocol is one of auto, t0, t1"):
        open_reader("gemcore:///dev/ttyUSB0?protocol=t2")


NOISE = st.binary(max_size=300) | st.sampled_from(
    [b"\x03\x06", b"\x03\x15\x16", b"\x50\x02", b"\x50\x03", b"\x80" * 40, b"\x03\x06\x80\x04\x00\x00\x00\x00"]
)


class Babbler(GemcoreEmulator):
    """Answers some commands, and says anything before and instead."""

    def __init__(self, line: MemoryLine, noise: list[bytes], honest: list[bool]) -> None:
        super().__init__(line)
        self.noise, self.honest = noise, honest
        self.turn = 0

    async def _take(self, frame: bytes) -> None:
        self.turn += 1
        if self.noise:
            await self._line.write(self.noise[self.turn % len(self.noise)])
        if not self.honest or self.honest[self.turn % len(self.honest)]:
            await super()._take(frame)


@given(
    noise=st.lists(NOISE, max_size=6),
    honest=st.lists(st.booleans(), max_size=6),
    atr=st.sampled_from([T0, T1]) | st.binary(max_size=33),
)
def test_whatever_a_reader_says_only_errors_of_ours_come_out_and_nothing_hangs(
    noise: list[bytes], honest: list[bool], atr: bytes
) -> None:
    async def main() -> None:
        line = MemoryLine()
        chip = Chip(T0)
        emulator = Babbler(line, noise, honest)
        await emulator.insert(chip)
        emulator._answer = _with_atr(emulator, atr)
        with suppress(ReaderError):
            async with asyncio.timeout(1000), in_memory("gemcore:///dev/ttyUSB0", emulator, line) as reader:
                card = await reader.wait_for_card(100)
                await card.transmit(SELECT)
                await card.release()

    run(main())


@given(said=st.lists(st.builds(bytes, st.lists(st.integers(0, 255), max_size=20)), min_size=1, max_size=20))
def test_a_card_that_says_anything_ends_in_an_answer_or_an_error(said: list[bytes]) -> None:
    class Nonsense(Chip):
        def transmit(self, apdu: bytes) -> bytes:
            self.commands.append(apdu)
            return said[len(self.commands) % len(said)]

    async def main(atr: bytes) -> None:
        async with bench() as on:
            await on.emulator.insert(Nonsense(atr))
            card = await on.reader.wait_for_card(10)
            try:
                answer = await card.transmit(SELECT)
            except CardError:
                return
            assert 0 <= answer.sw <= 0xFFFF

    run(main(T0))
    run(main(T1))


def test_every_block_of_an_exchange_is_one() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T1)
            await card.transmit(RECORD)
            for message in on.emulator.seen:
                if message.kind is Kind.XFR_BLOCK:
                    Block.decode(message.data)

    run(main())
