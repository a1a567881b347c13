"""Payments, tables and strangers' words, as text and as plain values."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from terminal.clock import rfc3339
from terminal.money import exponent
from terminal.payment import Kind, Payment, State

STATES: dict[str, str] = {
    State.NEW: "new",
    State.IN_FLIGHT: "with the host",
    State.IN_DOUBT: "in doubt",
    State.PENDING: "pending",
    State.HELD: "held",
    State.APPROVED: "approved",
    State.DECLINED: "declined",
    State.REFUSED: "refused by the host",
    State.WITHDRAWN: "not made",
    State.ABANDONED: "abandoned",
    State.REVERSING: "being taken back",
    State.CANCELED: "canceled",
    State.PARTIALLY_REFUNDED: "refunded in part",
    State.REFUNDED: "refunded",
    State.REVERSED: "taken back by a refund",
    State.OFFLINE: "approved offline",
    State.FORWARDING: "approved offline, being sent",
    State.LOST: "approved offline, then declined",
    State.FAILED: "failed afterwards",
}
"""A payment's states in people's words."""


def how_to_go_on(kind: str, reference: str) -> str:
    """What to run to learn the outcome of a payment that has none yet, which never takes it twice."""
    if kind == Kind.CHARGE:
        return f"Go on with it: till charge, the same amount and --reference {shlex.quote(reference)}"
    return "Go on with it: run the same command again."


def printable(text: str) -> str:
    """The text without control characters: a host's words are no commands to a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def payment_facts(payment: Payment) -> dict[str, Any]:
    """A payment as plain JSON values, amounts as ``{value, currency}``."""
    approved = payment.approved
    return {
        "id": payment.id,
        "kind": payment.kind.value,
        "state": payment.state.value,
        "outcome": payment.outcome.value,
        "reference": payment.reference,
        "amount": {"value": str(payment.amount.minor), "currency": payment.amount.currency},
        "approved": {"value": str(approved.minor), "currency": approved.currency} if approved else None,
        "refunded": str(payment.refunded),
        "left": str(payment.left if payment.kind is Kind.CHARGE else 0),
        "charge_id": payment.charge_id,
        "refund_id": payment.refund_id,
        "parent": payment.parent,
        "duplicate_of": payment.duplicate_of,
        "entry_mode": payment.entry_mode,
        "masked_pan": payment.masked_pan,
        "authorization_code": payment.authorization_code,
        "response_code": payment.response_code,
        "message": payment.message,
        "note": payment.note,
        "created_at": rfc3339(payment.created_at),
    }


def counted(number: int, of: str) -> str:
    """``1 payment``, ``2 payments``."""
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def sums(minor: Mapping[str, int]) -> str:
    """Minor units by currency, as amounts; they may be zero or below. ``nothing`` where there are none."""
    return ", ".join(money(minor[currency], currency) for currency in sorted(minor)) or "nothing"


def money(minor: int, currency: str) -> str:
    """Minor units as an amount, which may be zero or below: ``EUR -12.50``."""
    decimals = exponent(currency)
    whole, rest = divmod(abs(minor), 10**decimals)
    sign = "-" if minor < 0 else ""
    return f"{currency} {sign}{whole}" + (f".{rest:0{decimals}}" if decimals else "")


def columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """The rows as lines, each column as wide as its widest cell."""
    table = [tuple(printable(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
