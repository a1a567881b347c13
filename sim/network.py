"""The network between a terminal and a host in one process: an HTTP transport that calls an ASGI application.

httpx's own ``ASGITransport`` ignores timeouts, hands over bodies whole, and ends the application when the caller
goes away. Here

- connecting, writing and reading each have the caller's timeout (``request.extensions["timeout"]``);
- bodies travel piece by piece in both directions, and whoever sends more than is read has to wait;
- the application is a task of its own: a caller that has hung up does not stop it. It is told so
  (``http.disconnect``) after what was sent before, and what it says then is heard by nobody. So a host acts on a
  request whose answer no one waits for any more;
- a connection that the application cuts (``ConnectionCut``) looks as it does to httpx's real transport, before the
  head of an answer and in the middle of its body.

How long bytes are under way is a function's to say (``Network.trip``), so that it may depend on the request, the
hour or a seed. Only timers are waited for: on ``sim.virtual_time`` all of it takes no time.

What is not modelled: the pool (each request has a connection of its own, and none is kept alive), TLS, names,
HTTP's framing (an answer that does not fit its Content-Length goes through, as does one to HEAD with a body), a
connection that closes in one direction alone, pieces that are split or joined on the way, answers of status 1xx.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import httpx
from starlette.types import ASGIApp, Message, Scope

from sim.host.wire import ConnectionCut

WINDOW = 65_536
"""Bytes that may lie unread in one direction before whoever sends has to wait: about what a socket holds."""

NEVER = math.inf
"""A time that does not come."""

T = TypeVar("T")


class Trip(NamedTuple):
    """How long what belongs to one request is under way, in seconds; NEVER loses it."""

    connect: float = 0.0
    """Until the connection stands."""
    there: float = 0.0
    """From the caller to the application, which acts that much later, whether the caller has waited or not."""
    back: float = 0.0
    """From the application, which has acted, to the caller."""


AT_ONCE = Trip()

Hook = Callable[[httpx.Request], None]


def _nothing(_request: httpx.Request) -> None:
    return None


class Network(httpx.AsyncBaseTransport):
    """Carries requests to ``app``, as from a machine at ``client`` (address, port).

    ``trip`` says how long each request is under way; ``before`` is called when a caller asks for a connection, and
    ``after`` when the head of the answer has come, before the caller sees it. What they raise, the caller gets: an
    ``httpx.ConnectError`` from ``before`` is a host that cannot be reached, an ``httpx.ReadError`` from ``after``
    an answer lost after the host has acted. All of them may be replaced at any time.

    ``requests`` are those made so far, and grow until somebody clears them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        client: tuple[str, int] = ("127.0.0.1", 50_000),
        trip: Callable[[httpx.Request], Trip] = lambda request: AT_ONCE,
        before: Hook = _nothing,
        after: Hook = _nothing,
    ) -> None:
        self.app, self.client = app, client
        self.trip, self.before, self.after = trip, before, after
        self.requests: list[httpx.Request] = []
        self._serving: dict[asyncio.Task[None], None] = {}  # a set has no order, and a replay needs one
        self._failures: list[Exception] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises what httpx's transport would; what the application raises, its own mistakes, goes through."""
        self.requests.append(request)
        self.before(request)
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        trip = self.trip(request)
        if trip.connect:
            await _within(timeouts.get("connect"), _pass(trip.connect), httpx.ConnectTimeout, request)
        line = _Line(trip.back)
        if trip.there != NEVER:
            task = asyncio.create_task(self._serve(line, self._scope(request), trip.there))
            self._serving[task] = None
            task.add_done_callback(self._serving.pop)
        try:
            await _write(line, request, timeouts.get("write"))
            reading = timeouts.get("read")
            head = await self._hear(line, request, reading)
            if head["type"] != "http.response.start":
                raise RuntimeError(f"the application said {head['type']} before it began an answer")
            self.after(request)
        except BaseException:
            line.hang_up()
            raise
        return httpx.Response(
            head["status"],
            headers=head.get("headers", []),
            stream=_Body(line, lambda: self._hear(line, request, reading)),
            request=request,
        )

    async def finished(self) -> None:
        """Wait until the application has ended all that it was asked, whoever still listens.

        Raises what it failed with when nobody was there to be told.
        """
        while self._serving:
            await asyncio.gather(*self._serving, return_exceptions=True)
        if self._failures:
            raise self._failures.pop(0)

    async def aclose(self) -> None:
        """Nothing: no connection outlives its request, and another client may use the same network."""

    def paths(self) -> list[str]:
        """Which requests were made, in order: method and path."""
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def _scope(self, request: httpx.Request) -> Scope:
        url = request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "server": (url.host, url.port),
            "client": self.client,
            "root_path": "",
        }

    async def _serve(self, line: _Line, scope: Scope, there: float) -> None:
        try:
            if there:
                await _pass(there)
            await self.app(scope, line.receive, line.send)
            if not (line.answered or line.gone):
                raise RuntimeError(f"{scope['method']} {scope['path']}: the application ended without an answer")
        except ConnectionCut as cut:
            line.say(cut)
        except Exception as error:
            self._failures.append(error)
            line.say(error)
        finally:
            line.end()

    async def _hear(self, line: _Line, request: httpx.Request, timeout: float | None) -> Message:
        """The application's next message, as the caller gets it."""
        said = await _within(timeout, line.next(), httpx.ReadTimeout, request)
        if isinstance(said, ConnectionCut):
            why = "peer closed connection without sending complete message body"
            if not line.begun:
                why = "Server disconnected without sending a response."
            raise httpx.RemoteProtocolError(why, request=request) from None
        if isinstance(said, Exception):
            self._failures.remove(said)
            raise said
        line.begun = True
        return said


