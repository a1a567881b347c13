"""The link over pyserial's RFC 2217 client, which knows only blocking calls: a thread reads, and is waited for."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, Final

from hw.line import CHUNK, RECEIVE_LIMIT, Link

_log = logging.getLogger(__name__)

POLL: Final = 0.5
"""Seconds after which the thread of a silent line looks whether it is still wanted."""


def mend(port: Any) -> None:
    """Make the thread of a pyserial RFC 2217 port, not open yet, end well when the server goes away.

    As it is (3.5) it dies loudly of an answer that cannot be sent any more, and of telnet that makes no sense;
    it leaves a blocked read waiting, and its socket open.
    """
    telnet_loop = port._telnet_read_loop

    def ending_well() -> None:
        socket = port._socket
        try:
            telnet_loop()
        except Exception:  # whatever it was, this line is over, and whoever reads is told so
            _log.debug("the RFC 2217 client ended", exc_info=True)
        finally:
            port._read_buffer.put(None)
            socket.close()

    port._telnet_read_loop = ending_well


class Rfc2217Link(Link):
    """pyserial's RFC 2217 client, whose blocking reads a thread does."""

    def __init__(self, port: Any, name: str, peer: str = "") -> None:
        super().__init__(name, peer)
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._held = bytearray()
        self._over = self._shut = False
        self._came = asyncio.Event()
        self._thread = threading.Thread(target=self._pump, name=f"rfc2217 {name}", daemon=True)
        self._thread.start()

    def _pump(self) -> None:
        while not self._over:
            try:
                data = self._port.read(1)
                data += self._port.read(min(self._port.in_waiting, CHUNK)) if data else b""
            except (OSError, AttributeError):  # AttributeError: pyserial's own race between close and read
                self._over = True
                data = b""
            with self._lock:
                self._held += data
                del self._held[:-RECEIVE_LIMIT]
            if data or self._over:
                try:
                    self._loop.call_soon_threadsafe(self._came.set)
                except RuntimeError:  # the loop ended and nobody closed us
                    return

    async def read(self) -> bytes:
        """See Link."""
        await asyncio.sleep(0)
        while not (data := self.take()):
            if self._shut:
                raise self._closed()
            if self._over:
                raise self._gone()
            self._came.clear()
            with self._lock:
                empty = not self._held
            if empty and not self._over:
                await self._came.wait()
        return data

    def take(self) -> bytes:
        """See Link."""
        with self._lock:
            data = bytes(self._held[:CHUNK])
            del self._held[:CHUNK]
        return data

    def discard(self) -> None:
        """See Link."""
        with self._lock:
            self._held.clear()

    def is_gone(self) -> bool:
        """See Link."""
        return self._over

    async def write(self, data: bytes) -> None:
        """See Link."""
        if self._shut:
            raise self._closed()
        try:
            await asyncio.to_thread(self._port.write, data)
        except OSError:
            raise self._gone() from None

    async def close(self) -> None:
        """See Link."""
        if not self._shut:
            self._shut = self._over = True
            self.discard()
            self._came.set()
            await asyncio.to_thread(self._port.close)
            await asyncio.to_thread(self._thread.join)
