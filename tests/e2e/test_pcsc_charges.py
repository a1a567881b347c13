"""`till charge --reader pcsc://` behind a real pcscd, by insert and by tap, with cards in vpcd."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from sim.card import inserted, tapped
from sim.reader.vpcd import VpcdReader
from tests.e2e.hosted import DEADLINE, Home, host, pair_beforehand, provisioned, said
from tests.hw.test_pcsc_pcscd import NAME, free_port, served

CHARGE = ("charge", "12.50", "--reader", f"pcsc://{NAME}*")


async def insert(reader: VpcdReader, name: str) -> None:
    await reader.insert(inserted(name))


async def tap(reader: VpcdReader, name: str) -> None:
    await reader.tap(tapped(name))


WAYS: list[tuple[Callable[[VpcdReader, str], Awaitable[None]], str, str, str]] = [
    (insert, "visa-credit", "chip", "476173******0119"),  # T=0
    (insert, "mastercard-credit", "chip", "541333******0010"),  # T=1
    (tap, "amex", "contactless", "378282*****0005"),
]


def test_charges_by_insert_and_tap_and_a_card_that_is_pulled(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, free_port()) as reader:
            with host(tmp_path / "host") as url:
                till = Home(tmp_path / "home", url)
                pair_beforehand(url, provisioned(url, till.path))
                await asyncio.to_thread(till.run, "activate")
                for present, name, entry_mode, masked_pan in WAYS:
                    with till.running(*CHARGE) as process:
                        await asyncio.to_thread(said, process, "card_wanted")
                        await present(reader, name)
                        payment = (await asyncio.to_thread(said, process, "result"))["payment"]
                        assert await asyncio.to_thread(process.wait, DEADLINE) == 0
                    assert (payment["state"], payment["entry_mode"]) == ("approved", entry_mode)
                    assert payment["masked_pan"] == masked_pan
                    await reader.remove()
                with till.running(*CHARGE) as process:
                    await asyncio.to_thread(said, process, "card_wanted")
                    reader.tear()
                    await insert(reader, "visa-credit")
                    refused = await asyncio.to_thread(said, process, "card_refused")
                    assert "taken away" in refused["reason"]
                    await insert(reader, "visa-debit")
                    payment = (await asyncio.to_thread(said, process, "result"))["payment"]
                    assert (payment["state"], payment["masked_pan"]) == ("approved", "476173******0010")

    asyncio.run(main())
