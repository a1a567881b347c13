"""The world: a host, a terminal and the network between them in one process, on virtual time and from one seed.

    with World(folder, seed=7) as world:

        async def day() -> Payment:
            async with world.activated(reader=HandedReader(card)) as till:
                return await till.charge(Amount(1250, "EUR"), reference="order-17")

        payment = world.run(day())

Nothing is replaced but time, randomness, the network, the disk and the reader: the Terminal, its HTTP client, its
vault and its journal, the host's application, its ledger and all the cryptography are those that ship. The same
seed and the same calls give the same bytes on the wire, in both directions, and the same bytes lost on the disk.

What goes wrong:

- ``fault(...)``: rules for calls, done by the host or by the network between (``sim.faults``);
- ``disk_faults(...)``: rules for the terminal's disk; ``fault_counts()``: how often each kind has been done;
- power cuts: run the terminal's program by ``powered``, which raises PowerCut where the power went, and then call
  ``power_back``. It goes where a rule says (``power_cut``, ``lost``), at the n-th moment (``power.cut_at = n``; run
  once to learn from ``power.passed`` how many there are), or at will (``power.off()``, ``power.cut(name)``)::

      world.power.cut_at = 12
      try:
          world.run(world.powered(program()))
      except PowerCut:
          world.power_back()
      world.run(world.powered(program()))

- ``restart_host``; ``network.outage(seconds)``; ``skew`` (the terminal's clock is wrong by so many seconds);
  ``stop(seconds)`` (everybody is stopped, and goes on later);
- ``another()``: one more terminal at the same host, with all of these of its own.

What is not modelled: a process that is stopped while others go on (``stop`` stops the host's timers too), a host
that loses what it has answered, keep-alive connections, a reader's line (``HandedReader`` hands over cards), and
memory that fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
from starlette.types import Receive, Scope, Send

from hw.reader import Reader
from sim.disk import CrashDisk
from sim.faults import Faults, parse
from sim.host.app import HostApp, create_app
from sim.host.config import HostConfig
from sim.host.hsm import Hsm
from sim.host.ledger import Ledger
from sim.network import Network
from sim.power import Power
from sim.seed import seeded
from sim.station import URL, Station, WorldError
from sim.virtual_time import VirtualLoop
from terminal.crypto.vault import CredentialFile
from terminal.disk import Disk
from terminal.events import Event
from terminal.settings import Settings
from terminal.terminal import Terminal

__all__ = ["URL", "Station", "World", "WorldError"]

T = TypeVar("T")

ASKS_FOR = 60.0
"""Seconds for which a call of the world's own waits for its answer."""


