"""An open line: bytes in, bytes out. The interface, and the link over a descriptor that serves most of them.

Nothing is read ahead. Bytes wait where the system keeps them: 4 KiB for a serial device (the kernel drops what
comes on top), the receive window for a socket (the sender is held). A link that has to read in a thread needs room
of its own: `RECEIVE_LIMIT` bytes, beyond which the oldest go.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final

from hw.errors import LineGone, NotSupported

RECEIVE_LIMIT: Final = 65536
"""Bytes that an rfc2217 link holds for its reader; the oldest are dropped beyond."""

CHUNK: Final = 4096
"""Bytes that one read gives at most: what Linux keeps for a serial device."""

_HUNG_UP: Final = getattr(select, "POLLRDHUP", 0)
"""That a socket's peer will send no more, where the system tells it; that a device is gone is told unasked."""


class Link(ABC):
    """A line that is open. One coroutine at a time may read, one may write.

    ``name`` is what errors call it; ``peer`` is the host and port at the other end, where there is a network.
    """

    def __init__(self, name: str, peer: str = "") -> None:
        self.name, self.peer = name, peer

    @abstractmethod
    async def read(self) -> bytes:
        """What has come, as soon as it is at least a byte; raises LineGone when the other end is gone.

        Each call gives the event loop a turn, so that a flood cannot hold off a deadline.
        """

    @abstractmethod
    def take(self) -> bytes:
        """What has come already, without waiting; empty when that is nothing, also when the line is gone."""

    @abstractmethod
    def discard(self) -> None:
        """Drop what has come and was not read."""

    def is_gone(self) -> bool:
        """Whether the other end is known to be gone, without reading; False where only a read would tell."""
        return False

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send all of it; raises LineGone. When cancelled, a part may have left."""

    async def change_baud(self, baud: int) -> None:
        """Go on at another speed, once what was sent is out; NotSupported where that is not ours to set."""
        raise NotSupported(f"{self.name}: this line's speed is set at its other end")

    @abstractmethod
    async def close(self) -> None:
        """Let go of the line; a read or write under way ends with LineGone. Closing twice is once."""

    def _gone(self, why: str = "") -> LineGone:
        said = why and f" ({why})"
        if not self.peer:
            return LineGone(f"{self.name}: the device is gone{said}")
        return LineGone(
            f"{self.name}: the connection is gone{said}",
            advice=f"Check that the serial server or the emulator at {self.peer} runs, and the network to it; "
            "the next try connects anew.",
        )

    def _closed(self) -> LineGone:
        return LineGone(f"{self.name}: the line is closed", advice="Open the reader again.")


class DescriptorLink(Link):
    """A link over a non-blocking file descriptor: a serial device, a pty, a socket.

    ``release`` closes the descriptor, ``flush`` drops what the system holds unread, and ``pace`` sets its speed,
    if it can.
    """

    def __init__(
        self,
        descriptor: int,
        name: str,
        release: Callable[[], None],
        flush: Callable[[], None] | None = None,
        pace: Callable[[int], Awaitable[None]] | None = None,
        peer: str = "",
    ) -> None:
        super().__init__(name, peer)
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._release = release
        self._flush = flush
        self._pace = pace
        self._waits: dict[str, asyncio.Future[None]] = {}
        self._open = True

    async def read(self) -> bytes:
        """See Link."""
        await asyncio.sleep(0)
        while True:
            if not self._open:
                raise self._closed()
            try:
                data = os.read(self._descriptor, CHUNK)
            except BlockingIOError:
                await self._until("readable")
                continue
            except OSError as error:  # EIO is what a serial device says that was pulled out
                raise self._gone(os.strerror(error.errno or errno.EIO)) from None
            if not data:
                raise self._gone()
            return data

    def take(self) -> bytes:
        """See Link."""
        try:
            return os.read(self._descriptor, CHUNK) if self._open else b""
        except OSError:
            return b""

    def discard(self) -> None:
        """See Link."""
        if not self._open:
            return
        if self._flush is not None:
            self._flush()
            return
        for _ in range(RECEIVE_LIMIT // CHUNK):  # a peer that sends without end does not keep us here
            if not self.take():
                break

    def is_gone(self) -> bool:
        """See Link."""
        if not self._open:
            return True
        looked_at = select.poll()
        looked_at.register(self._descriptor, _HUNG_UP)
        return bool(looked_at.poll(0))

    async def write(self, data: bytes) -> None:
        """See Link."""
        left = memoryview(data)
        while left:
            if not self._open:
                raise self._closed()
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                await self._until("writable")
            except OSError as error:
                raise self._gone(os.strerror(error.errno or errno.EIO)) from None

    async def change_baud(self, baud: int) -> None:
        """See Link."""
        if not self._open:
            raise self._closed()
        if self._pace is None:
            await super().change_baud(baud)
        else:
            await self._pace(baud)
            os.set_blocking(self._descriptor, False)  # pyserial sets its own idea of it along with the speed

    async def close(self) -> None:
        """See Link."""
        if self._open:
            self._open = False
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._descriptor)
            loop.remove_writer(self._descriptor)
            for wait in self._waits.values():
                _wake(wait)
            self._release()

    async def _until(self, ready: str) -> None:
        if ready in self._waits:
            raise RuntimeError(f"{self.name}: two coroutines wait for the line to be {ready}")
        loop = asyncio.get_running_loop()
        wait = self._waits[ready] = loop.create_future()
        watch, leave = {
            "readable": (loop.add_reader, loop.remove_reader),
            "writable": (loop.add_writer, loop.remove_writer),
        }[ready]
        watch(self._descriptor, _wake, wait)
        try:
            await wait
        finally:
            del self._waits[ready]
            if self._open:  # a closed descriptor may be another's by now
                leave(self._descriptor)


def _wake(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)
