"""What may be approved without the host, and how much of it stands open. Pure.

The limits are the configuration's (``security.offline``, VioPay POS API ``pos/config``). Until it is forwarded,
what was approved offline is the merchant's risk: the exposure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from hw.card import EntryMode
from terminal.clock import rfc3339
from terminal.config import Offline
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
    limits: Offline,
    exposure: Exposure,
    amount: Amount,
    currency: str,
    entry_mode: str,
    now: datetime,
    *,
    contactless_limit: str = "",
) -> str | None:
    """None where ``amount`` may be approved without the host, else why not, in words.

    ``currency`` is the configuration's, in which the limits are. A card number that was typed never is: whoever
    types it need not have the card. Nor is a tap above ``contactless_limit`` (minor units in digits; empty: taps
    have no limit of their own). Nothing more is stored once the oldest has waited longer than ``max_age_sec``.
    """
    if not limits.allowed:
        return "the configuration allows no offline approval"
    if amount.currency != currency:
        return f"offline approvals are in {currency or 'no currency'}, not in {amount.currency}"
    if entry_mode == EntryMode.MANUAL:
        return "a card number that was typed is never approved offline"
    if entry_mode == EntryMode.CONTACTLESS and contactless_limit and amount.minor > _limit(contactless_limit):
        return f"{amount} is above the contactless limit of {_told(contactless_limit, currency)}"
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
    """Minor units; what is no string of at most twelve digits allows nothing."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else 0


def _told(text: str, currency: str) -> str:
    try:
        return str(Amount(_limit(text), currency))
    except AmountError:
        return "zero"
