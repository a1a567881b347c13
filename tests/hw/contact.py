"""Contact readers under test: a chip that answers a few commands, and drivers on lines in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hw.apdu import Command
from hw.card import ChipCard
from hw.ccid import Kind
from hw.ccid_reader import CcidReader
from hw.reader import ReaderEvent, open_reader
from sim.reader.ccid import CcidEmulator, Fault
from sim.reader.gemcore import GemcoreEmulator
from sim.reader.memory import MemoryLine

T0, T1 = bytes.fromhex("3B600000"), bytes.fromhex("3BE000008131FE45EB")
BOTH = bytes.fromhex("3B80800101")
PSE = b"1PAY.SYS.DDF01"
FCI = bytes.fromhex("6F20840E315041592E5359532E4444463031A50E8801015F2D02656E9F110101") + b"\x50\x00"
SELECT = Command(0x00, 0xA4, 0x04, 0x00, PSE, le=256)
LONG = bytes(range(256))[:253]


class Chip:
    """Knows its PSE, a record of 253 bytes and an echo (INS 0E: answers what it is sent); counts its commands."""

    def __init__(self, atr: bytes) -> None:
        self.atr = atr
        self.commands: list[bytes] = []

    def transmit(self, apdu: bytes) -> bytes:
        self.commands.append(apdu)
        command = Command.decode(apdu)
        if command.ins == 0xA4 and command.data == PSE:
            return FCI + b"\x90\x00"
        if command.ins == 0xB2:
            return LONG + b"\x90\x00" if command.p1 == 1 else b"\x6a\x83"
        if command.ins == 0x0E:
            return command.data + b"\x90\x00"
        if command.ins == 0xCA:
            return bytes.fromhex("08010203") + b"\x90\x00"
        return b"\x6d\x00"


@asynccontextmanager
async def in_memory(url: str, emulator: CcidEmulator, line: MemoryLine) -> AsyncIterator[CcidReader]:
    """A driver, open, on the other end of the emulator's line."""

    async def opened(_url: str, *, name: str) -> object:
        link = line.link
        link.name = name
        return link

    life = asyncio.create_task(emulator.run())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("hw.reader.open_link", opened)
        reader = open_reader(url)
        assert isinstance(reader, CcidReader)
        try:
            async with reader:
                yield reader
        finally:
            await line.close()
            await life


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
