"""A line in memory, with a driver's end and an emulator's: for worlds in one process, on virtual time too.

Not modelled: pace, noise, and anything that a device's settings do.
"""

from __future__ import annotations

import asyncio
from typing import Final

from hw.errors import LineGone
from hw.line import RECEIVE_LIMIT, Link

NAME: Final = "memory:"


class _Queue:
    """Bytes on their way; the oldest go beyond the limit."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.came = asyncio.Event()
        self.open = True

    def put(self, data: bytes) -> None:
        self.held += data
        del self.held[:-RECEIVE_LIMIT]
        self.came.set()

    def take(self) -> bytes:
        data = bytes(self.held)
        self.held.clear()
        return data

    async def get(self) -> bytes:
        await asyncio.sleep(0)
        while not self.held:
            if not self.open:
                raise LineGone(f"{NAME} the device is gone")
            self.came.clear()
            await self.came.wait()
        return self.take()

    def close(self) -> None:
        self.open = False
        self.came.set()


class MemoryLine:
    """The emulator's end. ``link`` is the driver's, which may be closed and taken again; ``baud`` is its speed."""

    def __init__(self) -> None:
        self._out, self._back = _Queue(), _Queue()
        self.baud = 115200
        self.unplugged = False

    @property
    def link(self) -> Link:
        """A driver's end, just opened: what it had not read before is dropped."""
        self._back = _Queue()
        if self.unplugged:
            self._back.close()
        return _MemoryLink(self)

    async def read(self) -> bytes:
        """What the driver has sent; raises LineGone when the plug is pulled."""
        return await self._out.get()

    async def write(self, data: bytes) -> None:
        """Send all of it; raises LineGone when the plug is pulled."""
        if self.unplugged:
            raise LineGone(f"{NAME} the device is gone")
        self._back.put(data)

    async def close(self) -> None:
        """Pull the plug."""
        self.unplugged = True
        self._out.close()
        self._back.close()


class _MemoryLink(Link):
    def __init__(self, line: MemoryLine) -> None:
        super().__init__(NAME)
        self._line, self._in = line, line._back

    async def read(self) -> bytes:
        return await self._in.get()

    def take(self) -> bytes:
        return self._in.take()

    def discard(self) -> None:
        self._in.take()

    def is_gone(self) -> bool:
        return not self._in.open

    async def write(self, data: bytes) -> None:
        if self._line.unplugged or not self._in.open:
            raise LineGone(f"{NAME} the device is gone")
        self._line._out.put(data)

    async def change_baud(self, baud: int) -> None:
        self._line.baud = baud

    async def close(self) -> None:
        self._in.close()
