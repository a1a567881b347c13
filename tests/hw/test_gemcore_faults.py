"""The GemCore driver when things go wrong: lines, readers and cards that misbehave, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.apdu import Command
from hw.card import ChipCard
from hw.ccid import Kind, Message
from hw.errors import (
    CardError,
    CardGone,
    LineGone,
    NoAnswer,
    ProtocolError,
    ReaderError,
    TimedOut,
)
from hw.gemcore_frames import ENVELOPE
from hw.reader import CardInserted, CardRemoved, ReaderBack, ReaderGone, open_reader
from sim.reader.ccid import Fault
from sim.reader.contact import T0Card, T1Card
from sim.reader.gemcore import GemcoreEmulator, on_pty
from sim.reader.memory import MemoryLine
from sim.virtual_time import run
from tests.hw.contact import FCI, LONG, SELECT, T0, T1, Chip, bench, in_memory

RECORD = Command(0x00, 0xB2, 0x01, 0x0C, le=256)


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


class Sounding(GemcoreEmulator):
    """Echoes everything, also what asks for the last answer again."""

    async def _take(self, frame: bytes) -> None:
        if frame == ENVELOPE.NAK:
            await self._line.write(frame)
        await super()._take(frame)


@pytest.mark.parametrize("fault", [Fault.WRONG_CHECK, Fault.LOST_ACK, Fault.NAK])
def test_the_echo_of_our_own_refusal_is_not_taken_for_the_reader_s(fault: Fault) -> None:
    async def main() -> None:
        line = MemoryLine()
        emulator = Sounding(line, echo=True)
        async with in_memory("gemcore:///dev/ttyUSB0", emulator, line) as reader:
            chip = Chip(T0)
            await emulator.insert(chip)
            card = await reader.wait_for_card(10)
            emulator.misbehave(fault)
            assert (await card.transmit(SELECT)).data == FCI
            assert len(chip.commands) == 1

    run(main())


def test_an_answer_to_something_else_is_a_protocol_error() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T0)
            answer = on.emulator._answer
            on.emulator._answer = lambda command, *data, **words: replace(
                answer(command, *data, **words), kind=Kind.PARAMETERS
            )
            with pytest.raises(ProtocolError, match="answers xfr block with parameters"):
                await card.transmit(SELECT)

    run(main())


def test_a_card_that_always_wants_more_time_is_given_a_minute() -> None:
    class Slow(T1Card):
        def take(self, data: bytes) -> bytes:
            self.wtx = [1]
            return super().take(data)

    class Paced(GemcoreEmulator):
        async def _exchanged(self, command: Message, fault: Fault | None) -> Message:
            await asyncio.sleep(1)
            return await super()._exchanged(command, fault)

    async def main() -> None:
        line = MemoryLine()
        emulator = Paced(line)
        async with in_memory("gemcore:///dev/ttyUSB0", emulator, line) as reader:
            chip = Chip(T1)
            await emulator.insert(chip)
            card = await reader.wait_for_card(10)
            emulator._card = Slow(chip)
            with pytest.raises(CardError, match="not done within 60 s"):
                await card.transmit(SELECT)

    run(main())


def test_a_card_let_go_of_after_the_reader_was_pulled_out() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card()
            await on.line.close()
            await card.release()
            assert on.events == [CardInserted, ReaderGone]

    run(main())


class Deaf(GemcoreEmulator):
    """Does not hear the first command of one kind: the line has lost its beginning."""

    lost: Kind | None = None

    async def _take(self, frame: bytes) -> None:
        found = ENVELOPE.parse(frame)
        if isinstance(found, Message) and found.kind is self.lost:
            self.lost = None
            return
        await super()._take(frame)


@pytest.mark.parametrize(
    "kind", [Kind.ESCAPE, Kind.GET_SLOT_STATUS, Kind.POWER_ON, Kind.SET_PARAMETERS, Kind.POWER_OFF]
)
def test_a_command_that_the_reader_never_heard_is_sent_again(kind: Kind) -> None:
    async def main() -> None:
        line = MemoryLine()
        emulator = Deaf(line)
        emulator.lost = kind
        async with in_memory("gemcore:///dev/ttyUSB0", emulator, line) as reader:
            await emulator.insert(Chip(T0))
            card = await reader.wait_for_card(10)
            assert (await card.transmit(SELECT)).data == FCI
            await card.release()
            assert emulator.lost is None
            assert reader.statistics.retries == 1
            assert emulator.seen[-1].kind is Kind.POWER_OFF

    run(main())


def test_what_was_for_the_card_is_not_sent_again() -> None:
    async def main() -> None:
        line = MemoryLine()
        emulator = Deaf(line)
        async with in_memory("gemcore:///dev/ttyUSB0", emulator, line) as reader:
            chip = Chip(T0)
            await emulator.insert(chip)
            card = await reader.wait_for_card(10)
            emulator.lost = Kind.XFR_BLOCK
            with pytest.raises(NoAnswer, match="no answer to xfr block"):
                await card.transmit(SELECT)
            assert chip.commands == []

    run(main())


@pytest.mark.parametrize("atr", [T0, T1])
@pytest.mark.parametrize("place", range(0, 27, 3))
def test_a_byte_that_is_lost_from_an_answer_costs_a_pause_and_no_card(atr: bytes, place: int) -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(atr)
            write, spoiled = on.line.write, []

            async def losing(data: bytes) -> None:
                if len(data) > 20 and not spoiled:
                    spoiled.append(data)
                    data = data[:place] + data[place + 1 :]
                await write(data)

            on.line.write = losing  # type: ignore[method-assign]
            began = asyncio.get_running_loop().time()
            assert (await card.transmit(RECORD)).data == LONG
            assert len(spoiled) == 1
            if place > 6:  # its beginning is there, and so is its length
                assert asyncio.get_running_loop().time() - began < 1
            chip = on.emulator._chip
            assert isinstance(chip, Chip)
            assert len(chip.commands) <= 2  # 6Cxx

    run(main())


def test_a_card_that_is_spoken_to_from_two_sides_hears_one_after_the_other() -> None:
    async def main(atr: bytes) -> None:
        async with bench() as on:
            card = await on.card(atr)
            answers = await asyncio.gather(*(card.transmit(ask) for ask in (SELECT, RECORD, SELECT)))
            assert [answer.data for answer in answers] == [FCI, LONG, FCI]
            wait = asyncio.create_task(card.transmit(RECORD))
            await asyncio.sleep(0)
            await card.release()
            with suppress(CardError):
                assert (await wait).data == LONG

    run(main(T0))
    run(main(T1))


def test_closing_is_no_unplugging() -> None:
    async def main() -> None:
        async with bench() as on:
            card = await on.card(T1)
            await on.reader.close()
            with pytest.raises(LineGone):
                await card.transmit(SELECT)
            assert on.events == [CardInserted]

    run(main())


def test_a_card_that_was_not_handed_over_before_the_time_was_up_counts_in_the_next_wait() -> None:
    async def main() -> None:
        async with bench() as on:
            on.emulator.misbehave(Fault.SPLIT, Fault.LOST_ACK)  # power on is answered a while later
            await on.emulator.insert(Chip(T1))
            with pytest.raises(TimedOut):
                await on.reader.wait_for_card(2)
            card = await on.reader.wait_for_card(2)
            assert (await card.transmit(SELECT)).data == FCI

    run(main())
