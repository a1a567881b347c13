"""A terminal and its host in one process, on virtual time and from one seed, for tests.

Everything is real but time, randomness and the network: the HTTP client, the ASGI host, the cryptography, the
ledger and the journal. `Network` may lose a request or an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from hw.card import Card
from hw.reader import Capabilities
from sim.faults import Faults, parse
from sim.host.app import HostApp, create_app
from sim.host.config import HostConfig
from sim.host.hsm import Hsm
from sim.host.ledger import Ledger
from sim.host.wire import ConnectionCut
from sim.seed import seeded
from sim.virtual_time import VirtualLoop, run
from terminal import home as terminal_home
from terminal.crypto.ceremony import Component
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.vault import CredentialFile
from terminal.events import Event
from terminal.settings import HostSettings, Settings
from terminal.terminal import Terminal

URL = "http://127.0.0.1:8080"


class Network(httpx.AsyncBaseTransport):
    """Carries requests to the host in this process; `meddle` may raise before or after the host has acted."""

    def __init__(self, app: HostApp) -> None:
        self._app = app
        self.requests: list[httpx.Request] = []
        self.before: Callable[[httpx.Request], None] = lambda request: None
        self.after: Callable[[httpx.Request], None] = lambda request: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.before(request)
        carrier = httpx.ASGITransport(app=self._app, client=("127.0.0.1", 50_000))
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("read")):
                response = await carrier.handle_async_request(request)
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time", request=request) from None
        except ConnectionCut:
            raise httpx.ReadError("the connection was cut", request=request) from None
        self.after(request)
        return response

    def paths(self) -> list[str]:
        """Which calls were made, in order."""
        return [f"{request.method} {request.url.path}" for request in self.requests]


class HandedReader:
    """A reader that is handed its cards; an exception in the list is raised."""

    capabilities = Capabilities(stripe=True)

    def __init__(self, *cards: Card | Exception, capabilities: Capabilities | None = None) -> None:
        self.cards = list(cards)
        if capabilities:
            self.capabilities = capabilities

    async def wait_for_card(self, *, timeout: float) -> Card:
        card = self.cards.pop(0)
        if isinstance(card, Exception):
            raise card
        return card


class World:
    """One host and, in `folder`, one terminal's home. Use `run` for the test's coroutine."""

    def __init__(self, folder: Path, *, seed: int = 1, config: HostConfig | None = None) -> None:
        self.loop = VirtualLoop()
        self.home = folder / "home"
        self.seed = seed
        self.ledger = Ledger(":memory:")
        random = seeded(seed, "host")
        self.app = create_app(
            self.ledger,
            hsm=Hsm(random(32), random),
            now=self.loop.now,
            random=random,
            faults=Faults(seeded(seed, "faults")),
            config=config,
        )
        self.network = Network(self.app)
        self.secret = CredentialFile(folder / "credentials")
        self.skew = 0.0
        self._opened = 0
        (folder / "credentials").touch(mode=0o600)
        (folder / "credentials").write_bytes(bytes(range(32)))

    def run(self, main: Any) -> Any:
        """Run a coroutine to its end in this world's time."""
        return run(main, self.loop)

    def close(self) -> None:
        self.ledger.close()
        if not self.loop.is_closed():
            self.loop.close()

    # -- the host's side ------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, document: Any = None, token: str = "") -> Any:
        """A JSON call that is not the terminal's; asserts that it succeeds."""
        transport = httpx.ASGITransport(app=self.app, client=("127.0.0.1", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            content = None if document is None else json.dumps(document)
            answer = await client.request(method, path, content=content, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        return answer.json() if answer.content else None

    def fault(self, *rules: dict[str, Any]) -> None:
        """What goes wrong from now on; none clears it."""
        self.app.faults.replace(parse(json.dumps({"rules": rules})))

    async def exchanges(self) -> list[str]:
        """The host's record: which calls it judged, and how they ended."""
        said = await self.ask("GET", "/sim/exchanges")
        return [f"{e['path'].removeprefix('/pos/')} {e['status']}" for e in said["exchanges"]]

    async def books(self) -> list[dict[str, Any]]:
        return (await self.ask("GET", "/sim/ledger"))["charges"]

    # -- the terminal's side --------------------------------------------------------------------------------

    async def provision(self) -> dict[str, Any]:
        """A device document from the host, and a home made from it; the ZMK comes in two components."""
        self.device = await self.ask("POST", "/sim/devices", {})
        document = terminal_home.parse_document(json.dumps(self.device).encode())
        zmk, first = bytes.fromhex(self.device["zmk"]["key"]), seeded(self.seed, "component")(32)
        second = bytes(a ^ b for a, b in zip(zmk, first, strict=True))
        terminal_home.provision(
            self.home,
            document,
            URL,
            self.secret,
            random=seeded(self.seed, "provision"),
            components=tuple(Component(part, aes_kcv(part)) for part in (first, second)),
            zmk_kcv=self.device["zmk"]["kcv"],
        )
        return self.device

    def settings(self, **changes: Any) -> Settings:
        host = HostSettings(url=changes.pop("url", URL), **changes.pop("host", {}))
        return msgspec.structs.replace(Settings(), home=str(self.home), host=host, **changes)

    @asynccontextmanager
    async def terminal(self, *, reader: Any = None, **changes: Any) -> AsyncIterator[Terminal]:
        """The terminal, opened anew from its home."""
        self._opened += 1
        async with Terminal.open(
            self.settings(**changes),
            secret=self.secret,
            now=lambda: self.loop.now() + _seconds(self.skew),
            random=seeded(self.seed, f"terminal {self._opened}"),
            transport=self.network,
            reader=reader,
        ) as till:
            yield till

    async def claim(self, code: str) -> None:
        """The merchant types the code into the portal."""
        merchant = self.device["merchant"]
        token = (await self.ask("POST", "/client/session", merchant | {"grant_type": "client_credentials"}))[
            "access_token"
        ]
        await self.ask("POST", "/session/initiate", {"host": "merchant.viopay.io"}, token)
        await self.ask("POST", "/pos/claim", {"pairing_code": code}, token)

    async def activate(self, till: Terminal, *, claim: bool = True) -> list[Event]:
        """Activate, with a merchant who claims at once; the events that were told."""
        heard: list[Event] = []

        async def listen(events: AsyncIterator[Event]) -> None:
            async for event in events:
                heard.append(event)
                if claim and (code := getattr(event, "pairing_code", None)):
                    await self.claim(code)

        listening = asyncio.create_task(listen(till.events()))
        try:
            await till.activate()
        finally:
            await asyncio.sleep(0)
            listening.cancel()
        return heard

    @asynccontextmanager
    async def activated(self, *, reader: Any = None, **changes: Any) -> AsyncIterator[Terminal]:
        """A terminal that has climbed to the top."""
        await self.provision()
        async with self.terminal(reader=reader, **changes) as till:
            await self.activate(till)
            self.network.requests.clear()
            yield till


def _seconds(seconds: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=seconds)
