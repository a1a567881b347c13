"""What is fuzzed: each serial driver, from the bytes of its line to the card that it hands over.

The first byte of an input chooses the options and whether frames are traced, the next ones what becomes of each
write of the emulated reader (`tests.fuzz.line`). Two cards are presented meanwhile; only errors of `hw.errors` may
come out, or cards. Then the line is good again, and plugged in again where it was pulled: after one wait that
clears what was left, the next card has to be read. All of it is in virtual time, where a driver that waits for ever
is a deadlock, which is an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

import hw.reader
from hw import acs_frames, gemcore_frames, magstripe, pn532_frames, vivopay_frames
from hw.apdu import Command
from hw.card import ChipCard
from hw.ccid import Message
from hw.envelope import Envelope
from hw.errors import FramingError, LineError, ReaderError
from hw.reader import Sale, open_reader
from hw.trace import Tracer
from sim.reader.acs import AcsEmulator
from sim.reader.gemcore import GemcoreEmulator
from sim.reader.magstripe import MagstripeEmulator
from sim.reader.memory import MemoryLine
from sim.reader.pn532 import Pn532Emulator
from sim.reader.vivopay import VivopayEmulator
from sim.virtual_time import run
from tests.fuzz.line import Rebuild, Script, ScriptedLine
from tests.hw.contact import BOTH, T0, T1, Chip
from tests.hw.pn532s import Plastic

RECORD = Command(0x00, 0xB2, 1, 0x0C, le=256)
SELECT = Command(0x00, 0xA4, 4, 0, b"1PAY.SYS.DDF01", le=256)
HELD = 70_000
"""Bytes that a framer may hold: the longest frame of any protocol here, with room."""
SALE = Sale(1250, 978)


@dataclass(frozen=True)
class Target:
    """A driver: its URLs to choose from, its emulator, and how a card is presented to that."""

    urls: tuple[str, ...]
    emulator: Callable[[Any, str], Any]
    present: Callable[[Any, int], Awaitable[None]]
    framers: tuple[Callable[[], Any], ...]
    rebuild: Rebuild
    patience: float = 5.0
    """Seconds for a card while the line is bad."""


async def _waved(reader: Pn532Emulator, number: int) -> None:
    reader.remove()
    await asyncio.sleep(1)
    reader.tap(Plastic(uid=bytes((1, 2, 3, number))))


async def _inserted(reader: AcsEmulator | GemcoreEmulator, number: int) -> None:
    await reader.remove()
    await asyncio.sleep(1)
    await reader.insert(Chip((T1, T0, BOTH)[number % 3]))


async def _swiped(reader: MagstripeEmulator, number: int) -> None:
    await asyncio.sleep(1)
    await reader.swipe(("visa", "mastercard")[number % 2])


async def _to_vivopay(reader: VivopayEmulator, number: int) -> None:
    reader.remove()
    await asyncio.sleep(6)
    reader.tap("visa", as_stripe=bool(number % 2))


async def _into_vivopay(reader: VivopayEmulator, number: int) -> None:
    reader.remove()
    await asyncio.sleep(6)
    reader.insert(("visa", "mastercard")[number % 2])


async def _to_passed(reader: VivopayEmulator, number: int) -> None:
    reader.remove()
    await asyncio.sleep(6)
    reader.tap(Plastic(uid=bytes((1, 2, 3, number))))


def _ccid(envelope: Envelope) -> Rebuild:
    def rebuild(frame: bytes, contents: bytes) -> bytes:
        found = envelope.parse(frame)
        if not isinstance(found, Message):
            raise FramingError("a signal")
        return envelope.build(Message(found.kind, contents, found.slot, found.seq, found.specific))

    return rebuild


def _pn532(frame: bytes, contents: bytes) -> bytes:
    return pn532_frames.build(pn532_frames.parse(frame)[:2] + contents)


def _vivopay(frame: bytes, contents: bytes) -> bytes:
    found = vivopay_frames.parse(frame)
    if not isinstance(found, vivopay_frames.Message):
        raise FramingError("burst mode")
    return vivopay_frames.build_answer(found.command, found.code, contents)


def _none(frame: bytes, contents: bytes) -> bytes:
    raise FramingError("no frame")


TARGETS: Mapping[str, Target] = {
    "acs": Target(
        ("acs:///dev/fuzz", "acs:///dev/fuzz?slot=picc"),
        lambda line, url: AcsEmulator(line, slot="picc" if "picc" in url else "icc"),
        _inserted,
        (acs_frames.ENVELOPE.framer,),
        _ccid(acs_frames.ENVELOPE),
    ),
    "gemcore": Target(
        ("gemcore:///dev/fuzz", "gemcore:///dev/fuzz?echo=yes", "gemcore:///dev/fuzz?echo=no"),
        lambda line, url: GemcoreEmulator(line, echo="echo=yes" in url),
        _inserted,
        (gemcore_frames.ENVELOPE.framer,),
        _ccid(gemcore_frames.ENVELOPE),
    ),
    "magstripe": Target(
        tuple(f"magstripe:///dev/fuzz?format={make}" for make in ("auto", *magstripe.FRAMES)),
        lambda line, url: MagstripeEmulator(line, url.rpartition("=")[2].replace("auto", "magtek")),
        _swiped,
        (magstripe.Framer,),
        _none,
    ),
    "magstripe-setup": Target(
        ("magstripe:///dev/fuzz?setup=idtech", "magstripe:///dev/fuzz?format=idtech&setup=idtech"),
        lambda line, _: MagstripeEmulator(line, "idtech"),
        _swiped,
        (magstripe.Framer,),
        _none,
    ),
    "pn532": Target(
        ("pn532:///dev/fuzz", "pn532:///dev/fuzz?chip_baud=921600"),
        lambda line, _: Pn532Emulator(line),
        _waved,
        (pn532_frames.Framer,),
        _pn532,
    ),
    "vivopay": Target(
        ("vivopay:///dev/fuzz", "vivopay:///dev/fuzz?mode=burst", "vivopay:///dev/fuzz?encrypts=yes"),
        lambda line, url: VivopayEmulator(line, seal="tdes" if "encrypts" in url else None),
        _to_vivopay,
        (vivopay_frames.Framer,),
        _vivopay,
        12.0,
    ),
    "vivopay-contact": Target(
        ("vivopay:///dev/fuzz?mode=contact", "vivopay:///dev/fuzz?mode=contact&encrypts=yes"),
        lambda line, url: VivopayEmulator(line, seal="aes" if "encrypts" in url else None),
        _into_vivopay,
        (vivopay_frames.Framer,),
        _vivopay,
        12.0,
    ),
    "vivopay-apdu": Target(
        ("vivopay:///dev/fuzz?mode=passthrough",),
        lambda line, _: VivopayEmulator(line),
        _to_passed,
        (vivopay_frames.Framer,),
        _vivopay,
        12.0,
    ),
}


def one_input(target: Target, data: bytes) -> None:
    """Run one input; raises what is wrong."""
    framed(target, data)
    opener = hw.reader.open_link
    try:
        run(_course(target, Script(data)))
    finally:
        hw.reader.open_link = opener


def framed(target: Target, data: bytes) -> None:
    """The framer alone: pieces of any size, and memory that stays within its limit."""
    for make in target.framers:
        framer = make()
        for at in range(0, len(data), 7):
            framer.feed(data[at : at + 7])
            held = [each for each in vars(framer).values() if isinstance(each, bytearray | bytes)]
            assert sum(map(len, held)) <= HELD


class _World:
    """The reader's side, plugged in again where it was pulled."""

    def __init__(self, target: Target, url: str, script: Script) -> None:
        self._target, self._url, self._script = target, url, script
        self.plug()

    def plug(self) -> None:
        self.line = MemoryLine()
        scripted = ScriptedLine(self.line, self._script, self._target.rebuild)
        self.reader = self._target.emulator(scripted, self._url)
        self.life = asyncio.create_task(self.reader.run())

    async def unplug(self) -> None:
        await self.line.close()
        await self.life

    async def open_link(self, _url: str, *, name: str) -> Any:
        if self.line.unplugged:
            raise LineError(f"{name}: there is no such port")
        self.line.baud = 115200
        link = self.line.link
        link.name = name
        return link


