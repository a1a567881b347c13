"""Cards for vpcd, spoken to as vpcd does: lengths of two bytes, controls of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sim.reader.vpcd import VpcdReader, contactless_atr
from tests.hw.contact import FCI, SELECT, T0, T1, Chip
from tests.hw.pn532s import Plastic

ATR, POWER_ON, POWER_OFF, RESET = b"\x04", b"\x01", b"\x00", b"\x02"


class Slot:
    """vpcd's end of a slot."""

    def __init__(self) -> None:
        self.connected: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.reader: asyncio.StreamReader
        self.writers: list[asyncio.StreamWriter] = []

    async def come(self) -> None:
        self.reader, writer = await self.connected.get()
        self.writers.append(writer)

    def tell(self, data: bytes) -> None:
        self.writers[-1].write(len(data).to_bytes(2, "big") + data)

    async def ask(self, data: bytes) -> bytes:
        self.tell(data)
        return await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(2), "big"))


@asynccontextmanager
async def slot() -> AsyncIterator[tuple[Slot, VpcdReader]]:
    here = Slot()
    server = await asyncio.start_server(lambda *both: here.connected.put_nowait(both), "127.0.0.1", 0)
    cards = VpcdReader(server.sockets[0].getsockname()[1])
    try:
        yield here, cards
    finally:
        await cards.remove()
        server.close()
        for writer in here.writers:
            writer.close()
            await writer.wait_closed()


def test_a_contact_card_is_powered_and_asked_in_its_protocol() -> None:
    async def main() -> None:
        async with slot() as (here, cards):
            await cards.insert(Chip(T1))
            await here.come()
            assert await here.ask(ATR) == T1
            for control in (POWER_ON, RESET, POWER_OFF):
                here.tell(control)
            assert await here.ask(SELECT.encode()) == FCI + b"\x90\x00"
            await cards.insert(Chip(T0))
            assert await here.reader.read() == b""
            await here.come()
            assert await here.ask(ATR) == T0
            assert await here.ask(SELECT.encode()[:-1]) == bytes((0x61, len(FCI)))
            assert await here.ask(bytes((0, 0xC0, 0, 0, len(FCI)))) == FCI + b"\x90\x00"
            assert await here.ask(b"\x00\xa4\x04\x00\x02\x3f") == b"\x6f\x00"

    asyncio.run(main())


def test_a_tapped_card_has_the_readers_answer_to_reset_and_a_uid() -> None:
    async def main() -> None:
        async with slot() as (here, cards):
            await cards.tap(Plastic())
            await here.come()
            assert await here.ask(ATR) == bytes.fromhex("3b80800101")
            assert await here.ask(bytes.fromhex("ffca000000")) == bytes.fromhex("080102039000")
            assert await here.ask(bytes.fromhex("00b2010c00")) == b"\x6d\x00"

    asyncio.run(main())


def test_a_card_is_torn_away_or_takes_its_time() -> None:
    async def main() -> None:
        async with slot() as (here, cards):
            await cards.insert(Chip(T1))
            await here.come()
            cards.silence()
            here.tell(SELECT.encode())
            cards.speak()
            assert await here.ask(SELECT.encode()) == FCI + b"\x90\x00"
            cards.tear()
            here.tell(SELECT.encode())
            while await here.reader.read(4096):
                pass
            assert len(cards.heard) == 3

    asyncio.run(main())


@pytest.mark.parametrize(
    ("ats", "atr"),
    [
        ("067577810280", "3b8180018080"),  # MIFARE DESFire, as readers show it
        ("7577810280", "3b8180018080"),
        ("0a788070028031806600", "3b858001803180660053"),
        ("0578807000", "3b80800101"),
        ("", "3b80800101"),
    ],
)
def test_the_answer_to_reset_of_a_contactless_card_holds_its_historical_bytes(ats: str, atr: str) -> None:
    assert contactless_atr(bytes.fromhex(ats)).hex() == atr
