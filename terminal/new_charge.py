"""A charge as it begins: may it be, is it perhaps the same sale as another, and may it be approved here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from terminal.cards import Cards, ReadCard, application_of
from terminal.clock import HostClock
from terminal.config import Config, Parameters, floor_limit
from terminal.errors import AmountError
from terminal.events import Event, SuspectedDuplicate
from terminal.exchange import Exchange
from terminal.journal import Journal
from terminal.money import Amount
from terminal.offline import exposure_of, may_approve
from terminal.payment import Kind, Outcome, Payment
from terminal.settings import Settings


class NewCharges:
    """Makes charges; ``config`` and ``parameters`` give what the host told this terminal, or None."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        clock: HostClock,
        exchange: Exchange,
        cards: Cards,
        emit: Callable[[Event], None],
        config: Callable[[], Config | None],
        parameters: Callable[[], Parameters | None],
    ) -> None:
        self._settings, self._journal, self._clock, self._exchange = settings, journal, clock, exchange
        self._cards, self._emit, self._config, self._parameters = cards, emit, config, parameters

    def check(self, amount: Amount) -> None:
        """Raise AmountError for more than this terminal takes."""
        limit = self._settings.max_amounts.get(amount.currency)
        if limit is not None and amount.minor > limit:
            raise AmountError(
                f"{amount} is above this terminal's limit of {Amount(limit, amount.currency)}",
                advice="The limit is the setting max_amounts.",
            )

    def of(self, read: ReadCard, amount: Amount, reference: str, *, hold: bool, accept_partial: bool) -> Payment:
        """The charge of a card; tells of one of the same card and amount a little while ago."""
        card, now = self._cards.known_by(read), self._clock.now()
        payment = Payment(
            id=self._exchange.payment_id(Kind.CHARGE, reference),
            kind=Kind.CHARGE,
            reference=reference,
            amount=amount,
            created_at=now,
            entry_mode=read.entry_mode,
            masked_pan=read.masked_pan,
            card=card,
            hold=hold,
            accept_partial=accept_partial,
        )
        since = now - timedelta(seconds=self._settings.duplicate_window)
        recent = self._journal.recent(card, amount, since)
        standing = (p for p in recent if p.reference != reference and p.outcome is not Outcome.DECLINED)
        earlier = next(standing, None)
        if earlier is None:
            return payment
        self._emit(
            SuspectedDuplicate(
                at=now,
                payment_id=payment.id,
                reference=reference,
                duplicate_of=earlier.id,
                earlier_reference=earlier.reference,
            )
        )
        return replace(payment, duplicate_of=earlier.id)

    def may_be_approved_here(self, payment: Payment, read: ReadCard) -> bool:
        """Whether the configuration and the terminal parameters let it be approved without the host, now."""
        config, now = self._config(), self._clock.now()
        if config is None:
            return False
        floor, aid = None, application_of(read)
        if aid and config.security.offline.allowed and (parameters := self._parameters()) is not None:
            floor = floor_limit(parameters, aid)
        exposure, currency = exposure_of(self._journal.unresolved(), now), config.location.currency
        refused = may_approve(config.security, exposure, payment.amount, currency, payment.entry_mode, floor, now)
        return refused is None
