"""The PC/SC driver under a real pcscd, with cards in vpcd, the virtual reader of vsmartcard.

Debian: pcscd, vsmartcard-vpcd; and pyscard, which is built from PyPI with libpcsclite-dev and swig.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hw.apdu import Command
from hw.card import ChipCard, EntryMode
from hw.errors import CardGone, LineError, LineGone
from hw.pcsc import PcscReader
from hw.reader import CardInserted, CardRemoved, ReaderBack, ReaderEvent, ReaderGone, open_reader
from sim.reader.vpcd import VpcdReader
from tests.hw.contact import FCI, LONG, SELECT, T0, T1, Chip
from tests.hw.pcscd import pcscd
from tests.hw.peers import until
from tests.hw.pn532s import FCI as PPSE_FCI
from tests.hw.pn532s import PPSE, Plastic

VPCD = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
NAME = "Tillwright"


def required() -> None:
    """Skip the test, or, where TILL_REQUIRE_PEERS is set, let it fail, unless its peers are there."""
    missing = "" if VPCD.exists() else f"{VPCD} is not installed: apt-get install vsmartcard-vpcd"
    if importlib.util.find_spec("smartcard") is None:
        missing = "pyscard is not installed: apt-get install libpcsclite-dev swig; pip install pyscard"
    if missing and os.environ.get("TILL_REQUIRE_PEERS"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def free_port() -> int:
    """A port that is free, as is the next one: vpcd takes one for each of its two slots."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port


@asynccontextmanager
async def served(directory: Path, port: int) -> AsyncIterator[VpcdReader]:
    """pcscd with the virtual reader; the side of whoever holds its cards."""
    required()
    async with pcscd(directory, f"/dev/null:{port:#06x}", VPCD, NAME):
        emulated = VpcdReader(port)
        try:
            yield emulated
        finally:
            emulated.speak()
            await emulated.remove()


def named(pattern: str = f"{NAME}*") -> tuple[PcscReader, list[type[ReaderEvent]]]:
    reader = open_reader(f"pcsc://{pattern}")
    assert isinstance(reader, PcscReader)
    events: list[type[ReaderEvent]] = []
    reader.on_event = lambda event: events.append(type(event))
    return reader, events


async def taken(reader: PcscReader) -> ChipCard:
    card = await reader.wait_for_card(60)
    assert isinstance(card, ChipCard)
    return card


@asynccontextmanager
async def plugged_in(directory: Path) -> AsyncIterator[tuple[VpcdReader, PcscReader, list[type[ReaderEvent]]]]:
    """The virtual reader at a service of its own, and its driver, open, with what that tells."""
    async with served(directory, free_port()) as emulated:
        reader, events = named()
        async with reader:
            yield emulated, reader, events


async def inserted(emulated: VpcdReader, reader: PcscReader) -> ChipCard:
    """A card goes in, and is taken."""
    await emulated.insert(Chip(T1))
    return await taken(reader)


def test_cards_of_t0_and_t1_and_without_contacts_through_the_real_service(tmp_path: Path) -> None:
    async def main() -> None:
        async with plugged_in(tmp_path) as (emulated, reader, events):
            assert reader.reader_name == f"{NAME} 00 00"
            for atr in (T0, T1):
                wait = asyncio.create_task(taken(reader))
                chip = Chip(atr)
                await emulated.insert(chip)
                card = await wait
                assert (card.entry_mode, card.answer) == (EntryMode.CHIP, atr)
                assert (await card.transmit(SELECT)).data == FCI
                assert (await card.transmit(Command(0x00, 0xB2, 1, 0x0C, le=256))).data == LONG
                assert (await card.transmit(Command(0x00, 0xB2, 2, 0x0C, le=256))).sw == 0x6A83
                await card.release()
                await emulated.remove()
            plastic = Plastic()
            await emulated.tap(plastic)
            card = await taken(reader)
            assert (card.entry_mode, card.uid) == (EntryMode.CONTACTLESS, plastic.uid)
            assert card.answer.hex() == "3b80800101"
            assert (await card.transmit(Command.decode(PPSE))).data == PPSE_FCI[:-2]
        assert emulated.heard[0][-1:] == b"1"  # T=0: no Le behind the data
        assert events == [CardInserted, CardRemoved] * 2 + [CardInserted]

    asyncio.run(main())


def test_a_card_that_is_pulled_in_the_middle_of_a_command_is_gone_and_the_next_is_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with plugged_in(tmp_path) as (emulated, reader, _):
            card = await inserted(emulated, reader)
            emulated.tear()
            for _ in range(2):
                with pytest.raises(CardGone):
                    await card.transmit(SELECT)
            wait = asyncio.create_task(taken(reader))
            await emulated.insert(Chip(T1))
            assert (await (await wait).transmit(SELECT)).data == FCI

    asyncio.run(main())


def test_a_wait_is_called_off_and_a_card_in_use_is_busy(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, free_port()) as emulated:
            reader, _ = named()
            other, _ = named()
            async with reader, other:
                for _ in range(3):
                    wait = asyncio.create_task(reader.wait_for_card(None))
                    await asyncio.sleep(0)
                    wait.cancel()
                    await asyncio.wait((wait,))
                    assert wait.cancelled()
                card = await inserted(emulated, reader)
                with pytest.raises(LineError, match="another program holds the card"):
                    await taken(other)
                await card.release()
                assert (await (await taken(other)).transmit(SELECT)).data == FCI

    asyncio.run(main())


def test_a_service_that_dies_is_a_reader_gone_and_comes_back_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        reader, events = named()
        try:
            for name in ("first", "second"):
                (tmp_path / name).mkdir()
            async with served(tmp_path / "first", port):
                await reader.open()
                wait = asyncio.create_task(taken(reader))
                await asyncio.sleep(0)
            with pytest.raises(LineError):
                await wait
            with pytest.raises(LineError, match="not running"):
                await taken(reader)
            async with served(tmp_path / "second", port) as emulated:
                card = await inserted(emulated, reader)
                assert (await card.transmit(SELECT)).data == FCI
                assert events == [ReaderGone, ReaderBack, CardInserted]
                await reader.close()
        finally:
            await reader.close()

    asyncio.run(main())


def test_the_service_stops_between_two_commands(tmp_path: Path) -> None:
    async def main() -> None:
        reader, events = named()
        async with served(tmp_path, free_port()) as emulated:
            card = await inserted(emulated, reader)
        with pytest.raises(LineGone):
            await card.transmit(SELECT)
        assert events == [CardInserted, ReaderGone]
        await reader.close()

    asyncio.run(main())


def test_a_command_that_is_called_off_holds_up_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with plugged_in(tmp_path) as (emulated, reader, _):
            card = await inserted(emulated, reader)
            emulated.silence()
            asking = asyncio.create_task(card.transmit(SELECT))
            await until(lambda: emulated.heard)
            asking.cancel()
            await asyncio.wait((asking,))
            assert asking.cancelled()
            emulated.speak()
            assert (await card.transmit(SELECT)).data == FCI

    asyncio.run(main())
