"""The emulated GemCore reader under pcscd and its own driver for such readers, which know nothing of us."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hw.ccid import Kind
from sim.reader.contact import T0Card, T1Card
from sim.reader.gemcore import on_pty
from tests.hw.contact import FCI, LONG, T0, T1, Chip
from tests.hw.pcscd import pcscd, scriptor

SELECT = "00A404000E315041592E5359532E4444463031"
MAKES = [("GemCorePOSPro", False), ("GemPCTwin", True)]
"""Names of readers to libccidtwin, and whether they echo."""


@pytest.mark.parametrize(("make", "echo"), MAKES)
def test_pcscd_powers_a_card_and_selects_an_application_in_t0(tmp_path: Path, make: str, echo: bool) -> None:
    async def main() -> None:
        async with on_pty(echo=echo) as emulated:
            await emulated.reader.insert(Chip(T0))
            async with pcscd(tmp_path, f"{emulated.line.path}:{make}") as reader:
                fetch = f"00C00000{len(FCI):02X}"
                said = await scriptor(tmp_path, reader, 0, SELECT, fetch, "00B2010C00", "00B2010CFD")
                assert said == [f"61{len(FCI):02x}", FCI.hex() + "9000", "6cfd", LONG.hex() + "9000"]
                half = emulated.reader.card
                assert isinstance(half, T0Card)
                half.nulls = 3
                assert await scriptor(tmp_path, reader, 0, "000E0000021234") == ["6102"]
                assert emulated.reader.card is half  # so it did ask for time
            assert Kind.SET_PARAMETERS in [message.kind for message in emulated.reader.seen]

    asyncio.run(main())


@pytest.mark.parametrize(("make", "echo"), MAKES)
def test_pcscd_powers_a_card_and_selects_an_application_in_t1(tmp_path: Path, make: str, echo: bool) -> None:
    async def main() -> None:
        async with on_pty(echo=echo) as emulated:
            await emulated.reader.insert(Chip(T1))
            async with pcscd(tmp_path, f"{emulated.line.path}:{make}") as reader:
                said = await scriptor(tmp_path, reader, 1, SELECT + "00", "00B2010C00", "00B2020C00")
                assert said == [FCI.hex() + "9000", LONG.hex() + "9000", "6a83"]
                half = emulated.reader.card
                assert isinstance(half, T1Card)
                half.wtx = [2, 1]
                assert await scriptor(tmp_path, reader, 1, "000E0000021234") == ["12349000"]
                assert half.wtx == []
            blocks = [message.data for message in emulated.reader.seen if message.kind is Kind.XFR_BLOCK]
            assert blocks[0].hex() == "00c101fe3e"
            assert any(block[:2] == b"\x00\xe3" for block in blocks)

    asyncio.run(main())
