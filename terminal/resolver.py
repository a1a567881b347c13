"""Goes on with every open payment while new ones are taken: one step at a time, between payments, oldest first.

What is tried in vain is tried again after a wait that doubles its ceiling and is drawn anywhere below it
(exponential backoff, full jitter). While the host does not answer at all nobody is tried; as soon as it answers
anything, all are. What was approved offline is forwarded in its order. Refunds that are to be looked at again
(``terminal.refund_watch``) come last.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from terminal.clock import HostClock, Random
from terminal.course import Ended
from terminal.errors import HostSilent, HostUnreachable, JournalError, TillError
from terminal.events import Event, Overdue
from terminal.exchange import Exchange
from terminal.journal import Journal
from terminal.payment import OPEN, Payment, State
from terminal.presence import Presence
from terminal.recovery import Act
from terminal.refund_watch import RefundWatch
from terminal.settings import Settings
from terminal.turn import Interrupted, Turn

WAIT_FIRST: Final = 1.0
WAIT_MOST: Final = 300.0
"""Seconds: no wait is shorter than the first, and none longer than the other."""
DOUBTFUL: Final = OPEN - {State.HELD, State.OFFLINE}
"""What should not last: a doubt, or a reversal."""


class Resolver:
    """See the module. ``round`` does what is due now; ``next_due`` says when to call it next."""

    def __init__(
        self,
        exchange: Exchange,
        journal: Journal,
        clock: HostClock,
        random: Random,
        settings: Settings,
        emit: Callable[[Event], None],
        presence: Presence,
        turn: Turn,
        be_ready: Callable[[], Awaitable[None]],
        refunds: RefundWatch,
    ) -> None:
        self._exchange, self._journal, self._clock, self._random = exchange, journal, clock, random
        self._settings, self._emit, self._presence = settings, emit, presence
        self._turn, self._be_ready, self._refunds = turn, be_ready, refunds
        self._due: dict[str, float] = {}
        self._tried: defaultdict[str, float] = defaultdict(lambda: -math.inf)
        self._tries: dict[str, int] = {}
        self._alarmed: dict[str, bool] = {}  # whether it was a person who had to be called
        self._unanswered: set[str] = set()
        self._quiet: tuple[float, int] | None = None  # until when, and how many answers there had been before it

    async def round(self) -> None:
        """One step of everything that is due; ends early where a payment comes or the host does not answer.

        Who was tried longest ago comes first, so that one that never gets an answer keeps nobody from theirs.
        Then what is old and still open is told of, also where nothing can be written. Raises JournalError.
        """
        try:
            await self._steps()
        except JournalError:
            self._tell_what_is_old()
            raise
        self._tell_what_is_old()

    def next_due(self) -> float | None:
        """Seconds until there is something to do; None when there is nothing open."""
        waits = [self._wait(payment) for payment in self._journal.unresolved()]
        if (refunds := self._refunds.next_due()) is not None:
            waits.append(refunds)
        return max(0.0, min(waits), self._silence()) if waits else None

    def wake(self) -> None:
        """The host answers: due is whatever it did not answer before. What it did answer waits for its time."""
        self._quiet = None
        self._tries.pop("", None)
        for payment_id in self._unanswered:
            self._due.pop(payment_id, None)
        self._unanswered.clear()

    async def everything(self) -> list[Payment]:
        """A step of every open payment at once, due or not; the payments as they stand then."""
        found = self._journal.unresolved()
        for payment in found:
            async with self._turn:
                await self._be_ready()
                await self._go_on(payment.id)
        return [self._journal.payment(payment.id) for payment in found]

    async def until_it_changes(self, payment: Payment) -> None:
        """Go on with the payment if it is due; else wait until it is, or until anything has changed."""
        wait = max(self._wait(payment), self._silence())
        if wait > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._exchange.changed()
        else:
            with contextlib.suppress(Interrupted):
                await self._turn.between(partial(self._step, payment.id))

    # -- below ----------------------------------------------------------------------------------------------

    async def _steps(self) -> None:
        found = self._journal.unresolved()
        due = [payment.id for payment in found if self._wait(payment) <= 0]
        steps = [partial(self._step, payment_id) for payment_id in sorted(due, key=self._tried.__getitem__)]
        steps += [partial(self._look, refund_id) for refund_id in self._refunds.due()]
        for step in steps:
            if self._silence() > 0:
                return
            try:
                await self._turn.between(step)
            except Interrupted:
                return

    async def _step(self, payment_id: str) -> None:
        silent, self._tried[payment_id] = self._exchange.silent, _time()
        try:
            await self._be_ready()
            await self._go_on(payment_id)
        except JournalError:
            raise
        except TillError:  # the terminal cannot pay now, or no keys are to be had
            self._unanswered.add(payment_id)
            self._fall_silent()
        if self._exchange.silent > silent:
            self._unanswered.add(payment_id)
            self._fall_silent()

    async def _look(self, refund_id: str) -> None:
        try:
            await self._refunds.look(refund_id)
        except (HostUnreachable, HostSilent):
            self._fall_silent()

    async def _go_on(self, payment_id: str) -> None:
        payment = self._journal.payment(payment_id)
        if payment.state is State.OFFLINE and self._is_before(payment):
            self._due[payment_id] = _time() + WAIT_FIRST
            return
        ended = await self._exchange.again(payment)
        self._plan(ended)
        if ended.payment.parent and ended.payment.state not in OPEN:
            charge = self._journal.payment(ended.payment.parent)
            if charge.state in OPEN:
                self._plan(await self._exchange.again(charge))

    def _is_before(self, payment: Payment) -> bool:
        """Whether another one that was approved offline is to be forwarded before this one."""
        stored = [each.id for each in self._journal.unresolved() if each.state is State.OFFLINE]
        return stored[0] != payment.id

    def _plan(self, ended: Ended) -> None:
        payment, now = ended.payment, _time()
        if payment.state not in OPEN:
            for known in (self._due, self._tries, self._tried):
                known.pop(payment.id, None)
            return
        self._alarm(payment, person=ended.act is Act.ASK_PERSON)
        tries = self._tries[payment.id] = self._tries.get(payment.id, 0) + 1
        self._due[payment.id] = now + self._backoff(tries)

    def _tell_what_is_old(self) -> None:
        for payment in self._journal.unresolved():
            self._alarm(payment, person=False)

    def _alarm(self, payment: Payment, *, person: bool) -> None:
        """Once for its age, and once where a person is wanted: that is never followed by the lesser one."""
        now = self._clock.now()
        age = (now - payment.created_at).total_seconds()
        overdue = person or (payment.state in DOUBTFUL and age >= self._settings.alarm_after)
        told = self._alarmed.get(payment.id)
        if overdue and (told is None or (person and not told)):
            self._alarmed[payment.id] = person
            self._emit(
                Overdue(
                    at=now,
                    payment_id=payment.id,
                    kind=payment.kind.value,
                    state=payment.state.value,
                    reference=payment.reference,
                    amount=payment.amount,
                    seconds=age,
                    person=person,
                )
            )

    def _wait(self, payment: Payment) -> float:
        if payment.state is State.HELD:
            return self._presence.confirm_left(payment)
        due = self._due.get(payment.id)
        return -math.inf if due is None else due - _time()

    def _silence(self) -> float:
        """Seconds for which nobody is tried; at the first answer to anybody all are tried at once."""
        if self._quiet is None:
            return 0.0
        until, heard = self._quiet
        if self._exchange.heard > heard:
            self.wake()
            return 0.0
        return until - _time()

    def _fall_silent(self) -> None:
        tries = self._tries[""] = self._tries.get("", 0) + 1
        self._quiet = (_time() + self._backoff(tries), self._exchange.heard)

    def _backoff(self, tries: int) -> float:
        share: float = int.from_bytes(self._random(4), "big") / 2**32
        return max(WAIT_FIRST, min(WAIT_MOST, WAIT_FIRST * 2.0 ** min(tries, 16)) * share)


def _time() -> float:
    return asyncio.get_running_loop().time()
