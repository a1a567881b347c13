"""A host that does what a test wrote down, over a real socket, and a loop in which waiting takes no time.

What it does not model: pipelining, chunked requests, HTTP/2.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cut:
    """Send these bytes, then close."""

    data: bytes = b""


@dataclass(frozen=True)
class Drip:
    """Send the head of an answer, then a byte of its body now and then, for ever."""

    head: bytes
    every: float = 1.0


@dataclass(frozen=True)
class Then:
    """Close the listening socket, then do the other thing."""

    action: Any


HANG = object()
"""Say nothing, and keep the connection."""


@dataclass
class Request:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name."""
    names: list[str]
    body: bytes
    connection: int


def reply(body: bytes | dict[str, Any] = b"{}", status: int = 200, **headers: str) -> bytes:
    """An answer's bytes; ``retry_after="3"`` is the header Retry-After."""
    raw = json.dumps(body).encode() if isinstance(body, dict) else body
    told = {"content-type": "application/json", "content-length": str(len(raw))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Something", *(f"{name}: {value}" for name, value in told.items())]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def error(status: int, code: str, message: str = "no", **headers: str) -> bytes:
    """An answer with VioPay's error body."""
    body = {"error": {"code": code, "message": message, "details": {}, "trace_id": "t-1"}}
    return reply(body, status, **headers)


@dataclass
class ScriptedHost:
    """``async with ScriptedHost([reply(...), HANG]) as host``: one action for each request, the last for ever."""

    script: list[Any]
    tls: ssl.SSLContext | None = None
    name: str = "127.0.0.1"
    requests: list[Request] = field(default_factory=list)
    received: int = 0
    """Bytes of plaintext that came in."""
    connections: int = 0

    async def __aenter__(self) -> ScriptedHost:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://{self.name}:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while True:
                self.requests.append(await self._request(reader, number))
                action = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                if not await self._act(action, writer):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    async def _act(self, action: Any, writer: asyncio.StreamWriter) -> bool:
        match action:
            case Then():
                self._server.close()
                return await self._act(action.action, writer)
            case Cut():
                writer.write(action.data)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                return False
            case Drip():
                writer.write(action.head)
                while True:
                    await writer.drain()
                    await asyncio.sleep(action.every)
                    writer.write(b" ")
            case bytes():
                writer.write(action)
                await writer.drain()
                return True
            case _:
                assert action is HANG
                await asyncio.get_running_loop().create_future()
        return False

    async def _request(self, reader: asyncio.StreamReader, number: int) -> Request:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received += len(head) + len(body)
        method, target, _ = first.split(" ")
        return Request(method, target, headers, [name.lower() for name, _ in pairs], body, number)


class _Impatient(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Waits 20 ms for a socket where it is asked to wait longer; what is left of the wait is skipped.

    ``sim.virtual_time`` does not wait at all, and a deadline would pass while bytes are still in the kernel: here
    httpx's real transport, real connections and real TLS handshakes are under test.
    """

    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        began = time.monotonic()
        ready = super().select(min(timeout, 0.02))
        if not ready:
            self.skipped += max(0.0, timeout - (time.monotonic() - began))
        return ready


class ImpatientLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when no socket has anything to say."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return super().time() + self._impatient.skipped


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """``asyncio.run`` on an impatient loop."""
    with asyncio.Runner(loop_factory=ImpatientLoop) as runner:
        return runner.run(main())
