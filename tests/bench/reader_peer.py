"""The other processes of the reader's figures: an emulated PN532 that keeps a line's pace, and a driver at rest."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from contextlib import suppress

from hw.errors import TimedOut
from hw.reader import open_reader
from sim.reader.line import Line, PtyLine
from sim.reader.pn532 import Pn532Emulator
from tests.hw.pn532s import Plastic

FIFO = 16
"""Bytes that a UART hands over at a time."""
SPINS = 0.0003
"""Seconds before the time is up from which on it is looked at the clock alone."""
THINKING = 0.002
"""Seconds at most that the emulator may take to find its answer, and that the line does not: the chip it stands for
has it at once."""
SETTLING = 2.0
"""Seconds until a driver has opened its reader and waits."""


class PacedLine:
    """A line on which each byte takes its time, ten bits of it: it is there when a real one would be."""

    def __init__(self, line: Line, baud: int) -> None:
        self._line, self._byte = line, 10 / baud
        self._in = self._out = 0.0

    async def read(self) -> bytes:
        data = await self._line.read()
        self._in = max(time.perf_counter(), self._in) + len(data) * self._byte
        _hold(self._in)
        return data

    async def write(self, data: bytes) -> None:
        for at in range(0, len(data), FIFO):
            piece = data[at : at + FIFO]
            began = max(time.perf_counter() - THINKING, self._in, self._out)
            self._out = began + len(piece) * self._byte
            _hold(self._out)
            await self._line.write(piece)

    async def close(self) -> None:
        await self._line.close()


def _hold(until: float) -> None:
    """The loop is held as well: nothing else is to do, and it would come back later than it was told."""
    while (left := until - time.perf_counter()) > 0:
        if left > SPINS:
            time.sleep(left - SPINS)


async def emulate(baud: int, size: int) -> None:
    """A chip with a card that answers ``size`` bytes; its device is printed, and it lives until stdin is closed."""
    line = PtyLine()
    chip = Pn532Emulator(PacedLine(line, baud))
    chip.tap(Plastic(says=lambda _: bytes(size - 2) + b"\x90\x00"))
    running = asyncio.create_task(chip.run())
    print(line.path, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await line.close()
    await running


async def rest(url: str, seconds: float) -> None:
    """Wait for a card that does not come; print the share of a core that this took, in percent."""
    async with open_reader(url) as reader:
        with suppress(TimedOut):
            await reader.wait_for_card(SETTLING)
        wait = asyncio.create_task(reader.wait_for_card(None))
        await asyncio.sleep(SETTLING)
        before, began = _used(), time.perf_counter()
        await asyncio.sleep(seconds)
        print(100 * (_used() - before) / (time.perf_counter() - began), flush=True)
        wait.cancel()
        await asyncio.wait((wait,))


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    what, first, second = sys.argv[1:]
    asyncio.run(emulate(int(first), int(second)) if what == "emulate" else rest(first, float(second)))
