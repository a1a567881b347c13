"""A canary chip is read through every fault with every log and trace on: nothing written shows it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from hw.apdu import Command
from hw.card import ChipCard
from hw.errors import ReaderError
from hw.pan import luhn_digit
from hw.trace import Tracer
from sim.reader.acs import AcsEmulator
from sim.reader.ccid import CcidEmulator, Fault
from sim.reader.gemcore import GemcoreEmulator
from sim.reader.memory import MemoryLine
from sim.virtual_time import run
from tests.hw.contact import T0, T1, Chip, in_memory
from tests.hw.test_secrecy import everything

CANARY = "499900112233445" + luhn_digit("499900112233445")
HOLDER = b"WREN/JENNY"
INNER = CANARY[6:12]
RECORD = Command(0x00, 0xB2, 0x01, 0x0C, le=256)


class Canary(Chip):
    """Its one record holds its number, its track 2 and its holder, and fillers that make the answer long."""

    def transmit(self, apdu: bytes) -> bytes:
        track2 = bytes.fromhex(f"{CANARY}D28122011000012300000F")
        inner = b"\x5a\x08" + bytes.fromhex(CANARY) + b"\x57" + bytes((len(track2),)) + track2
        inner += b"\x5f\x20" + bytes((len(HOLDER),)) + HOLDER
        inner += b"\x9f\x4a\x81\xb0" + bytes(0xB0)
        return b"\x70\x81" + bytes((len(inner),)) + inner + b"\x90\x00"


@pytest.mark.parametrize("make", ["gemcore", "acs"])
@pytest.mark.parametrize("atr", [T0, T1])
@pytest.mark.parametrize("ifsd", [True, False])
def test_nothing_that_is_written_shows_the_card(
    make: str, atr: bytes, ifsd: bool, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    written: list[str] = []
    caplog.set_level(logging.DEBUG)

    async def main(fault: Fault | None) -> None:
        line = MemoryLine()
        emulator: CcidEmulator = GemcoreEmulator(line) if make == "gemcore" else AcsEmulator(line)
        async with in_memory(f"{make}:///dev/ttyUSB0", emulator, line) as reader:
            reader.tracer = Tracer(written.append, asyncio.get_running_loop().time)
            await emulator.insert(Canary(atr))
            card = await reader.wait_for_card(10)
            assert isinstance(card, ChipCard)
            if not ifsd and hasattr(emulator.card, "_ifsd"):
                emulator.card._ifsd = 32  # a card that answers in many small blocks
            emulator.misbehave(*([] if fault is None else [Fault.SPLIT, fault, fault]))
            try:
                answer = await card.transmit(RECORD)
                assert bytes.fromhex(CANARY) in answer.data
                written.append(f"{answer!r} {card!r} {reader!r} {vars(reader)}")
                await card.transmit(RECORD)
            except ReaderError as error:
                written.append(everything(error) + error.advice)

    for fault in (None, *Fault):
        run(main(fault))
    out, err = capfd.readouterr()
    searched = "\n".join([*written, caplog.text, out, err])
    assert "xfr block" in searched
    assert ("499900" in searched) == (make == "acs" or ifsd or atr == T0)  # masked, or in pieces and blank
    for trace in (CANARY, INNER, CANARY.encode().hex(), HOLDER.decode(), "WREN", HOLDER.hex(), HOLDER[:4].hex()):
        assert trace not in searched
