"""An NXP PN532 on its serial port, emulated, with cards that are tapped, taken away and torn out of its field.

The frames are those of `hw.pn532_frames`; that they are NXP's is tested against published ones, and by libnfc and
nfcpy, which know nothing of us. Like the chip it sleeps until it is woken, and acknowledges, repeats and calls off.
It also misbehaves on request. Not modelled: the pace of its line, and what `sim.reader.pn532_chip` names.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hw import pn532_frames as frames
from hw.errors import LineGone
from hw.pn532_targets import TYPE_A
from sim.reader.line import Line, PtyLine, SocketLine
from sim.reader.pn532_chip import Chip, TappedCard

NOISE: Final = b"\xff\x00\x00\xfe\x80\x7f\x00\x00\xff\x33\x55"
"""What a bad contact makes: odd bytes, and beginnings of frames that never were."""
WAKING: Final = 9
"""Bytes that the chip loses while it wakes up; libnfc sends 16 before its first command, nfcpy 10."""


class Fault(StrEnum):
    """What may go wrong with a command."""

    GARBAGE = "garbage"
    """Noise comes right before the ACK."""
    SPLIT = "split"
    """ACK and answer come a byte at a time."""
    JOINED = "joined"
    """ACK and answer come in one piece."""
    BAD_CHECKSUM = "bad-checksum"
    """The answer's checksum is wrong; asked again, it is right."""
    LOST_ACK = "lost-ack"
    """The ACK does not come, the answer does."""
    SLOW_CARD = "slow-card"
    """The answer takes its time, ``slowness`` seconds."""
    SILENCE = "silence"
    """Nothing comes at all."""
    UNPLUG = "unplug"
    """The plug is pulled when half of the answer is out."""


class Pn532Emulator:
    """A chip at the end of a line, once it `run`s."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._framer = frames.Framer()
        self.chip = Chip()
        self._faults: list[tuple[Fault, int | None]] = []
        self._job: asyncio.Task[None] | None = None
        self._last = b""
        self.slowness = 2.0
        self.heard: deque[bytes] = deque(maxlen=1000)
        """The last frames that the host has sent."""

    def tap(self, card: TappedCard, kind: int = TYPE_A) -> None:
        """Hold a card into the field; more than one is a customer with a wallet."""
        self.chip.tap(card, kind)

    def remove(self) -> None:
        """Take all cards away."""
        self.chip.cards.clear()

    def tear(self) -> None:
        """Take all cards away in the middle of the next APDU."""
        self.chip.tear()

    def misbehave(self, fault: Fault, on: int | None = None, times: int = 1) -> None:
        """Do so with the next command, or the next with this code."""
        self._faults += [(fault, on)] * times

    async def run(self) -> None:
        """Answer until the plug is pulled."""
        with suppress(LineGone):
            try:
                while True:
                    await self._hear(await self._line.read())
            finally:
                self._drop_job()

    async def _hear(self, data: bytes) -> None:
        chip = self.chip
        if getattr(self._line, "baud", chip.baud) not in (chip.baud, chip.next_baud):
            return  # at another speed it is noise
        if chip.asleep:
            chip.asleep, data = False, data[WAKING:]
        for frame in self._framer.feed(data):
            self.heard.append(frame)
            if frame == frames.ACK:
                self._drop_job()
                if chip.next_baud is not None:
                    chip.baud, chip.next_baud = chip.next_baud, None
            elif frame == frames.NACK:
                await self._line.write(self._last)
            elif frame != frames.BROKEN:
                await self._obey(frame)

    def _drop_job(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None

    async def _obey(self, frame: bytes) -> None:
        payload = frames.payload(frame)
        if payload[0] != frames.FROM_HOST:
            return
        self._drop_job()
        fault = self._fault(payload[1])
        if fault is Fault.SILENCE:
            return
        if fault is Fault.GARBAGE:
            await self._line.write(NOISE)
        if fault not in (Fault.LOST_ACK, Fault.JOINED):
            await self._write(frames.ACK, fault)
        self._job = asyncio.create_task(self._answer(payload[1], payload[2:], fault))

    def _fault(self, code: int) -> Fault | None:
        for number, (fault, on) in enumerate(self._faults):
            if on in (None, code):
                del self._faults[number]
                return fault
        return None

    async def _answer(self, code: int, data: bytes, fault: Fault | None) -> None:
        if fault is Fault.SLOW_CARD:
            await asyncio.sleep(self.slowness)
        said = await self.chip.obey(code, data)
        self._last = answer = frames.answer(code, said) if said is not None else frames.ERROR
        if fault is Fault.BAD_CHECKSUM:
            answer = answer[:-2] + bytes((answer[-2] ^ 0x10,)) + answer[-1:]
        if fault is Fault.JOINED:
            answer = frames.ACK + answer
        with suppress(LineGone):
            if fault is Fault.UNPLUG:
                await self._line.write(answer[: len(answer) // 2])
                await self._line.close()
            else:
                await self._write(answer, fault)

    async def _write(self, frame: bytes, fault: Fault | None) -> None:
        if fault is not Fault.SPLIT:
            await self._line.write(frame)
            return
        for byte in frame:
            await self._line.write(bytes((byte,)))
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Emulated:
    """A chip that is emulated: its URL for the driver, its line, and itself."""

    url: str
    line: PtyLine | SocketLine
    reader: Pn532Emulator


@asynccontextmanager
async def on_pty() -> AsyncIterator[Emulated]:
    """A chip on a pty, for the time of the context."""
    line = PtyLine()
    async with _running(line) as emulated:
        yield emulated


@asynccontextmanager
async def on_socket() -> AsyncIterator[Emulated]:
    """A chip behind a TCP socket on loopback, for the time of the context."""
    line = SocketLine()
    await line.open()
    async with _running(line) as emulated:
        yield emulated


@asynccontextmanager
async def _running(line: PtyLine | SocketLine) -> AsyncIterator[Emulated]:
    reader = Pn532Emulator(line)
    running = asyncio.create_task(reader.run())
    try:
        yield Emulated(f"pn532{line.address}", line, reader)
    finally:
        await line.close()
        await running
