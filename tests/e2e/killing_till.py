"""The till of the killing loop: it takes orders, one after another, until it is killed or told to end.

What it does with an order follows from a seed and the order's number alone, so that the next life of a till that
was killed asks for the same things again. What it asks and what it is told goes out as lines, one JSON object each:
a pipe keeps what a dead process has written, and so these lines are what the till's people have seen.

    asked  seen  done        of an order; ``seen`` holds the payment as it was given back
    told                     a payment whose outcome the terminal gives again: an earlier life may not have heard it
    payment_changed          the terminal's own event, which comes at once after the commit
    opened  ended            of the process
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from hw.card import ManualCard
from terminal import Amount, Terminal, load_settings
from terminal.errors import HostUnreachable
from terminal.events import Event, PaymentChanged, as_dict
from terminal.payment import TAKEN, Kind, Outcome, Payment, State

CARDS = ("4111111111111111", "5413330089010012", "378282246310005", "6011111111111117")
ENDINGS = ((0, 88), (51, 7), (30, 4), (40, 1))
"""The last two digits of an amount, which the simulated host goes by, and how often they come in a hundred."""
PAUSE = 0.01
"""Seconds before the till asks again for what nobody can say yet."""
TRIES = 3000
LAST_PAUSE, LAST_TRIES = 0.2, 600
LONGEST_STAY = 0.008
"""Seconds after which somebody has gone who does not wait for the answer."""
REQUEST_LIFE = 60.0
"""The least that the setting takes: until then a payment that the host has not may still arrive."""
ASKED_AGAIN = frozenset({State.IN_FLIGHT, State.IN_DOUBT, State.ABANDONED, State.REFUSED, State.WITHDRAWN})
"""Nothing to tell a shopper: the till asks again. (The host refuses nothing that it was not sent broken.)"""

Tell = Callable[[dict[str, Any]], None]


class Wish(StrEnum):
    """What becomes of an order when it is paid. Who leaves does not wait for the answer."""

    KEEP = "keep"
    REFUND = "refund"
    REFUND_ALL = "refund_all"
    CANCEL = "cancel"
    CONFIRM = "confirm"
    VOID = "void"
    LEAVE = "leave"


WISHES = (
    (Wish.KEEP, 44),
    (Wish.REFUND, 12),
    (Wish.REFUND_ALL, 8),
    (Wish.CANCEL, 14),
    (Wish.CONFIRM, 12),
    (Wish.VOID, 8),
    (Wish.LEAVE, 2),
)


@dataclass(frozen=True, slots=True)
class Order:
    """What the till wants of one order. ``refunds`` are in minor units, in order; 0 is what is left."""

    number: int
    minor: int
    card: str
    wish: Wish
    refunds: tuple[int, ...]
    accept_partial: bool
    asked_twice: bool
    stay: float

    @property
    def reference(self) -> str:
        return f"order-{self.number}"

    @property
    def amount(self) -> Amount:
        return Amount(self.minor, "EUR")


def order(seed: int, number: int, *, leaving: bool = True) -> Order:
    """The order of that number, always the same one. Without ``leaving`` everybody waits for the answer."""
    chance = Random(f"{seed} order {number}")
    ending = chance.choices([last for last, _ in ENDINGS], [often for _, often in ENDINGS])[0]
    wish = chance.choices([wish for wish, _ in WISHES], [often for _, often in WISHES])[0]
    if wish is Wish.LEAVE and not leaving:
        wish = Wish.KEEP
    part = chance.randint(1, 400)
    return Order(
        number,
        100 * chance.randint(10, 200) + ending,
        chance.choice(CARDS),
        wish,
        {Wish.REFUND: (part,), Wish.REFUND_ALL: (part, 0)}.get(wish, ()),
        accept_partial=chance.random() < 0.5,
        asked_twice=chance.random() < 0.1,
        stay=chance.uniform(0, LONGEST_STAY),
    )


class Stuck(Exception):
    """A payment that nobody can say anything of, however often the till asks."""


class Till:
    def __init__(self, terminal: Terminal, tell: Tell) -> None:
        self._terminal, self._tell = terminal, tell

    async def serve(self, order: Order) -> None:
        """Do all that the order wants. One whose charge is pending is not done, and is asked for again later."""
        self._tell({"event": "asked", "order": order.number})
        charge = await (self._left(order) if order.wish is Wish.LEAVE else self._paid(order))
        if charge is not None and charge.outcome is Outcome.PENDING:
            return
        if charge is not None and charge.state in TAKEN:
            for step, minor in enumerate(order.refunds, start=1):
                await self._insist(order, partial(self._refund, charge, step, minor))
            if order.wish is Wish.CANCEL:
                await self._insist(order, lambda: self._terminal.cancel(charge.charge_id))
        self._tell({"event": "done", "order": order.number})

    async def _paid(self, order: Order) -> Payment:
        for _ in range(2 if order.asked_twice else 1):
            charge = await self._insist(order, lambda: self._charge(order))
        if charge.state is State.HELD:
            decide = self._terminal.void if order.wish is Wish.VOID else self._terminal.confirm
            charge = await self._insist(order, lambda: decide(order.reference))
        return charge

    async def _left(self, order: Order) -> Payment | None:
        """The charge of somebody who is gone too soon, as the journal has it; None where none was begun."""
        if self._terminal.journal.charge_by_reference(order.reference) is None:
            with contextlib.suppress(TimeoutError, HostUnreachable):
                async with asyncio.timeout(order.stay):
                    self._see(order, await self._charge(order))
        charge = self._terminal.journal.charge_by_reference(order.reference)
        if charge is not None and charge.outcome is not Outcome.PENDING:
            self._see(order, charge)
        return charge

    async def _charge(self, order: Order) -> Payment:
        return await self._terminal.charge(
            order.amount,
            reference=order.reference,
            card=ManualCard(order.card, "2812"),
            hold=order.wish in (Wish.CONFIRM, Wish.VOID),
            accept_partial=order.accept_partial,
        )

    async def _refund(self, charge: Payment, step: int, minor: int) -> Payment:
        """A refund has no reference of its own: a till that died looks for it by its reason before it asks."""
        reason = f"{charge.reference}/{step}"
        for known in self._terminal.journal.concerning(charge):
            if known.kind is Kind.REFUND and known.reference == reason and known.state is State.APPROVED:
                return known
        amount = Amount(minor, "EUR") if minor else None
        return await self._terminal.refund(charge.charge_id, amount, reason=reason)

    async def _insist(self, order: Order, ask: Callable[[], Awaitable[Payment]]) -> Payment:
        for _ in range(TRIES):
            try:
                payment = await ask()
            except HostUnreachable:
                await asyncio.sleep(PAUSE)
                continue
            if payment.state not in ASKED_AGAIN:
                self._see(order, payment)
                return payment
            await asyncio.sleep(PAUSE)
        raise Stuck(order.reference)

    def _see(self, order: Order, payment: Payment) -> None:
        self._tell({"event": "seen", "order": order.number, "payment": msgspec.to_builtins(payment)})


@dataclass(frozen=True, slots=True)
class Life:
    """What one life of the till is to do: the orders that an earlier one owes, then new ones from ``number``.

    ``attempts`` is how often the terminal itself tries a call, ``pending_wait`` how long a charge waits for a host
    that calls it pending, in seconds; ``keeps`` says that the terminal is kept in order meanwhile, ``leaving`` that
    some leave before they have their answer. The ``last`` life takes no new orders, and brings to its end what is
    open.
    """

    owed: tuple[int, ...]
    number: int
    attempts: int
    pending_wait: float
    keeps: bool
    leaving: bool
    last: bool = False


async def live(home: Path, seed: int, life: Life, tell: Tell, ends: Callable[[], bool]) -> None:
    """One life, until ``ends`` says so between two orders."""
    settings = load_settings(home)
    host = {"attempts": life.attempts, "read_timeout": 5.0, "request_life": REQUEST_LIFE}
    settings = msgspec.structs.replace(
        settings,
        host=msgspec.structs.replace(settings.host, **host),
        pending_poll=0.5,
        pending_wait=life.pending_wait,
    )
    async with Terminal.open(settings) as terminal, asyncio.TaskGroup() as beside:
        shown = beside.create_task(_show(terminal.events(), tell))
        await terminal.activate()
        tell({"event": "opened", "open": [payment.state.value for payment in terminal.journal.unresolved()]})
        for payment in terminal.outcomes():
            tell({"event": "told", "payment": msgspec.to_builtins(payment)})
            terminal.acknowledge(payment.id)
        kept = beside.create_task(terminal.keep()) if life.keeps else None
        till = Till(terminal, tell)
        await terminal.resolve()
        owed = [order(seed, number, leaving=life.leaving) for number in life.owed]
        for each in owed:
            await till.serve(each)
        number = life.number
        while not life.last and not ends():
            await till.serve(order(seed, number, leaving=life.leaving))
            number += 1
        if life.last:
            await _finish(terminal, till, owed)
        for task in filter(None, (kept, shown)):
            task.cancel()
    tell({"event": "ended"})


async def _finish(terminal: Terminal, till: Till, owed: list[Order]) -> None:
    """Bring to its end what is open, and hear of it."""
    for _ in range(LAST_TRIES):
        if not await terminal.resolve():
            break
        await asyncio.sleep(LAST_PAUSE)
    for each in owed:
        await till.serve(each)


async def _show(events: AsyncIterator[Event], tell: Tell) -> None:
    async for event in events:
        if isinstance(event, PaymentChanged):
            tell(as_dict(event))
