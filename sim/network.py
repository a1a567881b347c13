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
hour or a seed. What goes wrong on the way is said by rules (``sim.faults``, those that a network does), chosen by
``Network.choose`` once for each request; the application hears of the choice by an ASGI extension, and does the
rest of the rules. Only timers are waited for: on ``sim.virtual_time`` all of it takes no time.

Three moments of each request pass ``Network.power``: ``request.before`` it leaves, with it ``request.under_way``,
and with its answer come and ``request.unread``.

What is not modelled: the pool (each request has a connection of its own, and none is kept alive), TLS, names,
HTTP's framing (an answer that does not fit its Content-Length goes through, as does one to HEAD with a body), a
connection that closes in one direction alone, pieces that are split or joined on the way, answers of status 1xx. An
outage holds back what is under way, and loses none of it, as TCP would.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import httpx
from starlette.types import ASGIApp, Message, Scope

from sim.connection import NEVER, WINDOW, Connection, pass_time
from sim.faults.wire import AnyRule, CutRequest, Duplicate, Outage, PowerCutAtCall, Reorder, Unreachable
from sim.host.wire import CHOSEN, ConnectionCut
from sim.power import Power

__all__ = ["AT_ONCE", "NEVER", "WINDOW", "Network", "Trip"]

MAX_REQUESTS = 4096
"""Requests that a network remembers; the oldest are forgotten first."""

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

    ``trip`` says how long each request is under way; ``choose``, which rule it meets (None: the application chooses
    for itself). ``before`` is called when a caller asks for a connection, and ``after`` when the head of the answer
    has come, before the caller sees it. What they raise, the caller gets: an ``httpx.ConnectError`` from ``before``
    is a host that cannot be reached, an ``httpx.ReadError`` from ``after`` an answer lost after the host has acted.
    All of them may be replaced at any time.

    ``requests`` are the last ones made, 4,096 at most and half of that at least.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        client: tuple[str, int] = ("127.0.0.1", 50_000),
        power: Power | None = None,
        choose: Callable[[httpx.Request], AnyRule | None] | None = None,
        trip: Callable[[httpx.Request], Trip] = lambda request: AT_ONCE,
        before: Hook = _nothing,
        after: Hook = _nothing,
    ) -> None:
        self.app, self.client = app, client
        self.power, self.choose = power or Power(), choose
        self.trip, self.before, self.after = trip, before, after
        self.requests: list[httpx.Request] = []
        self.down_until = 0.0
        """By the loop's clock: until when nothing gets through."""
        self._refuses = False
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._failures: list[Exception] = []

    def outage(self, seconds: float, *, refused: bool = False) -> None:
        """From now on nothing gets through for so long; who asks for a connection is refused, or hears nothing."""
        self.down_until = asyncio.get_running_loop().time() + seconds
        self._refuses = refused

    def cut(self) -> None:
        """The application's end of every connection goes at once, as with its process."""
        for task, connection in tuple(self._serving.items()):
            if connection.arrived:
                task.cancel()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises what httpx's transport would; what the application raises, its own mistakes, goes through."""
        self.power.require()
        if len(self.requests) >= MAX_REQUESTS:
            del self.requests[: MAX_REQUESTS // 2]
        self.requests.append(request)
        rule = self.choose(request) if self.choose else None
        self._moment("before", rule)
        self.before(request)
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        trip = self.trip(request)
        await self._connect(request, rule, trip.connect, timeouts.get("connect"))
        connection = Connection(trip.back, lambda: self.down_until)
        try:
            await self._send(connection, request, rule, trip.there, timeouts.get("write"))
            self._moment("under_way", rule)
            reading = timeouts.get("read")
            head = await self._hear(connection, request, reading)
            if head["type"] != "http.response.start":
                raise RuntimeError(f"the application said {head['type']} before it began an answer")
            self._moment("unread", rule)
            self.after(request)
        except BaseException:
            connection.hang_up()
            raise
        return httpx.Response(
            head["status"],
            headers=head.get("headers", []),
            stream=_Body(connection, lambda: self._hear(connection, request, reading)),
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

    # -- the way there --------------------------------------------------------------------------------------

    def _moment(self, when: str, rule: AnyRule | None) -> None:
        point = f"request.{when}"
        due = self.power.due(point)
        if due or (isinstance(rule, PowerCutAtCall) and rule.when == when):
            self.power.cut(point)

    async def _connect(
        self, request: httpx.Request, rule: AnyRule | None, takes: float, timeout: float | None
    ) -> None:
        if isinstance(rule, Outage):
            self.outage(rule.seconds, refused=rule.how == "refused")
        down = self.down_until - asyncio.get_running_loop().time()
        if isinstance(rule, Unreachable):
            down = NEVER
        if down > 0 and (rule.how == "refused" if isinstance(rule, Unreachable) else self._refuses):
            raise httpx.ConnectError("All connection attempts failed", request=request)
        if down > 0 or takes:
            await _within(timeout, pass_time(max(0.0, down) + takes), httpx.ConnectTimeout, request)

    async def _send(
        self,
        connection: Connection,
        request: httpx.Request,
        rule: AnyRule | None,
        there: float,
        timeout: float | None,
    ) -> None:
        """Send the request; as the rule has it, in half, twice, or later than its caller thinks."""
        if isinstance(rule, CutRequest):
            body = request.content
            if body:
                self._start(self._serve(connection, self._scope(request, rule), there), connection)
                await connection.put(body[: len(body) // 2])
            raise httpx.WriteError("connection reset by peer", request=request)
        if isinstance(rule, Reorder):
            self._start(*self._copy(request, there + rule.seconds))
            if rule.how == "cut":
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
            return
        if there != NEVER:
            serving = self._serve(connection, self._scope(request, rule), there)
            if isinstance(rule, Duplicate):
                other, _ = self._copy(request, 0.0)
                pair = (serving, other) if rule.heard == "first" else (other, serving)
                serving = self._one_after_the_other(*pair, rule.seconds)
            self._start(serving, connection)
        await _write(connection, request, timeout)

    def _copy(self, request: httpx.Request, there: float) -> tuple[Coroutine[Any, Any, None], Connection]:
        """The same request once more, with nobody to hear what becomes of it."""
        connection = Connection(0.0, lambda: self.down_until)
        connection.fill(request.content)
        connection.hang_up()
        return self._serve(connection, self._scope(request, None), there), connection

    async def _one_after_the_other(
        self, first: Coroutine[Any, Any, None], second: Coroutine[Any, Any, None], seconds: float
    ) -> None:
        try:
            await first
            await pass_time(seconds)
            await second
        finally:
            first.close()
            second.close()

    def _start(self, serving: Coroutine[Any, Any, None], connection: Connection) -> None:
        # In a context of its own: what the host does is not the terminal's, and does not end with it.
        task = asyncio.get_running_loop().create_task(serving, context=contextvars.Context())
        self._serving[task] = connection
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        del self._serving[task]

    def _scope(self, request: httpx.Request, rule: AnyRule | None) -> Scope:
        url = request.url
        raw_path, _, query = url.raw_path.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": raw_path,
            "query_string": query,
            "server": (url.host, url.port),
            "client": self.client,
            "root_path": "",
            "extensions": {CHOSEN: None if isinstance(rule, _OURS) else rule} if self.choose else {},
        }

    async def _serve(self, connection: Connection, scope: Scope, there: float) -> None:
        try:
            if there:
                await pass_time(there)
            while (down := self.down_until - asyncio.get_running_loop().time()) > 0:
                await pass_time(down)
            connection.arrived = True
            await self.app(scope, connection.receive, connection.send)
            if not (connection.answered or connection.gone):
                raise RuntimeError(f"{scope['method']} {scope['path']}: the application ended without an answer")
        except ConnectionCut as cut:
            connection.say(cut)
        except Exception as error:
            self._failures.append(error)
            connection.say(error)
        finally:
            connection.end()

    # -- and back -------------------------------------------------------------------------------------------

    async def _hear(self, connection: Connection, request: httpx.Request, timeout: float | None) -> Message:
        """The application's next message, as the caller gets it."""
        hearing = connection.next()
        said = await (hearing if connection.is_heard else _within(timeout, hearing, httpx.ReadTimeout, request))
        self.power.require()
        if isinstance(said, ConnectionCut):
            why = "peer closed connection without sending complete message body"
            if not connection.begun:
                why = "Server disconnected without sending a response."
            raise httpx.RemoteProtocolError(why, request=request) from None
        if isinstance(said, Exception):
            self._failures.remove(said)
            raise said
        connection.begun = True
        return said


_OURS = (Unreachable, Outage, Duplicate, Reorder, CutRequest, PowerCutAtCall)
"""What the application need not hear of."""


class _Body(httpx.AsyncByteStream):
    """An answer's body, piece by piece as the application says it."""

    def __init__(self, connection: Connection, hear: Callable[[], Awaitable[Message]]) -> None:
        self._connection, self._hear = connection, hear

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            said = await self._hear()
            more = said.get("more_body", False)
            if said.get("body"):
                yield said["body"]

    async def aclose(self) -> None:
        self._connection.hang_up()


async def _write(connection: Connection, request: httpx.Request, timeout: float | None) -> None:
    """The request's body, as far as the application takes it."""
    assert isinstance(request.stream, httpx.AsyncByteStream)
    async for chunk in request.stream:
        for start in range(0, len(chunk), WINDOW):
            piece = chunk[start : start + WINDOW]
            putting = connection.put(piece)
            within = putting if connection.has_room else _within(timeout, putting, httpx.WriteTimeout, request)
            if not await within:
                return
    connection.sent()


async def _within(
    timeout: float | None, work: Awaitable[T], late: type[httpx.TimeoutException], request: httpx.Request
) -> T:
    try:
        async with asyncio.timeout(timeout):
            return await work
    except TimeoutError:
        raise late(f"{timeout:g} seconds are over", request=request) from None
