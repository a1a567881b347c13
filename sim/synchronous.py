"""The world without async, for tests that are plain functions: a host, a till with its terminal, and what happened.

    with World(folder) as world:
        host, till = Host(world), Till(world)
        till.open()
        host.fault({"match": {"call": "charge"}, "do": "drop_answer"})
        payment = till.charge("12.50", reference="order-17")
        host.fault()
        till.wait(60)
        assert till.payment("order-17").state == "approved"

Time passes only inside of calls, and costs nothing. ``sim.pytest_plugin`` makes fixtures of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import httpx

from hw.card import ManualCard
from sim.power import PowerCut
from sim.reader.handed import HandedReader
from sim.soak.counter import STRIPES
from sim.soak.history import History
from sim.world import World
from terminal import events
from terminal.money import Amount
from terminal.payment import Payment
from terminal.terminal import Terminal

T = TypeVar("T")
_Work = tuple[Coroutine[Any, Any, Any], asyncio.Future[Any]] | None


class Host:
    """The host's side of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def fault(self, *rules: dict[str, Any]) -> None:
        """What goes wrong from now on (``sim.faults``); nothing where there is none. Raises FaultError."""
        self.world.fault(*rules)

    def charges(self) -> list[dict[str, Any]]:
        """What is in its ledger: charges with their refunds."""
        return self.world.run(self.world.books())

    def charge(self, reference: str) -> dict[str, Any]:
        """The one charge of that reference. Raises LookupError where there is none, or more than one."""
        found = [charge for charge in self.charges() if charge["reference"] == reference]
        if len(found) != 1:
            raise LookupError(f"the host has {len(found)} charges of the reference {reference!r}")
        return found[0]

    def exchanges(self) -> list[str]:
        """Which calls it judged, and how they ended: ``["charge 200", ...]``."""
        return self.world.run(self.world.exchanges())

    def settle(self) -> None:
        """All that is approved goes to clearing: from now on it can be refunded, and no longer canceled."""
        self.world.run(self.world.ask("POST", "/sim/settle", {}))

    def change_device(self, **changes: Any) -> None:
        """``revoked=True``, ``superseded=True``, ``unclaimed=True``, ``actions=[...]``: as ``POST
        /sim/devices/{id}``."""
        self.world.run(self.world.ask("POST", f"/sim/devices/{self.world.device['device_id']}", changes))


