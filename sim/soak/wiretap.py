"""Hears what the terminal sends and how the host judges it, without changing a byte of either."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sim.host.call_names import call_name
from sim.host.wire import HTML_TYPE
from sim.soak.record import Judged, Record, Sent

KEY = b"idempotency-key"
_PAGE = (b"content-type", HTML_TYPE)
"""By this a proxy answers, in the host's place."""


class Wiretap:
    """``sent`` is for ``Network.before``, ``heard`` wraps the host's application."""

    def __init__(self, record: Record, now: Callable[[], float]) -> None:
        self._record, self._now = record, now
        self.boot = 0

    def sent(self, request: httpx.Request) -> None:
        """A request leaves the terminal."""
        key = next((value.decode() for name, value in request.headers.raw if name.lower() == KEY), "")
        digest = sha256(request.content).hexdigest()[:16] if key else ""
        call = call_name(request.method, request.url.path) or ""
        self._record.sent.append(Sent(self._now(), call, key, digest, self.boot))

    def heard(self, app: ASGIApp) -> ASGIApp:
        """The application, overheard."""

        async def overheard(scope: Scope, receive: Receive, send: Send) -> None:
            key = next((value.decode("latin-1") for name, value in scope["headers"] if name == KEY), "")
            call, body = call_name(scope["method"], scope["path"]) or "", sha256()

            async def hear() -> Message:
                message = await receive()
                if key:
                    body.update(message.get("body", b""))
                return message

            async def say(message: Message) -> None:
                if message["type"] == "http.response.start" and _PAGE not in message["headers"]:
                    digest = body.hexdigest()[:16] if key else ""
                    self._record.judged.append(Judged(self._now(), call, key, digest, message["status"]))
                await send(message)

            await app(scope, hear, say)

        return overheard
