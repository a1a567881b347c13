"""The emulator's end of a line: a pty that stands for a serial device, or a TCP socket; and a bad one of either.

Not modelled: what goes wrong with what the driver writes; baud, parity and the pace of a real line; a pty takes
every setting and heeds none.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
import tty
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from hw.errors import LineGone
from hw.line import CHUNK, DescriptorLink
from sim.faults.grammar import Chooser
from sim.faults.line import AnyLineRule, CorruptLine, Double, Drop, Split, Stall, Unplug
from sim.seed import corrupted

_SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}


BACKLOG = 64
"""Pieces of at most a chunk that an emulator has not read; the oldest go beyond."""


class Line(Protocol):
    """What an emulator needs of its line; `hw.link.Link` has it too."""

    async def read(self) -> bytes:
        """What the driver has sent, as soon as it is at least a byte; raises LineGone when the plug is pulled."""

    async def write(self, data: bytes) -> None:
        """Send all of it to whoever listens."""

    async def close(self) -> None:
        """Pull the plug."""


class FaultyLine:
    """A line on which what goes wrong is said by rules, chosen for each write (``sim.faults.line``)."""

    def __init__(self, line: Line, faults: Chooser[AnyLineRule]) -> None:
        self._line, self.faults = line, faults

    async def read(self) -> bytes:
        """What the driver has sent: nothing goes wrong with that."""
        return await self._line.read()

    async def write(self, data: bytes) -> None:
        """Send it as the rule lets it through, if one applies."""
        line, half = self._line, len(data) // 2
        match self.faults.first(lambda rule: True):
            case Drop():
                pass
            case Split(size=size, seconds=seconds):
                for at in range(0, len(data), size):
                    await line.write(data[at : at + size])
                    await asyncio.sleep(seconds)
            case Double():
                await line.write(data + data)
            case CorruptLine(at=at):
                await line.write(corrupted(data, at, self.faults.random))
            case Stall(seconds=seconds):
                await line.write(data[:half])
                await asyncio.sleep(seconds)
                await line.write(data[half:])
            case Unplug():
                await line.write(data[:half])
                await line.close()
            case _:
                await line.write(data)

    async def close(self) -> None:
        """Pull the plug."""
        await self._line.close()


class PtyLine:
    """A pty: ``path`` is the serial device that the driver opens. Closing it is pulling the plug.

    Its path is no other pty's for as long as this object is there, closed or not: who looks for a reader that was
    pulled out finds nothing under its name, and not somebody else's.
    """

    def __init__(self) -> None:
        master, self._device = pty.openpty()
        # The system gives the number of a pty again once both ends are closed, so this one is not, with the plug.
        weakref.finalize(self, os.close, self._device)
        self.path = os.ttyname(self._device)
        # Raw before anyone opens it, so that nothing is echoed or translated; kept open here, so that the
        # driver may close it and come again. In packet mode the master is told when the driver drops its input.
        tty.setraw(self._device)
        fcntl.ioctl(master, termios.TIOCPKT, struct.pack("i", 1))
        self._link = DescriptorLink(master, self.path, lambda: os.close(master))
        self._coming: deque[bytes] = deque(maxlen=BACKLOG)
        self._heeded = False  # the driver has dropped its input, and asked nothing since
        self._turn = asyncio.Lock()

    @property
    def address(self) -> str:
        """What comes after the driver in the URL of a reader on this line."""
        return f"://{self.path}"

    @property
    def baud(self) -> int:
        """The speed that the driver has set, 0 for an unusual one. The pty itself heeds none."""
        return _SPEEDS.get(termios.tcgetattr(self._device)[5], 0)

    async def read(self) -> bytes:
        """What the driver has sent; see `Line`. Somebody else may wait for it to be `listening` meanwhile."""
        await self._until(lambda: bool(self._coming))
        return self._coming.popleft()

    async def write(self, data: bytes) -> None:
        """Send all of it to whoever has the device open, or will without dropping what was there."""
        await self._link.write(data)

    async def listening(self) -> None:
        """Wait until a driver begins to listen, which is when it drops what it held unread before.

        `hw.reader` does so when it opens the line and at the start of each wait. A driver that asks something has
        dropped it for the answer's sake, which does not count. Raises LineGone when this line is closed.
        """
        await self._until(lambda: self._heeded)
        self._heeded = False

    async def _until(self, there: Callable[[], bool]) -> None:
        """Take what comes until it is there, in turns with whoever waits for something else."""
        while not there():
            async with self._turn:
                if not there():
                    self._take(await self._link.read())

    def _take(self, packet: bytes) -> None:
        """One packet, which is either what the driver has written, or what it has done (tty_ioctl(4), TIOCPKT)."""
        if packet[0] == termios.TIOCPKT_DATA:
            if len(packet) > 1:  # what was dropped the moment before is told as nothing
                self._coming.append(packet[1:])
                self._heeded = False
        elif packet[0] & termios.TIOCPKT_FLUSHREAD:
            self._heeded = True

    async def close(self) -> None:
        """Pull the plug: the device is gone for the driver."""
        await self._link.close()


class SocketLine:
    """A TCP port on loopback, once opened. Closing it is pulling the plug."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._peers: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}
        self._connected = asyncio.Event()
        self._coming: deque[bytes] = deque(maxlen=BACKLOG)
        self._came = asyncio.Event()
        self._open = True

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        """The port that it listens on, once open."""
        assert self._server is not None
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    @property
    def address(self) -> str:
        """What comes after the driver in the URL of a reader on this line."""
        return f"+socket://127.0.0.1:{self.port}"

    async def listening(self) -> None:
        """Wait until somebody is connected. Whether they wait for a card, a socket does not tell."""
        await self._connected.wait()

    async def read(self) -> bytes:
        """What anyone who is connected has sent; see `Line`."""
        while not self._coming:
            if not self._open:
                raise LineGone("the emulator's line is closed")
            self._came.clear()
            await self._came.wait()
        return self._coming.popleft()

    async def write(self, data: bytes) -> None:
        """Send all of it to everyone who is connected."""
        for peer in tuple(self._peers.values()):
            peer.write(data)
            with suppress(ConnectionError):
                await peer.drain()

    async def close(self) -> None:
        """Stop listening and hang up."""
        self._open = False
        self._came.set()
        if self._server is not None:
            self._server.close()
        peers = dict(self._peers)
        for peer in peers.values():
            peer.close()
        await asyncio.gather(*(task for task in peers if task is not None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._peers[task] = writer
        self._connected.set()
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                self._coming.append(data)
                self._came.set()
        del self._peers[task]
        writer.close()