class Till:
    """A till and its terminal, which are one program. ``terminal`` is the real one; ``settings`` are its settings.

    Not open at first. Everything that waits takes the world's time, and raises what ``terminal.Terminal`` does;
    PowerCut where the power went: then ``open`` again.
    """

    def __init__(self, world: World, history: History | None = None, **settings: Any) -> None:
        self.world, self.history, self.settings = world, history or History(), settings
        self.reader = HandedReader()
        self.terminal: Terminal
        self._program: asyncio.Task[None] | None = None
        self._work: asyncio.Queue[_Work] = asyncio.Queue()
        world.network.before = self._sent

    def open(self) -> None:
        """Start the program: the terminal from its home (made and activated the first time), kept in order from now
        on."""
        if self._program is not None:
            raise RuntimeError("the till is open already")
        if not self.world.home.exists():
            self.world.run(self.world.provision())
        self._work = asyncio.Queue()
        self.world.run(self._start())
        self.run(self.world.activate(self.terminal))

    def close(self) -> None:
        """End the program in good order; nothing where it does not run."""
        if self._program is not None:
            self.world.run(self._end())

    def power_cut(self) -> None:
        """The power goes, between two things; what was not synchronised is gone. ``open`` starts again."""
        self.world.power.off()
        with suppress(PowerCut):
            self.world.run(self._end())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the program's, as ``till.run(till.terminal.outcome(payment_id))``."""
        if self._program is None:
            work.close()
            raise RuntimeError("the till is not open")
        result: T = self.world.run(self._asked(self._program, work))
        return result

    def present(self, card: str = "visa") -> None:
        """Somebody holds one of the cards of ``sim.reader.stripes``: whatever asks for a card next gets it."""
        self.reader.cards.clear()
        self.reader.cards.append(STRIPES[card])

    def charge(
        self,
        amount: Amount | str,
        *,
        reference: str,
        card: str = "visa",
        typed: bool = False,
        **more: Any,
    ) -> Payment:
        """Take money from one of the cards of ``sim.reader.stripes``, swiped or ``typed``. ``amount`` in text is in
        euros; ``more`` is what ``Terminal.charge`` takes besides."""
        self.present(card)
        stripe = STRIPES[card]
        given = ManualCard(stripe.pan, stripe.expiry) if typed else None
        wanted = amount if isinstance(amount, Amount) else Amount.parse(amount, "EUR")
        return self.run(self.terminal.charge(wanted, reference=reference, card=given, **more))

    def refund(self, charge_id: str, amount: Amount | str | None = None, *, reason: str = "returned") -> Payment:
        """Give back part of a charge, or all that is left of it."""
        wanted = Amount.parse(amount, "EUR") if isinstance(amount, str) else amount
        return self.run(self.terminal.refund(charge_id, wanted, reason=reason))

    def cancel(self, charge_id: str) -> Payment:
        """Void a charge before settlement."""
        return self.run(self.terminal.cancel(charge_id))

    def confirm(self, reference: str) -> Payment:
        """The goods are out."""
        return self.run(self.terminal.confirm(reference))

    def void(self, reference: str) -> Payment:
        """The goods are not to be had."""
        return self.run(self.terminal.void(reference))

    def wait(self, seconds: float) -> None:
        """Let so much time pass: what is open is gone on with meanwhile."""
        self.run(asyncio.sleep(seconds))

    def payment(self, reference: str) -> Payment:
        """The charge of that reference, as the journal has it. Raises LookupError where there is none."""
        found = self.terminal.journal.charge_by_reference(reference)
        if found is None:
            raise LookupError(f"the journal has no charge of the reference {reference!r}")
        return found

    def payments(self) -> list[Payment]:
        """All of the journal, oldest first."""
        return self.terminal.journal.payments()

    # -- below ----------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._program = asyncio.create_task(self.world.power.running(self._main(up)))
        await asyncio.wait((up, self._program), return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            await self._end()

    async def _main(self, up: asyncio.Future[None]) -> None:
        async with self.world.terminal(reader=self.reader, **self.settings) as self.terminal:
            listening = asyncio.create_task(self._listen(self.terminal.events()))
            keeping = asyncio.create_task(self.terminal.keep())
            up.set_result(None)
            while (asked := await self._work.get()) is not None:
                work, answer = asked
                try:
                    answer.set_result(await work)
                except Exception as error:
                    answer.set_exception(error)
            listening.cancel()
            keeping.cancel()

    async def _asked(self, program: asyncio.Task[None], work: Coroutine[Any, Any, Any]) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._work.put_nowait((work, answer))
        await asyncio.wait((answer, program), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            work.close()
            await self._end()
            raise RuntimeError("the till's program has ended")
        return answer.result()

    async def _end(self) -> None:
        """Wait for the program's end; raises what it ended with."""
        program, self._program = self._program, None
        if program is None:
            return
        self._work.put_nowait(None)
        try:
            await program
        except PowerCut as cut:
            self.history.add(self.world.loop.time(), "power", "goes", where=str(cut))
            self.world.power_back()
            raise

    def _sent(self, request: httpx.Request) -> None:
        told = f"{request.method} {request.url.path}"
        now = self.world.loop.time()
        self.world.loop.call_soon(self.history.add, now, "terminal", told)  # after the events that came before it

    async def _listen(self, heard: AsyncIterator[events.Event]) -> None:
        async for event in heard:
            facts = events.as_dict(event)
            self.history.add(self.world.loop.time(), "terminal", str(facts.pop("event")), **facts)
