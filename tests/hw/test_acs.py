"""The ACS driver: first against its manuals' bytes alone, then against its emulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.apdu import Command
from hw.card import ChipCard, EntryMode
from hw.ccid import Kind
from hw.ccid_reader import CcidReader
from hw.errors import BadAddress, CardError, CardGone, NoAnswer, ProtocolError, ReaderError
from hw.reader import Capabilities, open_reader
from sim.reader.acs import AcsEmulator, on_pty, on_socket
from sim.reader.ccid import CcidEmulator, Fault
from sim.reader.memory import MemoryLine
from sim.virtual_time import run
from tests.hw.contact import FCI, LONG, SELECT, T0, T1, Chip, in_memory

ACCEPTED = "02 00 00 03"


class Manual(CcidEmulator):
    """Says what the manuals say, to what they say is sent, and stops at the first deviation."""

    def __init__(self, line: MemoryLine, *script: tuple[str, str]) -> None:
        self.wire, self.script = line, list(script)

    async def run(self) -> None:
        with suppress(ReaderError):
            while True:
                sent = await self.wire.read()
                wanted, said = self.script.pop(0)
                assert sent.hex() == bytes.fromhex(wanted).hex()
                await self.wire.write(bytes.fromhex(said))


def test_the_manuals_bytes_and_no_others() -> None:
    async def main() -> None:
        line = MemoryLine()
        manual = Manual(
            line,
            ("02 65 00 00 00 00 00 00 00 00 00 65 03", f"{ACCEPTED} 02 81 00 00 00 00 00 00 01 00 00 80 03"),
            ("02 65 00 00 00 00 00 01 00 00 00 64 03", f"{ACCEPTED} 02 81 00 00 00 00 00 01 01 00 00 81 03"),
            (
                "02 62 00 00 00 00 00 02 01 00 00 61 03",
                # the ACR1281S manual's answer, section 8.1, with its number; bError means nothing there
                f"{ACCEPTED} 02 80 10 00 00 00 00 02 00 81 00"
                " 3B 8B 80 01 4A 43 4F 50 33 31 33 36 47 44 54 4C 28 03",
            ),
            (
                "02 6F 05 00 00 00 00 03 00 00 00 FF CA 00 00 00 5C 03",
                f"{ACCEPTED} 02 80 06 00 00 00 00 03 00 00 00 08 01 02 03 90 00 1D 03",
            ),
            (
                "02 6F 0A 00 00 00 00 04 00 00 00 FF 00 00 00 05 D4 4A 01 03 00 07 03",
                f"{ACCEPTED} 02 81 05 00 00 00 00 04 00 00 00 D5 4B 00 90 00 8E 03",  # 81 where the table says 80
            ),
            ("02 63 00 00 00 00 00 05 00 00 00 66 03", f"{ACCEPTED} 02 81 00 00 00 00 00 05 01 00 00 85 03"),
        )
        async with in_memory("acs:///dev/ttyUSB0?slot=picc", manual, line) as reader:
            card = await reader.wait_for_card(1)
            assert isinstance(card, ChipCard)
            assert card.answer.hex() == "3b8b80014a434f503331333647 44544c".replace(" ", "")
            assert (card.entry_mode, card.uid.hex()) == (EntryMode.CONTACTLESS, "08010203")
            answer = await card.transmit(Command(0xFF, 0, 0, 0, bytes.fromhex("D44A010300")))
            assert (answer.data.hex(), answer.sw) == ("d54b00", 0x9000)
            await card.release()
        assert manual.script == []

    run(main())


@asynccontextmanager
async def bench(slot: str = "icc") -> AsyncIterator[tuple[CcidReader, AcsEmulator]]:
    line = MemoryLine()
    emulator = AcsEmulator(line, slot=slot)
    async with in_memory(f"acs:///dev/ttyUSB0?slot={slot}", emulator, line) as reader:
        yield reader, emulator


@pytest.mark.parametrize("place", [on_pty, on_socket])
@pytest.mark.parametrize(
    ("slot", "mode", "uid"), [("icc", EntryMode.CHIP, ""), ("picc", EntryMode.CONTACTLESS, "08010203")]
)
@pytest.mark.parametrize("atr", [T0, T1])
def test_a_card_is_asked_over_every_line(
    place: Callable[..., object], slot: str, mode: EntryMode, uid: str, atr: bytes
) -> None:
    async def main() -> None:
        async with place(slot) as emulated, open_reader(emulated.url) as reader:
            await emulated.reader.insert(Chip(atr))
            card = await reader.wait_for_card(10)
            assert (card.entry_mode, card.answer, card.uid.hex()) == (mode, atr, uid)
            assert (await card.transmit(SELECT)).data == FCI
            assert (await card.transmit(Command(0x00, 0xB2, 0x01, 0x0C, le=256))).data == LONG
            await card.release()

    asyncio.run(main())


@pytest.mark.parametrize(
    "fault", [Fault.GARBAGE, Fault.SPLIT, Fault.JOINED, Fault.WRONG_CHECK, Fault.NAK, Fault.LOST_ACK, Fault.SLOW]
)
def test_what_a_line_does_to_an_answer_is_survived_and_the_card_asked_once(fault: Fault) -> None:
    async def main() -> None:
        async with bench() as (reader, emulator):
            chip = Chip(T1)
            await emulator.insert(chip)
            card = await reader.wait_for_card(10)
            assert isinstance(card, ChipCard)
            emulator.misbehave(fault)
            assert (await card.transmit(SELECT)).data == FCI
            assert (await card.transmit(SELECT)).data == FCI
            assert len(chip.commands) == 2

    run(main())


def test_cards_that_go_and_cards_that_are_mute() -> None:
    async def main() -> None:
        async with bench() as (reader, emulator):
            await emulator.insert(Chip(T1))
            card = await reader.wait_for_card(10)
            assert isinstance(card, ChipCard)
            emulator.misbehave(Fault.MUTE)
            with pytest.raises(CardError, match="does not answer"):
                await card.transmit(SELECT)
            await emulator.tear()
            with pytest.raises(CardGone):
                await card.transmit(SELECT)

    run(main())


def test_nobody_there_and_a_reader_that_never_understands() -> None:
    async def main(fault: Fault) -> None:
        line = MemoryLine()
        emulator = AcsEmulator(line)
        emulator.misbehave(*[fault] * 3)
        async with in_memory("acs:///dev/ttyUSB0", emulator, line):
            pass

    with pytest.raises(NoAnswer, match="no answer to get slot status within 3 s"):
        run(main(Fault.SILENCE))
    with pytest.raises(ProtocolError, match="does not understand get slot status"):
        run(main(Fault.NAK))


def test_what_the_driver_can_do() -> None:
    assert open_reader("acs:///dev/ttyUSB0").capabilities == Capabilities(contact=True)
    assert open_reader("acs:///dev/ttyUSB0?slot=picc").capabilities == Capabilities(contactless=True)
    with pytest.raises(BadAddress, match="slot is one of icc, picc"):
        open_reader("acs:///dev/ttyUSB0?slot=2")


class Babbler(AcsEmulator):
    """Answers some commands, and says anything before and instead."""

    def __init__(self, line: MemoryLine, noise: list[bytes], honest: list[bool]) -> None:
        super().__init__(line)
        self.noise, self.honest, self.turn = noise, honest, 0

    async def _take(self, frame: bytes) -> None:
        self.turn += 1
        if self.noise:
            await self._line.write(self.noise[self.turn % len(self.noise)])
        if not self.honest or self.honest[self.turn % len(self.honest)]:
            await super()._take(frame)


NOISE = st.binary(max_size=300) | st.sampled_from([b"\x02", bytes.fromhex("02FFFF03"), bytes.fromhex("02000003")])


@given(noise=st.lists(NOISE, max_size=6), honest=st.lists(st.booleans(), max_size=6))
def test_whatever_a_reader_says_only_errors_of_ours_come_out_and_nothing_hangs(
    noise: list[bytes], honest: list[bool]
) -> None:
    async def main() -> None:
        line = MemoryLine()
        emulator = Babbler(line, noise, honest)
        await emulator.insert(Chip(T1))
        with suppress(ReaderError):
            async with asyncio.timeout(1000), in_memory("acs:///dev/ttyUSB0", emulator, line) as reader:
                card = await reader.wait_for_card(100)
                assert isinstance(card, ChipCard)
                await card.transmit(SELECT)
                await card.release()

    run(main())


def test_the_reader_is_looked_at_by_its_slot() -> None:
    async def main() -> None:
        async with bench() as (reader, emulator):
            await emulator.insert(Chip(T1))
            await reader.wait_for_card(1)
            assert {message.slot for message in emulator.seen} == {1}
            assert Kind.SET_PARAMETERS not in {message.kind for message in emulator.seen}

    run(main())
