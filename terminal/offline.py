"""What may be approved without the host, and how much of it stands open. Pure.

The limits are the configuration's (``security``, VioPay POS API ``pos/config``) and, of a chip, the floor limit of
its application (``pos/terminal-parameters``). Until it is forwarded, what was approved offline is the merchant's
risk: the exposure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from hw.card import EntryMode
from terminal.clock import rfc3339
from terminal.config import Security, is_amount
from terminal.errors import AmountError
from terminal.money import Amount
from terminal.payment import Kind, Payment, State

STORED = frozenset({State.OFFLINE, State.FORWARDING})
"""Approved here, and not known to be approved by the host."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What was approved offline and is not known to be approved by the host."""

    count: int
    total: Mapping[str, int]
    """Minor units by currency."""
    oldest: datetime | None
    """When the oldest of them was approved; None where there are none."""


def exposure_of(payments: Iterable[Payment], now: datetime) -> Exposure:
    """The exposure among these payments. One that a wrong clock dated in the future was approved ``now``."""
    stored = [p for p in payments if p.kind is Kind.CHARGE and p.state in STORED]
    total: dict[str, int] = {}
    for payment in stored:
        total[payment.amount.currency] = total.get(payment.amount.currency, 0) + payment.amount.minor
    oldest = min((payment.created_at for payment in stored), default=None)
    return Exposure(len(stored), total, oldest and min(oldest, now))


def may_approve(
    security: Security,
    exposure: Exposure,
    amount: Amount,
    currency: str,
    entry_mode: str,
    floor_limit: int | None,
    now: datetime,
) -> str | None:
    """None where ``amount`` may be approved without the host, else why not, in words.

    ``currency`` is the configuration's, in which the limits are. ``floor_limit`` is that of the chip's application
    in minor units, None where it has none; a stripe needs none. What may not be approved:

    - a card number that was typed: whoever types it need not have the card;
    - a chip without a floor limit, or that reaches it (EMV 4.3 Book 3, section 10.6.1);
    - a tap above the contactless limit, or above the CVM limit: it would take a verification of the cardholder, and
      none is made here;
    - what is above a limit of ``security.offline``, or would bring the exposure above one; and anything while the
      oldest has waited for longer than ``max_age_sec``.
    """
    limits = security.offline
    if not limits.allowed:
        return "the configuration allows no offline approval"
    if amount.currency != currency:
        return f"offline approvals are in {currency or 'no currency'}, not in {amount.currency}"
    if entry_mode == EntryMode.MANUAL:
        return "a card number that was typed is never approved offline"
    if entry_mode != EntryMode.SWIPE:
        if floor_limit is None:
            return "the terminal parameters have no floor limit for the card's application"
        if amount.minor >= floor_limit:
            return f"{amount} is not below the floor limit of the card's application"
    if entry_mode == EntryMode.CONTACTLESS:
        for name, limit in (("contactless", security.contactless_limit), ("CVM", security.cvm_limit)):
            if amount.minor > _limit(limit):
                return f"{amount} is above the {name} limit of {_told(limit, currency)}"
    if amount.minor > _limit(limits.max_amount):
        return f"{amount} is above the offline limit of {_told(limits.max_amount, currency)}"
    if exposure.count >= limits.max_count:
        return f"{exposure.count} offline approvals wait for the host, and the limit is {limits.max_count}"
    total = exposure.total.get(currency, 0) + amount.minor
    if total > _limit(limits.max_total):
        limit = _told(limits.max_total, currency)
        return f"with {amount} more than {limit}, the limit in total, would wait for the host"
    oldest = exposure.oldest
    if oldest is not None and now - oldest > timedelta(seconds=limits.max_age_sec):
        return f"an offline approval has waited since {rfc3339(oldest)}, longer than {limits.max_age_sec} s"
    return None


def _limit(text: str) -> int:
    """Minor units; what is no amount allows nothing."""
    return int(text) if is_amount(text) else 0


def _told(text: str, currency: str) -> str:
    try:
        return str(Amount(_limit(text), currency))
    except AmountError:
        return "zero"