class _Line:
    """One request's connection: what is on its way in either direction, and who is still there.

    The caller puts the request's body and takes what was said; the application has ``receive`` and ``send``.
    """

    def __init__(self, back: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._back = back
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

    # -- the caller's end -----------------------------------------------------------------------------------

    async def put(self, piece: bytes) -> bool:
        """Send a piece of the body, once there is room; False when the application reads no more."""
        await self._until(lambda: self._unread[0] < WINDOW or self._ended)
        if self._ended:
            return False
        self._there.append(piece)
        self._unread[0] += len(piece)
        self._changed()
        return True

    def sent(self) -> None:
        """The request's body is whole."""
        self._whole = True
        self._changed()

    async def next(self) -> Message | Exception:
        """What the application said next, when it has arrived."""
        await self._until(lambda: bool(self._said))
        arrives, said = self._said[0]
        if arrives > self._loop.time():
            await _pass(arrives - self._loop.time())
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


class _Body(httpx.AsyncByteStream):
    """An answer's body, piece by piece as the application says it."""

    def __init__(self, line: _Line, hear: Callable[[], Awaitable[Message]]) -> None:
        self._line, self._hear = line, hear

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            said = await self._hear()
            more = said.get("more_body", False)
            if said.get("body"):
                yield said["body"]

    async def aclose(self) -> None:
        self._line.hang_up()


async def _write(line: _Line, request: httpx.Request, timeout: float | None) -> None:
    """The request's body, as far as the application takes it."""
    assert isinstance(request.stream, httpx.AsyncByteStream)
    async for chunk in request.stream:
        for start in range(0, len(chunk), WINDOW):
            piece = chunk[start : start + WINDOW]
            if not await _within(timeout, line.put(piece), httpx.WriteTimeout, request):
                return
    line.sent()


async def _within(
    timeout: float | None, work: Awaitable[T], late: type[httpx.TimeoutException], request: httpx.Request
) -> T:
    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError:
        raise late(f"{timeout:g} seconds are over", request=request) from None


async def _pass(seconds: float) -> Any:
    """Wait; for ever where it is NEVER, without a timer that would keep the loop going."""
    if seconds == NEVER:
        return await asyncio.get_running_loop().create_future()
    return await asyncio.sleep(seconds)