async def _course(target: Target, script: Script) -> None:
    choice = script.byte()
    url = target.urls[choice % len(target.urls)]
    world = _World(target, url, script)
    hw.reader.open_link = world.open_link
    traced: list[str] = []
    driver = open_reader(url)
    if choice & 0x80:
        driver.tracer = Tracer(traced.append, asyncio.get_running_loop().time)
    try:
        for number in range(2):
            with suppress(ReaderError):
                await _one_card(driver, world, target, number, target.patience)
        script.stop()
        if world.line.unplugged:
            await world.unplug()
            world.plug()
        removed = getattr(world.reader, "remove", None)
        if removed is not None and isawaitable(gone := removed()):
            await gone
        with suppress(ReaderError):  # this clears what was left
            await driver.wait_for_card(3, SALE)
        await _one_card(driver, world, target, 7, 30)
    finally:
        await driver.close()
        await world.unplug()


async def _one_card(driver: Any, world: _World, target: Target, number: int, timeout: float) -> None:
    wait = asyncio.create_task(driver.wait_for_card(timeout, SALE))
    try:
        await asyncio.sleep(0.5)
        with suppress(LineError):
            await target.present(world.reader, number)
        card = await wait
    finally:
        wait.cancel()
        await asyncio.wait((wait,))
        if not wait.cancelled():
            wait.exception()
    repr(card)
    if isinstance(card, ChipCard):
        for command in (SELECT, RECORD):
            with suppress(ReaderError):
                await card.transmit(command)
        await card.release()
