"""The till of the killing loop: it takes orders, one after another, until it is killed or told to end.

What it does with an order follows from a seed and the order's number alone, so that the next life of a till that
was killed asks for the same things again. What it asks and what it is told goes out as lines, one JSON object each:
a pipe keeps what a dead process has written, and so these lines are what the till's people have seen.

    asked  seen  done        of an order; ``seen`` holds the payment as it was given back
    payment_changed          the terminal's own event, which comes at once after the commit
    opened  ended            of the process
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from hw.card import ManualCard
from terminal import Amount, Terminal, load_settings
from terminal.errors import HostUnreachable
from terminal.events import PaymentChanged, as_dict
from terminal.payment import TAKEN, Kind, Payment, State

CARDS = ("4111111111111111", "5413330089010012", "378282246310005", "6011111111111117")
ENDINGS = ((0, 91), (51, 8), (40, 1))
"""The last two digits of an amount, which the simulated host goes by, and how often they come in a hundred."""
PAUSE = 0.01
"""Seconds before the till asks again for what nobody can say yet."""
TRIES = 3000
NOT_YET = frozenset({State.IN_FLIGHT, State.IN_DOUBT, State.REFUSED, State.WITHDRAWN})
"""Nothing to tell a shopper: the till asks again. (The host refuses nothing that it was not sent broken.)"""

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What the till wants of one order. ``refunds`` are in minor units, in order; 0 is what is left."""

    number: int
    minor: int
    card: str
    refunds: tuple[int, ...]
    cancel: bool
    asked_twice: bool

    @property
    def reference(self) -> str:
        return f"order-{self.number}"

    @property
    def amount(self) -> Amount:
        return Amount(self.minor, "EUR")


def order(seed: int, number: int) -> Order:
    """The order of that number, always the same one."""
    chance = Random(f"{seed} order {number}")
    ending = chance.choices([last for last, _ in ENDINGS], [often for _, often in ENDINGS])[0]
    minor = 100 * chance.randint(10, 200) + ending
    wish = chance.random()
    refunds: tuple[int, ...] = ()
    if wish < 0.25:
        refunds = (chance.randint(1, 400),) if wish < 0.15 else (chance.randint(1, 400), 0)
    cancel = 0.25 <= wish < 0.4
    return Order(number, minor, chance.choice(CARDS), refunds, cancel, asked_twice=chance.random() < 0.1)


class Stuck(Exception):
    """A payment that nobody can say anything of, however often the till asks."""


class Till:
    def __init__(self, terminal: Terminal, tell: Tell) -> None:
        self._terminal, self._tell = terminal, tell

    async def serve(self, order: Order) -> None:
        """Do all that the order wants. One whose charge is pending is not done, and is asked for again later."""
        self._tell({"event": "asked", "order": order.number})
        for _ in range(2 if order.asked_twice else 1):
            charge = await self._insist(order, 0, lambda: self._charge(order))
        if charge.state is State.PENDING:
            return
        if charge.state in TAKEN:
            for step, minor in enumerate(order.refunds, start=1):
                await self._insist(order, step, partial(self._refund, charge, step, minor))
            if order.cancel:
                await self._insist(order, 1, lambda: self._terminal.cancel(charge.charge_id))
        self._tell({"event": "done", "order": order.number})

    async def _charge(self, order: Order) -> Payment:
        card = ManualCard(order.card, "2812")
        return await self._terminal.charge(order.amount, reference=order.reference, card=card)

    async def _refund(self, charge: Payment, step: int, minor: int) -> Payment:
        """A refund has no reference of its own: a till that died looks for it by its reason before it asks."""
        reason = f"{charge.reference}/{step}"
        for known in self._terminal.journal.concerning(charge):
            if known.kind is Kind.REFUND and known.reference == reason and known.state is State.APPROVED:
                return known
        amount = Amount(minor, "EUR") if minor else None
        return await self._terminal.refund(charge.charge_id, amount, reason=reason)

    async def _insist(self, order: Order, step: int, ask: Callable[[], Awaitable[Payment]]) -> Payment:
        for _ in range(TRIES):
            try:
                payment = await ask()
            except HostUnreachable:
                await asyncio.sleep(PAUSE)
                continue
            if payment.state not in NOT_YET:
                told = msgspec.to_builtins(payment)
                self._tell({"event": "seen", "order": order.number, "step": step, "payment": told})
                return payment
            await asyncio.sleep(PAUSE)
        raise Stuck(f"{order.reference}, step {step}")


@dataclass(frozen=True, slots=True)
class Life:
    """What one life of the till is to do: the orders that an earlier one owes, then new ones from ``number``.

    ``attempts`` is how often the terminal itself tries a call, ``pending_wait`` how long a charge waits for a host
    that calls it pending, in seconds. The ``last`` life takes no new orders, and brings to its end what is open.
    """

    owed: tuple[int, ...]
    number: int
    attempts: int
    pending_wait: float
    last: bool = False


async def live(home: Path, seed: int, life: Life, tell: Tell, ends: Callable[[], bool]) -> None:
    """One life, until ``ends`` says so between two orders."""
    settings = load_settings(home)
    host = msgspec.structs.replace(settings.host, attempts=life.attempts, read_timeout=5.0)
    settings = msgspec.structs.replace(settings, host=host, pending_poll=0.5, pending_wait=life.pending_wait)
    async with Terminal.open(settings) as terminal:
        shown = asyncio.create_task(_show(terminal, tell))
        await terminal.activate()
        tell({"event": "opened", "open": [payment.state.value for payment in terminal.journal.unresolved()]})
        till = Till(terminal, tell)
        await terminal.resolve()
        for owed in life.owed:
            await till.serve(order(seed, owed))
        number = life.number
        while not life.last and not ends():
            await till.serve(order(seed, number))
            number += 1
        for _ in range(TRIES if life.last else 0):
            if not await terminal.resolve():
                break
            await asyncio.sleep(PAUSE)
    await shown
    tell({"event": "ended"})


async def _show(terminal: Terminal, tell: Tell) -> None:
    async for event in terminal.events():
        if isinstance(event, PaymentChanged):
            tell(as_dict(event))
