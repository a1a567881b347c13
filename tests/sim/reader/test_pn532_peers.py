"""The PN532's emulator under drivers that are not ours: libnfc and nfcpy, as they come from Debian and PyPI."""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

from hw import pn532_frames as frames
from sim.reader.pn532 import on_pty
from sim.reader.pn532_chip import TYPE_B
from tests.hw.peers import program
from tests.hw.pn532s import FCI, PPSE, Plastic

LONG = bytes(number % 251 for number in range(254)) + b"\x90\x00"
READ = bytes.fromhex("00b2010c00")


def says(command: bytes) -> bytes:
    return {0xA4: FCI, 0xB2: LONG}.get(command[1], b"\x6d\x00")


def missing(what: str) -> None:
    """Without a peer the test is skipped, or, where TILL_REQUIRE_PEERS is set, fails."""
    if os.environ.get("TILL_REQUIRE_PEERS"):
        pytest.fail(what)
    pytest.skip(what)


async def said(*words: str, **environment: str) -> str:
    """What a peer prints, and that it ended well."""
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    async with asyncio.timeout(60):
        printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


def test_nfc_list_sees_the_card():
    nfc_list = program("nfc-list")

    async def main() -> None:
        async with on_pty() as emulated:
            emulated.reader.tap(Plastic())
            text = re.sub(r"  +", " ", await said(nfc_list, LIBNFC_DEVICE=f"pn532_uart:{emulated.line.path}"))
            assert "1 ISO14443A passive target(s) found" in text
            assert "UID (NFCID3): 08 01 02 03" in text
            assert "SAK (SEL_RES): 20" in text
            assert "ATS: 78 80 70 00" in text
            emulated.reader.remove()
            text = await said(nfc_list, LIBNFC_DEVICE=f"pn532_uart:{emulated.line.path}")
            assert "UID" not in text

    asyncio.run(main())


def test_nfc_list_sees_long_numbers_and_type_b():
    nfc_list = program("nfc-list")

    async def main() -> None:
        async with on_pty() as emulated:
            emulated.reader.tap(Plastic(uid=bytes.fromhex("04112233445566")))
            emulated.reader.tap(Plastic(uid=b"\x11\x22\x33\x44"), TYPE_B)
            text = re.sub(r"  +", " ", await said(nfc_list, LIBNFC_DEVICE=f"pn532_uart:{emulated.line.path}"))
            assert "UID (NFCID1): 04 11 22 33 44 55 66" in text
            assert "1 ISO14443B passive target(s) found" in text
            assert "PUPI: 11 22 33 44" in text

    asyncio.run(main())


def test_libnfc_exchanges_apdus():
    try:
        ctypes.CDLL("libnfc.so.6")
    except OSError:
        missing("libnfc is not installed: apt-get install libnfc-bin")

    async def main() -> None:
        async with on_pty() as emulated:
            plastic = Plastic(says=says)
            emulated.reader.tap(plastic)
            script = str(Path(__file__).with_name("libnfc_peer.py"))
            text = await said(sys.executable, script, emulated.line.path, PPSE.hex(), READ.hex())
            assert text.split() == [FCI.hex(), LONG.hex()]
            assert plastic.asked == [PPSE, READ]
            assert frames.command(frames.IN_DATA_EXCHANGE, b"\1" + PPSE) in emulated.reader.heard

    asyncio.run(main())


def test_nfcpy_sees_the_card_and_exchanges_apdus_in_raw_blocks_at_another_speed():
    if importlib.util.find_spec("nfc") is None:
        missing("nfcpy is not installed: pip install nfcpy")

    async def main() -> None:
        async with on_pty() as emulated:
            plastic = Plastic(says=says)
            emulated.reader.tap(plastic)
            script = str(Path(__file__).with_name("nfcpy_peer.py"))
            long = bytes.fromhex("00da0000") + b"\xfe" + bytes(254)
            text = await said(sys.executable, script, emulated.line.path, PPSE.hex(), READ.hex(), long.hex())
            assert text.split() == ["08010203", FCI.hex(), LONG.hex(), "6d00", "True"]
            assert plastic.asked == [PPSE, READ, long]
            heard = emulated.reader.heard
            assert frames.command(frames.IN_COMMUNICATE_THRU, b"\2" + PPSE) in heard
            assert frames.command(frames.SET_SERIAL_BAUD_RATE, b"\7") in heard
            assert emulated.reader.chip.baud == 115200

    asyncio.run(main())
