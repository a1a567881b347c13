"""The emulated contact readers, spoken to in raw bytes: what pcscd sends, and what it took for answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hw.ccid import Kind, Message
from hw.gemcore_frames import ENVELOPE
from sim.reader.acs import AcsEmulator
from sim.reader.ccid import NOTICES_KEPT, CcidEmulator, Fault
from sim.reader.gemcore import GemcoreEmulator
from sim.reader.memory import MemoryLine
from sim.virtual_time import run
from tests.hw.contact import T0, T1, Chip

FIRMWARE = "03 06 6B 01 00 00 00 00 00 00 00 00 02 6D"
NOTICES_WITH_ANSWERS = "03 06 6B 03 00 00 00 00 01 00 00 00 01 01 01 6D"
SLOT_STATUS = "03 06 65 00 00 00 00 00 02 00 00 00 62"
POWER_ON = "03 06 62 00 00 00 00 00 0C 01 00 00 6A"
PARAMETERS_1 = "03 06 61 07 00 00 00 00 56 01 00 00 11 10 00 45 00 FE 00 8E"
POWER_OFF = "03 06 63 00 00 00 00 00 2B 00 00 00 4D"


@asynccontextmanager
async def spoken_to(kind: type[CcidEmulator], **words: object) -> AsyncIterator[tuple[CcidEmulator, MemoryLine]]:
    line = MemoryLine()
    emulator = kind(line, **words)
    life = asyncio.create_task(emulator.run())
    try:
        yield emulator, line
    finally:
        await line.close()
        await life


async def said(line: MemoryLine, sent: str) -> str:
    """What comes back for these bytes, until nothing more does."""
    link = line.link
    await link.write(bytes.fromhex(sent))
    await asyncio.sleep(1)
    return link.take().hex(" ").upper()


def test_a_gemcore_reader_answers_pcscd_as_pcscd_has_taken_it() -> None:
    async def main() -> None:
        async with spoken_to(GemcoreEmulator) as (emulator, line):
            assert (await said(line, FIRMWARE)).startswith("03 06 83")
            assert (await said(line, NOTICES_WITH_ANSWERS)).startswith("03 06 83 00")
            await emulator.insert(Chip(T0))
            assert await said(line, SLOT_STATUS) == "50 03 03 06 81 00 00 00 00 00 02 01 00 00 87"
            assert await said(line, POWER_ON) == "03 06 80 04 00 00 00 00 0C 00 00 00 3B 60 00 00 D6"
            assert await said(line, POWER_OFF) == "03 06 81 00 00 00 00 00 2B 01 00 00 AE"
            await emulator.remove()
            await emulator.remove()
            assert await said(line, SLOT_STATUS) == "50 02 03 06 81 00 00 00 00 00 02 02 00 00 84"
            await emulator.insert(Chip(T1))
            assert (await said(line, POWER_ON)).endswith(
                "03 06 80 09 00 00 00 00 0C 00 00 00 3B E0 00 00 81 31 FE 45 EB BB"
            )
            assert (await said(line, PARAMETERS_1)).startswith("03 06 82 07")
            sized = "03 06 6F 05 00 00 00 00 57 00 00 00 00 C1 01 FE 3E 38"
            assert await said(line, sized) == "03 06 80 05 00 00 00 00 57 00 00 00 00 E1 01 FE 1E D7"

    run(main())


def test_notices_come_at_once_until_the_reader_is_told_otherwise_and_no_more_are_kept_than_that() -> None:
    async def main() -> None:
        async with spoken_to(GemcoreEmulator) as (emulator, line):
            link = line.link
            await emulator.insert(Chip(T0))
            await emulator.remove()
            assert link.take().hex() == "50035002"
            await said(line, NOTICES_WITH_ANSWERS)
            for _ in range(20):
                await emulator.insert(Chip(T0))
                await emulator.remove()
            notices, _, _ = (await said(line, SLOT_STATUS)).partition("03 06")
            assert len(notices.split()) == 2 * NOTICES_KEPT

    run(main())


def test_an_echoing_reader_sends_each_command_back_first() -> None:
    async def main() -> None:
        async with spoken_to(GemcoreEmulator, echo=True) as (_, line):
            assert await said(line, SLOT_STATUS) == f"{SLOT_STATUS} 03 06 81 00 00 00 00 00 02 02 00 00 84"

    run(main())


def test_the_last_answer_comes_again_when_asked_for_and_what_is_damaged_is_refused() -> None:
    async def main() -> None:
        async with spoken_to(GemcoreEmulator) as (emulator, line):
            answer = await said(line, SLOT_STATUS)
            assert await said(line, "03 15 16") == answer
            assert await said(line, SLOT_STATUS[:-2] + "63") == "03 15 16"
            assert len(emulator.seen) == 1
        async with spoken_to(AcsEmulator) as (_, line):
            status = "02 65 00 00 00 00 01 00 00 00 00 64 03"
            answer = "02 81 00 00 00 00 01 00 02 00 00 82 03"
            assert await said(line, status) == f"02 00 00 03 {answer}"
            assert await said(line, "02" + "00" * 11 + "03") == answer
            assert await said(line, status[:-5] + "65 03") == "02 FF FF 03"

    run(main())


def test_slots_of_sams_are_empty_and_unknown_commands_are_refused() -> None:
    async def main() -> None:
        async with spoken_to(GemcoreEmulator) as (_, line):
            other = ENVELOPE.build(Message(Kind.GET_SLOT_STATUS, b"", 3)).hex()
            assert (await said(line, other)).split()[9] == "02"
            powered = ENVELOPE.build(Message(Kind.POWER_ON, b"", 3)).hex()
            assert (await said(line, powered)).split()[9:11] == ["42", "FE"]
            for kind in (Kind.MECHANICAL, Kind.SECURE, Kind.XFR_BLOCK, Kind.POWER_ON):
                assert (await said(line, ENVELOPE.build(Message(kind)).hex())).split()[9] == "42"

    run(main())


@pytest.mark.parametrize(
    ("fault", "begins"),
    [
        (Fault.SLOW, "80 80 80 03 06 80"),
        (Fault.NAK, "03 15 16"),
        (Fault.MUTE, "03 06 80 00 00 00 00 00 0C 41 FE"),
        (Fault.TEAR, "50 02 03 06 80 00 00 00 00 00 0C 42 FE"),
    ],
)
def test_what_goes_wrong_on_request(fault: Fault, begins: str) -> None:
    async def main() -> None:
        async with spoken_to(GemcoreEmulator) as (emulator, line):
            await emulator.insert(Chip(T0))
            emulator.misbehave(fault)
            assert (await said(line, POWER_ON)).startswith(begins)

    run(main())


def test_an_acs_reader_asks_for_time_in_frames() -> None:
    async def main() -> None:
        async with spoken_to(AcsEmulator) as (emulator, line):
            await emulator.insert(Chip(T0))
            emulator.misbehave(Fault.SLOW)
            powered = await said(line, "02 62 00 00 00 00 01 00 00 00 00 63 03")
            waiting = "02 80 00 00 00 00 01 00 80 01 00 00 03"
            atr = "02 80 04 00 00 00 01 00 00 00 00 3B 60 00 00 DE 03"
            assert powered == f"02 00 00 03 {waiting} {waiting} {waiting} {atr}"

    run(main())