class World:
    """One host and, under ``folder``, one terminal's home. Use it in a ``with`` block, or call ``close``.

    - ``loop``: the time; ``app``, ``ledger``: the host; ``config`` are its rules;
    - ``stations``: the terminals (``sim.station``). All that a station has, the world has for the first of them.

    ``disk`` is the first terminal's (a CrashDisk, where none is given). With ``durable`` the host's ledger is a
    file, and read again from there when the host is started anew.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 1,
        config: HostConfig | None = None,
        disk: Disk | None = None,
        durable: bool = False,
    ) -> None:
        self.seed, self._folder, self._config = seed, folder, config
        self.loop = VirtualLoop()
        self._runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self._ledger_file = folder / "host.db" if durable else None
        self.ledger = Ledger(self._ledger_file or ":memory:")
        random = seeded(seed, "host")
        self._master_key = random(32)
        self._starts = 1
        self.faults = Faults(seeded(seed, "faults"), network=True)
        self.app = self._start(random)
        self._own_network = Network(self.host)
        self.stations = [Station(self, folder, disk=disk)]

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end in this world's time, which goes on from where the last one left it.

        What the host has not ended by then stands still until the next one, or until the world is closed.
        """
        return self._runner.run(main)

    def stop(self, seconds: float) -> None:
        """Everybody is stopped, and goes on when so much time is over: what was due meanwhile comes all at once."""
        self.loop.skip(seconds)

    def another(self, name: str = "") -> Station:
        """One more terminal, in a folder of its own under the world's; not provisioned yet."""
        name = name or f"terminal-{len(self.stations) + 1}"
        self.stations.append(Station(self, self._folder / name, name))
        return self.stations[-1]

    def close(self) -> None:
        """The end of this world; the terminals' homes stay."""
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

    async def host(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The host that runs now, as an ASGI application."""
        await self.app(scope, receive, send)

    def restart_host(self) -> None:
        """The host's process ends, with all connections, and starts anew over what its ledger has."""
        for station in self.stations:
            station.network.cut()
        self._starts += 1
        if self._ledger_file is not None:
            self.ledger.close()
            self.ledger = Ledger(self._ledger_file)
        self.app = self._start(seeded(self.seed, f"host {self._starts}"))

    def _start(self, random: Any) -> HostApp:
        return create_app(
            self.ledger,
            hsm=Hsm(self._master_key, random),
            now=self.loop.now,
            random=random,
            faults=self.faults,
            config=self._config,
        )

    async def ask(self, method: str, path: str, document: Any = None, token: str = "") -> Any:
        """A JSON call that is not a terminal's, past its network; WorldError unless it succeeds within a minute."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = None if document is None else msgspec.json.encode(document)
        request = httpx.Request(method, URL + path, headers=headers, content=content)
        try:
            async with asyncio.timeout(ASKS_FOR):
                answer = await self._own_network.handle_async_request(request)
                body = await answer.aread()
        except (TimeoutError, httpx.TransportError) as error:
            raise WorldError(f"{method} {path}: {str(error) or 'no answer'}") from None
        finally:
            self._own_network.requests.clear()
        if not answer.is_success:
            raise WorldError(f"{method} {path}: {answer.status_code} {answer.text}")
        try:
            return msgspec.json.decode(body) if body else None
        except msgspec.DecodeError:
            raise WorldError(f"{method} {path}: the answer is no JSON") from None

    def fault(self, *rules: dict[str, Any]) -> None:
        """What goes wrong at calls from now on (``sim.faults``); none clears it. Raises FaultError."""
        self.faults.replace(parse(msgspec.json.encode({"rules": rules}), network=True))

    def fault_counts(self) -> Counter[str]:
        """How often each kind of fault has been done since the world began, by its word."""
        counts = Counter(self.faults.by_kind)
        for station in self.stations:
            if isinstance(station.disk, CrashDisk):
                counts.update(station.disk.faults.by_kind)
        return counts

    async def exchanges(self) -> list[str]:
        """The host's record: which calls it judged, and how they ended."""
        said = await self.ask("GET", "/sim/exchanges")
        return [f"{e['path'].removeprefix('/pos/')} {e['status']}" for e in said["exchanges"]]

    async def books(self) -> list[dict[str, Any]]:
        """The charges in the host's ledger, with their refunds."""
        charges: list[dict[str, Any]] = (await self.ask("GET", "/sim/ledger"))["charges"]
        return charges

    # -- the first terminal's side (``sim.station``) --------------------------------------------------------

    @property
    def station(self) -> Station:
        """The first terminal."""
        return self.stations[0]

    @property
    def home(self) -> Path:
        """The terminal's directory."""
        return self.station.home

    @property
    def secret(self) -> CredentialFile:
        """What opens the terminal's vault."""
        return self.station.secret

    @property
    def device(self) -> dict[str, Any]:
        """The document that the terminal was made from."""
        return self.station.device

    @property
    def network(self) -> Network:
        """What lies between the terminal and the host."""
        return self.station.network

    @property
    def power(self) -> Power:
        """The terminal's power."""
        return self.station.power

    @property
    def skew(self) -> float:
        """Seconds by which the terminal's clock is ahead of the world's."""
        return self.station.skew

    @skew.setter
    def skew(self, seconds: float) -> None:
        self.station.skew = seconds

    def disk_faults(self, *rules: dict[str, Any]) -> None:
        """See ``Station.disk_faults``."""
        self.station.disk_faults(*rules)

    async def powered(self, program: Coroutine[Any, Any, T]) -> T:
        """See ``Station.powered``."""
        return await self.station.powered(program)

    def power_back(self, *, lose: bool = True) -> list[str]:
        """See ``Station.power_back``."""
        return self.station.power_back(lose=lose)

    async def provision(self) -> dict[str, Any]:
        """See ``Station.provision``."""
        return await self.station.provision()

    def settings(self, **changes: Any) -> Settings:
        """See ``Station.settings``."""
        return self.station.settings(**changes)

    def terminal(self, *, reader: Reader | None = None, **changes: Any) -> AbstractAsyncContextManager[Terminal]:
        """See ``Station.terminal``."""
        return self.station.terminal(reader=reader, **changes)

    async def claim(self, code: str) -> None:
        """See ``Station.claim``."""
        await self.station.claim(code)

    async def activate(self, till: Terminal, *, claim: bool = True) -> list[Event]:
        """See ``Station.activate``."""
        return await self.station.activate(till, claim=claim)

    def activated(self, *, reader: Reader | None = None, **changes: Any) -> AbstractAsyncContextManager[Terminal]:
        """See ``Station.activated``."""
        return self.station.activated(reader=reader, **changes)
