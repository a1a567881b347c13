"""One request's connection in ``sim.network``: what is on its way in either direction, and who is still there."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from starlette.types import Message

from sim.host.wire import ConnectionCut

WINDOW = 65_536
"""Bytes that may lie unread in one direction before whoever sends has to wait: about what a socket holds."""

NEVER = math.inf
"""A time that does not come."""


async def pass_time(seconds: float) -> Any:
    """Wait; for ever where it is NEVER, without a timer that would keep the loop going."""
    if seconds == NEVER:
        return await asyncio.get_running_loop().create_future()
    return await asyncio.sleep(seconds)


class Connection:
    """The caller puts the request's body and takes what was said; the application has ``receive`` and ``send``.

    ``back`` is how long what is said is under way, in seconds; ``down_until`` tells when the network will carry
    anything again.
    """

    def __init__(self, back: float, down_until: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._back, self._down_until = back, down_until
        self._there: deque[bytes] = deque()
        self._said: deque[tuple[float, Message | Exception]] = deque()  # with the time at which it arrives
        self._unread = [0, 0]  # bytes there, and back
        self._waiting: list[asyncio.Future[None]] = []
        self._asked = False  # the request is with the application, whole
        self._whole = False  # the request has been sent, whole
        self._ended = False
        self.answered = False
        self.begun = False
        self.gone = False
        self.arrived = False

    # -- the caller's end -----------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether ``put`` need not wait."""
        return self._unread[0] < WINDOW or self._ended

    @property
    def is_heard(self) -> bool:
        """Whether ``next`` need not wait: something has arrived."""
        return bool(self._said) and max(self._said[0][0], self._down_until()) <= self._loop.time()

    async def put(self, piece: bytes) -> bool:
        """Send a piece of the body, once there is room; False when the application reads no more."""
        await self._until(lambda: self.has_room)
        if self._ended:
            return False
        self._there.append(piece)
        self._unread[0] += len(piece)
        self._changed()
        return True

    def fill(self, body: bytes) -> None:
        """Send a whole body at once, however long."""
        if body:
            self._there.append(body)
            self._unread[0] += len(body)
        self.sent()

    def sent(self) -> None:
        """The request's body is whole."""
        self._whole = True
        self._changed()

    async def next(self) -> Message | Exception:
        """What the application said next, when it has arrived."""
        await self._until(lambda: bool(self._said))
        arrives, said = self._said[0]
        while (wait := max(arrives, self._down_until()) - self._loop.time()) > 0:
            await pass_time(wait)
        self._said.popleft()
        if not isinstance(said, Exception):
            self._unread[1] -= len(said.get("body", b""))
            self._changed()
        return said

    def hang_up(self) -> None:
        """The caller listens no more."""
        self.gone = True
        self._changed()

    # -- the application's end ------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """ASGI: the pieces of the body as they come; what was sent is read before a disconnect."""
        if not self._asked:
            await self._until(lambda: bool(self._there) or self._whole or self.gone)
            if self._there or self._whole:
                body = self._there.popleft() if self._there else b""
                self._unread[0] -= len(body)
                self._asked = self._whole and not self._there
                self._changed()
                return {"type": "http.request", "body": body, "more_body": not self._asked}
        await self._until(lambda: self.gone or self.answered)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI: waits while too much is unread; heard by nobody once the caller has gone."""
        if self.answered:
            raise RuntimeError(f"the application said {message['type']} after its answer was whole")
        size = len(message.get("body", b""))
        if size:
            await self._until(lambda: self._unread[1] < WINDOW or self.gone)
        self.answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._unread[1] += size
        self.say(message)

    def say(self, said: Message | Exception) -> None:
        """Put something on the way back. Mistakes of the application's do not travel: they are there at once."""
        if self.gone:
            return
        arrives = self._loop.time()
        if not isinstance(said, Exception) or isinstance(said, ConnectionCut):
            arrives += self._back
        self._said.append((arrives, said))
        self._changed()

    def end(self) -> None:
        """The application has ended, by a cancellation too."""
        self._ended = True
        told = self.answered or (self._said and isinstance(self._said[-1][1], Exception))
        if not told:
            self.say(ConnectionCut())
        self._changed()

    # -- waiting --------------------------------------------------------------------------------------------

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            await waiter

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
