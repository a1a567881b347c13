"""Whether the shopper is still there: nobody says so, and so it is concluded from what the till asks.

In memory only: after a restart a payment's own beginning has to do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from terminal.clock import HostClock
from terminal.payment import Payment, State


class Presence:
    """Who waits for which payment. Durations are in seconds."""

    def __init__(self, clock: HostClock, *, shopper_wait: float, confirm_within: float) -> None:
        self._clock, self._shopper_wait, self._confirm_within = clock, shopper_wait, confirm_within
        self._awaited = Counter[str]()
        self._asked: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._gone = set[str]()

    @contextmanager
    def awaited(self, payment_id: str) -> Iterator[None]:
        """Somebody waits for the payment while the block runs, and has asked for it last when it ends."""
        self._awaited[payment_id] += 1
        try:
            yield
        finally:
            self._awaited[payment_id] -= 1
            self._asked[payment_id] = _time()

    def gone(self, payment_id: str) -> None:
        """The till has given the payment up, whatever it asks from now on."""
        self._gone.add(payment_id)

    def there(self, payment: Payment) -> bool:
        """Somebody waits for the payment, or has asked for it no longer ago than ``shopper_wait``."""
        if payment.id in self._gone:
            return False
        if self._awaited[payment.id]:
            return True
        if payment.id in self._asked:
            return _time() - self._asked[payment.id] < self._shopper_wait
        age = self._clock.now() - payment.created_at
        return timedelta() <= age < timedelta(seconds=self._shopper_wait)

    def confirm_left(self, payment: Payment) -> float:
        """Seconds that are left to confirm a payment which is held; zero and less when they are over."""
        if payment.id not in self._held:
            age = self._clock.now() - (payment.sent_at or payment.created_at)
            self._held[payment.id] = _time() - max(0.0, age.total_seconds())
        return self._held[payment.id] + self._confirm_within - _time()

    def heed(self, payment: Payment) -> None:
        """A payment has changed: what is held is held from now on, what needs nobody is forgotten."""
        if payment.state is State.HELD:
            self._held[payment.id] = _time()
        elif payment.state not in (State.IN_FLIGHT, State.IN_DOUBT, State.PENDING):
            self._held.pop(payment.id, None)
            self._asked.pop(payment.id, None)
            self._gone.discard(payment.id)


def _time() -> float:
    return asyncio.get_running_loop().time()
