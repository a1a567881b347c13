"""One terminal of a world: its home, its disk, its power, its network and its clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
import msgspec
from starlette.types import Receive, Scope, Send

from hw.reader import Reader
from sim.disk import CrashDisk
from sim.faults import AnyRule, parse_document
from sim.host.app import HostApp
from sim.host.call_names import call_name
from sim.host.calls import Call
from sim.network import Network
from sim.power import Power
from sim.seed import seeded
from sim.virtual_time import VirtualLoop
from terminal import home as terminal_home
from terminal.crypto.ceremony import Component
from terminal.crypto.kcv import aes_kcv
from terminal.crypto.vault import CredentialFile
from terminal.disk import Disk
from terminal.events import Event
from terminal.settings import HostSettings, Settings
from terminal.terminal import Terminal

URL = "http://127.0.0.1:8080"
"""Where the host says it is. Nobody listens there: the world's networks carry every request."""

T = TypeVar("T")


class WorldError(Exception):
    """A call that the world itself made at the host did not succeed; the message has the call and the answer."""


class Around(Protocol):
    """What a terminal finds itself in (``sim.world.World``): the seed, the time and the host."""

    seed: int
    loop: VirtualLoop
    app: HostApp

    async def host(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The host that runs now, as an ASGI application."""

    async def ask(self, method: str, path: str, document: Any = None, token: str = "") -> Any:
        """A JSON call that is not a terminal's; WorldError unless it succeeds."""


class Station:
    """A terminal and all that is its own; made by ``World``.

    - ``home``: its directory; ``secret`` opens its vault; ``device`` is the document that it was made from;
    - ``network``: what lies between it and the host (``sim.network``);
    - ``power`` (``sim.power``) and ``disk`` (``sim.disk``);
    - ``skew``: seconds by which its clock is ahead of the world's.
    """

    def __init__(self, world: Around, folder: Path, name: str = "", disk: Disk | None = None) -> None:
        self._world, self._name = world, name
        self.home = folder / "home"
        self.power = Power()
        self.disk = disk or CrashDisk(self.power, self._seeded("disk"))
        self.network = Network(world.host, power=self.power, choose=self._choose)
        self.device: dict[str, Any] = {}
        self.skew = 0.0
        self._opened = 0
        folder.mkdir(exist_ok=True)
        credentials = folder / "credentials"
        credentials.touch(mode=0o600)
        credentials.write_bytes(self._seeded("credentials")(32))
        self.secret = CredentialFile(credentials)

    # -- the terminal ---------------------------------------------------------------------------------------

    async def provision(self) -> dict[str, Any]:
        """A device document from the host, and a home made from it; the ZMK comes in two components."""
        self.device = await self._world.ask("POST", "/sim/devices", {})
        document = terminal_home.parse_document(msgspec.json.encode(self.device))
        zmk, first = bytes.fromhex(self.device["zmk"]["key"]), self._seeded("component")(32)
        second = bytes(a ^ b for a, b in zip(zmk, first, strict=True))
        terminal_home.provision(
            self.home,
            document,
            URL,
            self.secret,
            random=self._seeded("provision"),
            components=tuple(Component(part, aes_kcv(part)) for part in (first, second)),
            zmk_kcv=self.device["zmk"]["kcv"],
            disk=self.disk,
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
        loop = self._world.loop
        async with Terminal.open(
            self.settings(**changes),
            secret=self.secret,
            now=lambda: loop.now() + timedelta(seconds=self.skew) if self.skew else loop.now(),
            random=self._seeded(f"terminal {self._opened}"),
            transport=self.network,
            reader=reader,
            disk=self.disk,
        ) as till:
            yield till

    async def claim(self, code: str) -> None:
        """The merchant types the code into the portal; WorldError where that does not work."""
        ask = self._world.ask
        credentials = self.device["merchant"] | {"grant_type": "client_credentials"}
        session = await ask("POST", "/client/session", credentials)
        token = session.get("access_token") if isinstance(session, dict) else None
        if not isinstance(token, str):
            raise WorldError("POST /client/session: the answer has no token")
        await ask("POST", "/session/initiate", {"host": "merchant.viopay.io"}, token)
        await ask("POST", "/pos/claim", {"pairing_code": code}, token)

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
                waiting.reschedule(self._world.loop.time())

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

    # -- what goes wrong ------------------------------------------------------------------------------------

    def disk_faults(self, *rules: dict[str, Any]) -> None:
        """What goes wrong at the disk from now on (``sim.faults.disk``); none clears it. Raises FaultError."""
        self._crash_disk.faults.replace(parse_document(msgspec.json.encode({"disk": rules})).disk)

    async def powered(self, program: Coroutine[Any, Any, T]) -> T:
        """Run the terminal's program until it ends, with all that it has started, or the power does.

        Raises PowerCut then: call ``power_back`` before the next one.
        """
        return await self.power.running(program)

    def power_back(self, *, lose: bool = True) -> list[str]:
        """There is power again, and on the disk what it has kept; what it has lost, in words, for a history.

        Without ``lose`` it was not the power that went but the process, as by SIGKILL.
        """
        if self.power.on:
            return []
        lost: list[str] = []
        if isinstance(self.disk, CrashDisk):
            self.disk.restart(lose=lose)
            lost = self.disk.lost
        self.power.back()
        return lost

    @property
    def _crash_disk(self) -> CrashDisk:
        if not isinstance(self.disk, CrashDisk):
            raise TypeError("the world was given a disk of its own, which knows no faults")
        return self.disk

    def _choose(self, request: httpx.Request) -> AnyRule | None:
        """The fault that a request meets, wherever it is done."""
        app = self._world.app
        if not app.faults:
            return None
        method, path = request.method, request.url.path
        name = call_name(method, path)

        @cache
        def call() -> Call:
            headers = dict(request.headers.items())
            return Call(name=name, method=method, path=path, now=app.now(), headers=headers, body=request.content)

        return app.fault_for(name, call, network=True)

    def _seeded(self, stream: str) -> Any:
        return seeded(self._world.seed, f"{self._name} {stream}" if self._name else stream)
