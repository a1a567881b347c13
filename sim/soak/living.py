"""Lives a day: the till with its terminal, the power company, the host, and what goes wrong in between.

Till and terminal are one program, which runs on the world's power: where that goes the program ends, and comes up
again on what the disk has kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import msgspec

from sim.disk import CrashDisk
from sim.faults.grammar import Chooser
from sim.power import PowerCut
from sim.soak import day as of
from sim.soak.counter import NEEDS_A_START, Counter
from sim.soak.history import History, Secrets
from sim.soak.record import Record
from sim.soak.wiretap import Wiretap
from sim.world import World, WorldError
from terminal import events
from terminal.activation import Level
from terminal.config import Config
from terminal.errors import TillError
from terminal.payment import OPEN
from terminal.terminal import Terminal

ATTEMPTS_TO_OPEN = 8
"""Starts in a row that may fail while the disk is in trouble, before the disk is mended."""
KEY_LIFE = 3600
"""Seconds that the host of a soak remembers an idempotency key: short, so that many are forgotten in a day."""
EVENING = 3 * 3600.0
"""Seconds after the last trouble by which everything has to be resolved."""
AT_LEAST = 4000.0
"""Seconds of evening in any case: a host may fail a refund later, and the terminal looks for that after an hour."""
WAITING = 6
"""Rules of earlier troubles that may still wait for their time."""
LOOKS = 300.0
"""Seconds between two looks at what is left, in the evening."""

QUIET = frozenset({"downloading", "pairing_polled", "level_reached"})
"""Events that say nothing of payments, and are left out of the history."""


class Life:
    """``live`` runs the day in the world. ``record`` and ``history`` are what is left of it."""

    def __init__(
        self, world: World, day: of.Day, history: History, progress: Callable[[int], None] = lambda done: None
    ) -> None:
        self.world, self.day, self.history, self.progress = world, day, history, progress
        self.record = Record()
        self.now = world.loop.time
        self.tap = Wiretap(self.record, self.now)
        self.counter = Counter(self.record, history, self.now)
        self.next = 0
        self.done = 0
        """Charges so far."""
        self.config: Config | None = None
        """The terminal's configuration, as it had it at the end."""

    def live(self) -> None:
        """The whole day and its evening."""
        world = self.world
        world.run(world.provision())
        self.history.secrets, self.history.folder = secrets_of(world), f"{world.home}/"
        world.network.before = self.tap.sent
        world.network.app = self.tap.heard(world.network.app)
        refused = 0
        while self.next < len(self.day.steps):
            before = self.next
            self._boot(self._program())
            refused = refused + 1 if self.next == before else 0
            if refused == ATTEMPTS_TO_OPEN:
                self.history.add(self.now(), "world", "mends the disk")
                world.disk_faults()
            if refused == 2 * ATTEMPTS_TO_OPEN:
                self.record.failures.append("the terminal does not come up any more")
                return
        self._evening()

    # -- the terminal's program -----------------------------------------------------------------------------

    def _boot(self, program: Any) -> None:
        """Run a program on the terminal's power until it or the power ends."""
        self.tap.boot += 1
        try:
            self.world.run(self.world.powered(program))
        except PowerCut:
            where = self.world.power.where
            self.counter.cut_short()
            self.history.add(self.now(), "power", "goes", where=where, lost=self.world.power_back())
        except NEEDS_A_START as error:
            self.history.add(self.now(), "terminal", "ends", error=type(error).__name__, says=str(error))
            self.counter.cut_short()
        except TillError as error:
            self.record.failures.append(f"{type(error).__name__}: {error}")
            self.counter.cut_short()

    async def _program(self) -> None:
        async with self._terminal() as till:
            listening = asyncio.create_task(self._listen(till.events()))
            keeping = asyncio.create_task(till.keep())
            try:
                await self._ready(till)
                await self.counter.come_up(till)
                while self.next < len(self.day.steps):
                    step = self.day.steps[self.next]
                    self.next += 1
                    if isinstance(step, of.Reopen):
                        return
                    await self._do(till, step)
                    await self.counter.hear(till)
                    for task in (keeping, listening):
                        if task.done():  # neither ends by itself
                            task.result()
            finally:
                keeping.cancel()
                listening.cancel()

    def _terminal(self) -> AbstractAsyncContextManager[Terminal]:
        host = {"idempotency_life": float(KEY_LIFE), "offers_lookup": self.day.lookup}
        return self.world.terminal(reader=self.counter.reader, host=host, acknowledgement=self.day.acknowledgement)

    async def _do(self, till: Terminal, step: of.AnyStep) -> None:
        world = self.world
        self.record.happened[str(step.__struct_config__.tag)] += 1
        match step:
            case of.Trouble():
                self.history.add(self.now(), "world", "trouble", rules=step.rules, disk=step.disk)
                if step.rules is not None:
                    world.fault(*step.rules, *_waiting(world.faults))
                if step.disk is not None and isinstance(world.station.disk, CrashDisk):
                    world.disk_faults(*step.disk, *_waiting(world.station.disk.faults))
            case of.PowerOff():
                world.power.cut("between payments")
            case of.HostRestart():
                self.history.add(self.now(), "host", "restarts")
                world.restart_host()
            case of.ClockJump():
                world.skew += step.seconds
                self.history.add(self.now(), "world", "clock jumps", seconds=step.seconds)
            case of.Settle():
                await world.ask("POST", "/sim/settle", {})
            case _:
                self.history.add(self.now(), "till", str(step.__struct_config__.tag), step=step)
                if isinstance(step, of.Charge):
                    self.done += 1
                    self.progress(self.done)
                await self._ready(till)
                await self.counter.serve(till, step)

    async def _ready(self, till: Terminal) -> None:
        """Climb to the top where the terminal is not there, with a merchant who claims it; give up for now where
        that does not work."""
        if till.level is Level.ACTIVATED:
            return
        with suppress(WorldError):
            try:
                await self.world.activate(till)
            except NEEDS_A_START:
                raise
            except TillError as error:
                self.history.add(
                    self.now(), "till", "does not activate", error=type(error).__name__, says=str(error)
                )

    async def _listen(self, heard: AsyncIterator[events.Event]) -> None:
        async for event in heard:
            facts = events.as_dict(event)
            name = facts.pop("event")
            if isinstance(event, events.PaymentChanged):
                self.counter.news = True
            if isinstance(event, events.Overdue) and event.person:
                self.record.for_a_person[event.payment_id] = None
            if name not in QUIET:
                self.history.add(self.now(), "terminal", str(name), **facts)

    # -- the evening ----------------------------------------------------------------------------------------

    def _evening(self) -> None:
        """No more trouble: time passes until nothing is open, or there was enough of it."""
        world = self.world
        self.history.add(self.now(), "world", "evening")
        world.fault()
        world.disk_faults()
        world.skew = 0.0
        for _ in range(ATTEMPTS_TO_OPEN):
            if self._boot_evening():
                return
        self.record.failures.append("the terminal does not come up after the trouble")

    def _boot_evening(self) -> bool:
        self._settled = False
        self._boot(self._settle_down())
        return self._settled

    async def _settle_down(self) -> None:
        began = self.now()
        async with self._terminal() as till:
            listening = asyncio.create_task(self._listen(till.events()))
            keeping = asyncio.create_task(till.keep())
            try:
                while True:
                    await self._ready(till)
                    await self.counter.come_up(till)
                    await self.counter.hear(till)
                    left = [p for p in till.journal.unresolved() if p.state in OPEN]
                    settled = not left and not self.record.undo and self.now() > began + AT_LEAST
                    if settled or self.now() > began + EVENING:
                        break
                    await asyncio.sleep(LOOKS)
                await self.world.network.finished()
                self.config = till.config
            finally:
                keeping.cancel()
                listening.cancel()
        self._settled = True


def _waiting(faults: Chooser[Any]) -> list[dict[str, Any]]:
    """The latest rules that wait for their one time and have not had it."""
    rules = [
        msgspec.to_builtins(rule)
        for rule, fired in zip(faults.rules, faults.fired, strict=True)
        if rule.match.nth is not None and not fired
    ]
    return rules[:WAITING]


def secrets_of(world: World) -> Secrets:
    """What must not be seen of this world: its cards, and every key that the device was made with."""
    from sim.reader.stripes import CARDS

    words: list[str | bytes] = [card.pan for card in CARDS.values()]
    device = world.device
    words += [device["identity"]["secret"], device["zmk"]["key"], device["merchant"]["client_secret"]]
    return Secrets(words)
