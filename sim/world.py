"""The world: a host, a terminal and the network between them in one process, on virtual time and from one seed.

    with World(folder, seed=7) as world:

        async def day() -> Payment:
            async with world.activated(reader=HandedReader(card)) as till:
                return await till.charge(Amount(1250, "EUR"), reference="order-17")

        payment = world.run(day())

Nothing is replaced but time, randomness, the network and the reader: the Terminal, its HTTP client, its vault and
its journal on disk, the host's application, its ledger and all the cryptography are those that ship. The same seed
and the same calls give the same bytes on the wire, in both directions.

What goes wrong is said by rules at the host (``fault``), and by the hooks of ``network`` on the way to it.

What is not modelled yet: power cuts, a disk that loses or refuses writes, a host that starts anew, more than one
terminal.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from hw.reader import Reader
from sim.faults import Faults, parse
from sim.host.app import create_app
from sim.host.config import HostConfig
from sim.host.hsm import Hsm
from sim.host.ledger import Ledger
from sim.network import Network
from sim.seed import seeded
from sim.virtual_time import VirtualLoop
from terminal import home as terminal_home
from terminal.crypto.ceremony import Component
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.vault import CredentialFile
from terminal.events import Event
from terminal.settings import HostSettings, Settings
from terminal.terminal import Terminal

URL = "http://127.0.0.1:8080"
"""Where the host says it is. Nobody listens there: the world's network carries every request."""

T = TypeVar("T")


class WorldError(Exception):
    """A call that the world itself made at the host was refused; the message has the call and the answer."""


class World:
    """One host and, under ``folder``, one terminal's home. Use it in a ``with`` block, or call ``close``.

    - ``loop``: the time; ``network``: what lies between the two (``sim.network``);
    - ``app``, ``ledger``: the host; ``config`` are its rules;
    - ``home``: the terminal's directory; ``secret`` opens its vault; ``device`` is the document that it was made
      from; ``skew``: seconds by which its clock is ahead of the world's.
    """

    def __init__(self, folder: Path, *, seed: int = 1, config: HostConfig | None = None) -> None:
        self.seed, self.home = seed, folder / "home"
        self.loop = VirtualLoop()
        self._runner = asyncio.Runner(loop_factory=lambda: self.loop)
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
        self._own_network = Network(self.app)
        self.device: dict[str, Any] = {}
        self.skew = 0.0
        self._opened = 0
        credentials = folder / "credentials"
        credentials.touch(mode=0o600)
        credentials.write_bytes(seeded(seed, "credentials")(32))
        self.secret = CredentialFile(credentials)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end in this world's time, which goes on from where the last one left it.

        What the host has not ended by then stands still until the next one, or until the world is closed.
        """
        return self._runner.run(main)

    def close(self) -> None:
        """The end of this world; the terminal's home stays."""
        self._runner.close()
        self.loop.close()
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the host's side ------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, document: Any = None, token: str = "") -> Any:
        """A JSON call that is not the terminal's, past the hooks of ``network``; WorldError unless it succeeds."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = None if document is None else msgspec.json.encode(document)
        request = httpx.Request(method, URL + path, headers=headers, content=content)
        answer = await self._own_network.handle_async_request(request)
        body = await answer.aread()
        self._own_network.requests.clear()
        if not answer.is_success:
            raise WorldError(f"{method} {path}: {answer.status_code} {answer.text}")
        return msgspec.json.decode(body) if body else None

    def fault(self, *rules: dict[str, Any]) -> None:
        """What goes wrong at the host from now on (``sim.faults``); none clears it. Raises FaultError."""
        self.app.faults.replace(parse(msgspec.json.encode({"rules": rules}).decode()))

    async def exchanges(self) -> list[str]:
        """The host's record: which calls it judged, and how they ended."""
        said = await self.ask("GET", "/sim/exchanges")
        return [f"{e['path'].removeprefix('/pos/')} {e['status']}" for e in said["exchanges"]]

    async def books(self) -> list[dict[str, Any]]:
        """The charges in the host's ledger, with their refunds."""
        charges: list[dict[str, Any]] = (await self.ask("GET", "/sim/ledger"))["charges"]
        return charges

    # -- the terminal's side --------------------------------------------------------------------------------

    async def provision(self) -> dict[str, Any]:
        """A device document from the host, and a home made from it; the ZMK comes in two components."""
        self.device = await self.ask("POST", "/sim/devices", {})
        document = terminal_home.parse_document(msgspec.json.encode(self.device))
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
        """The terminal's settings; ``url`` and the fields of ``host`` (a dictionary) are the host's."""
        host = HostSettings(url=changes.pop("url", URL), **changes.pop("host", {}))
        return msgspec.structs.replace(Settings(), home=str(self.home), host=host, **changes)

    @asynccontextmanager
    async def terminal(self, *, reader: Reader | None = None, **changes: Any) -> AsyncIterator[Terminal]:
        """The terminal, opened anew from its home; ``changes`` are those of ``settings``."""
        self._opened += 1
        async with Terminal.open(
            self.settings(**changes),
            secret=self.secret,
            now=lambda: self.loop.now() + timedelta(seconds=self.skew),
            random=seeded(self.seed, f"terminal {self._opened}"),
            transport=self.network,
            reader=reader,
        ) as till:
            yield till

    async def claim(self, code: str) -> None:
        """The merchant types the code into the portal."""
        credentials = self.device["merchant"] | {"grant_type": "client_credentials"}
        token = (await self.ask("POST", "/client/session", credentials))["access_token"]
        await self.ask("POST", "/session/initiate", {"host": "merchant.viopay.io"}, token)
        await self.ask("POST", "/pos/claim", {"pairing_code": code}, token)

    async def activate(self, till: Terminal, *, claim: bool = True) -> list[Event]:
        """Activate, with a merchant who claims at once (unless not ``claim``); the events that were told.

        Raises what ``Terminal.activate`` does, and WorldError where the merchant was refused.
        """
        heard: list[Event] = []
        refused: list[WorldError] = []
        waiting = asyncio.timeout(None)

        async def listen(events: AsyncIterator[Event]) -> None:
            try:
                async for event in events:
                    heard.append(event)
                    if claim and (code := getattr(event, "pairing_code", None)):
                        await self.claim(code)
            except WorldError as error:  # without a merchant, the terminal would wait for ever
                refused.append(error)
                waiting.reschedule(self.loop.time())

        listening = asyncio.create_task(listen(till.events()))
        try:
            async with waiting:
                await till.activate()
        except TimeoutError:
            if refused:
                raise refused[0] from None
            raise
        finally:
            await asyncio.sleep(0)
            listening.cancel()
        return heard

    @asynccontextmanager
    async def activated(self, *, reader: Reader | None = None, **changes: Any) -> AsyncIterator[Terminal]:
        """A new terminal that has climbed to the top; ``network.requests`` begins after that."""
        await self.provision()
        async with self.terminal(reader=reader, **changes) as till:
            await self.activate(till)
            self.network.requests.clear()
            yield till
