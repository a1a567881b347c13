"""A device pulled out in open, in read, in write and between two APDUs, and back under another name."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from hw.apdu import Command
from hw.card import ChipCard
from hw.errors import LineError, LineGone
from hw.finding import Port
from hw.link import open_link
from hw.reader import ReaderBack, ReaderEvent, ReaderGone, open_reader
from sim.reader import acs, ccid, gemcore, pn532
from sim.reader.line import PtyLine
from tests.hw.contact import SELECT, T1, Chip
from tests.hw.pn532s import PPSE, Plastic


@dataclass(frozen=True)
class Kind:
    """A driver's emulator, how a card comes to it, how its plug is pulled by the next answer, and what is asked."""

    make: Callable[[], AbstractAsyncContextManager[Any]]
    present: Callable[[Any], Awaitable[None]]
    cut: Callable[[Any], None]
    ask: Command


async def tapped(reader: pn532.Pn532Emulator) -> None:
    reader.tap(Plastic())


async def inserted(reader: ccid.CcidEmulator) -> None:
    await reader.insert(Chip(T1))


KINDS = {
    "pn532": Kind(pn532.on_pty, tapped, lambda reader: reader.misbehave(pn532.Fault.UNPLUG), Command.decode(PPSE)),
    "gemcore": Kind(gemcore.on_pty, inserted, lambda reader: reader.misbehave(ccid.Fault.UNPLUG), SELECT),
    "acs": Kind(acs.on_pty, inserted, lambda reader: reader.misbehave(ccid.Fault.UNPLUG), SELECT),
}


async def in_open(kind: Kind, here: Any, reader: Any) -> None:
    await reader.close()
    kind.cut(here.reader)
    await reader.open()


async def in_a_wait(kind: Kind, here: Any, reader: Any) -> None:
    kind.cut(here.reader)
    await reader.wait_for_card(10)


async def in_a_write(kind: Kind, here: Any, reader: Any) -> None:
    """The descriptor is open and the device gone: what is written is refused."""
    card = await presented(kind, here, reader)
    await here.line.close()
    await card.transmit(kind.ask)


async def in_an_apdu(kind: Kind, here: Any, reader: Any) -> None:
    card = await presented(kind, here, reader)
    kind.cut(here.reader)
    await card.transmit(kind.ask)


async def between_two_apdus(kind: Kind, here: Any, reader: Any) -> None:
    card = await presented(kind, here, reader)
    assert (await card.transmit(kind.ask)).ok
    await here.line.close()
    try:
        await card.transmit(kind.ask)
    finally:
        await card.release()


async def presented(kind: Kind, here: Any, reader: Any) -> ChipCard:
    await kind.present(here.reader)
    card = await reader.wait_for_card(10)
    assert isinstance(card, ChipCard)
    return card


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("when", [in_open, in_a_wait, in_a_write, in_an_apdu, between_two_apdus])
def test_it_is_told_once_and_goes_on_under_its_new_name(
    name: str, when: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, told = KINDS[name], list[type[ReaderEvent]]()

    async def main() -> None:
        async with kind.make() as first, kind.make() as second:
            assert isinstance(first.line, PtyLine)
            paths = [first.line.path]
            monkeypatch.setattr("hw.finding.ports", lambda: tuple(usb(path) for path in paths))
            async with open_reader(first.url) as reader:
                reader.on_event = lambda event: told.append(type(event))
                with pytest.raises(LineGone, match="gone") as caught:
                    await when(kind, first, reader)
                await first.line.close()
                assert "Plug the reader in again" in caught.value.advice
                paths.clear()
                with pytest.raises(LineError, match="there is no such port"):
                    await reader.wait_for_card(10)
                paths.append(second.line.path)
                await kind.present(second.reader)
                card = await reader.wait_for_card(10)
                assert isinstance(card, ChipCard)
                assert (await card.transmit(kind.ask)).ok
                await card.release()
            lost = [event for event in told if event in (ReaderGone, ReaderBack)]
            assert lost == [ReaderGone, ReaderBack]

    asyncio.run(main())


def usb(path: str) -> Port:
    return Port(path, 0x0403, 0x6001, "A1", "1-1")


def test_a_line_whose_rts_cannot_be_set_is_a_line_all_the_same() -> None:
    async def main() -> None:
        master, device = pty.openpty()
        with pytest.raises(OSError, match="ioctl for device") as refused:
            fcntl.ioctl(device, termios.TIOCMBIS, struct.pack("I", termios.TIOCM_RTS))
        assert refused.value.errno == errno.ENOTTY
        for flow in ("none", "rtscts"):
            link = await open_link(f"{os.ttyname(device)}?flow={flow}")
            await link.write(b"there")
            assert os.read(master, 10) == b"there"
            await link.close()
        os.close(device)
        os.close(master)

    asyncio.run(main())
