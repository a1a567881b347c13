"""Looks at refunds again after they were approved: a host may fail one later, and nobody would hear of it.

Only where the host offers look-ups. How far the looks have come is written down, so that a start which was too
short for one, or a look in vain, leaves it to the next start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from terminal.clock import HostClock
from terminal.errors import HostRefused, HostSilent, HostUnreachable, JournalError, TillError
from terminal.exchange import Exchange
from terminal.journal import Journal
from terminal.payment import Payment, State
from terminal.refusals import GONE
from terminal.settings import Settings

REFUND_CHECKS: Final = (120.0, 3600.0, 86_400.0)
"""Seconds after its beginning at which an approved refund is looked up again."""
LOOK_AGAIN: Final = 300.0
"""Seconds after a look that brought nothing."""
SEEN_EVERY: Final = 60.0
"""Seconds by which these looks have to come further before that is written down."""


class RefundWatch:
    """See the module. ``due`` says which refunds to ``look`` at now, ``next_due`` when there are more."""

    def __init__(
        self,
        exchange: Exchange,
        journal: Journal,
        clock: HostClock,
        settings: Settings,
        be_ready: Callable[[], Awaitable[None]],
    ) -> None:
        self._exchange, self._journal, self._clock = exchange, journal, clock
        self._settings, self._be_ready = settings, be_ready
        self._watched: dict[str, datetime] = {}
        self._not_before: dict[str, datetime] = {}
        self._seen: datetime | None = None
        exchange.on_refund = self._watch
        now = clock.now()
        began = min(now, journal.last_at or now)  # a clock that is ahead at the start makes no refund old
        self._since: datetime | None = began - timedelta(seconds=REFUND_CHECKS[-1])

    def due(self) -> list[str]:
        """The ids of the refunds to look at now."""
        now = self._clock.now()
        return [refund_id for refund_id, at in self._moments().items() if at <= now]

    def next_due(self) -> float | None:
        """Seconds until the next one is due, below zero where that is over; None: there is none."""
        now = self._clock.now()
        moments = self._moments()
        return (min(moments.values()) - now).total_seconds() if moments else None

    async def look(self, refund_id: str) -> None:
        """Ask the host what has become of it, and write that down.

        Raises HostUnreachable and HostSilent where nobody answers, and JournalError. What else goes wrong is tried
        again later.
        """
        refund = self._journal.payment(refund_id)
        try:
            if refund.state is State.APPROVED:
                await self._be_ready()
                refund = await self._exchange.checked(refund)
        except JournalError:
            raise
        except HostRefused as refusal:
            if refusal.status != GONE:
                self._postpone(refund_id)
                return  # else the host knows nothing of it, and that was the look
        except (HostUnreachable, HostSilent):
            self._postpone(refund_id)
            raise
        except TillError:
            self._postpone(refund_id)
            return
        self._not_before.pop(refund_id, None)
        del self._watched[refund_id]
        self._watch(refund, since=self._clock.now())
        self._remember()

    # -- below ----------------------------------------------------------------------------------------------

    def _postpone(self, refund_id: str) -> None:
        self._not_before[refund_id] = self._clock.now() + timedelta(seconds=LOOK_AGAIN)

    def _moments(self) -> dict[str, datetime]:
        """Refunds that are to be looked at again, and when; those of before the start are read when first needed,
        so that they keep no payment waiting."""
        since, self._since = self._since, None
        if since is not None:
            seen = self._journal.refunds_seen()
            self._seen = seen if seen is None or seen <= self._clock.now() else None  # by a clock that was ahead
            for refund in self._journal.refunds_since(since):
                if refund.id not in self._watched:
                    self._watch(refund, since=self._seen)
        return self._watched | self._not_before

    def _watch(self, refund: Payment, since: datetime | None = None) -> None:
        """``since``: the looks that were due until then have been made."""
        if self._settings.host.offers_lookup and refund.state is State.APPROVED and refund.refund_id:
            moments = [refund.created_at + timedelta(seconds=after) for after in REFUND_CHECKS]
            later = [moment for moment in moments if since is None or moment > since]
            if later:
                self._watched[refund.id] = later[0]

    def _remember(self) -> None:
        """Write down how far all looks have been made: at most once in a while, as it costs a commit."""
        due = min([self._clock.now(), *self._watched.values()])
        until = due - timedelta(seconds=1)
        if self._seen is None or abs(until - self._seen) >= timedelta(seconds=SEEN_EVERY):
            self._seen = until
            self._journal.saw_refunds(until)
