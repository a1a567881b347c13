"""The JSON that the VioPay POS API answers with about charges, refunds and cancels, as it is inside the envelopes.

It is read as strictly as ``viopay_answers`` says, since all of it decides something. Nothing here does I/O or knows
HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from terminal.errors import AmountError
from terminal.fit import Answer
from terminal.hosts.answer import Text, Time, decode, printable, refuse, utc
from terminal.hosts.viopay_wire import CHARGE_ID, REFUND_ID, Money
from terminal.money import Amount
from terminal.payment import Happened

# --- as they are in JSON ------------------------------------------------------------------------------------

_ChargeId = Annotated[str, Meta(pattern=CHARGE_ID)]
_RefundId = Annotated[str, Meta(pattern=REFUND_ID)]
_Code = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{0,16}\Z")]
_Hex = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2}){0,2048}\Z")]


class ChargeStatus(StrEnum):
    """What became of a charge."""

    APPROVED = "approved"
    DECLINED = "declined"
    PENDING = "pending"
    CANCELED = "canceled"
    REFUNDED = "refunded"
    PARTIALLY_REFUNDED = "partially_refunded"


class RefundStatus(StrEnum):
    """What became of a refund: a host may fail one that it first approved."""

    APPROVED = "approved"
    DECLINED = "declined"
    PENDING = "pending"
    FAILED = "failed"


class _Gateway(Struct):
    network: Text | None = None
    rrn: Text | None = None


class _Charge(Struct):
    id: _ChargeId
    status: ChargeStatus
    amount: Money
    reference: Annotated[str, Meta(max_length=256)]
    response_code: _Code
    created_at: Time
    authorization_code: _Code | None = None
    emv: _Hex | None = None
    message: Text | None = None
    gateway: _Gateway | None = None


class _Charges(Struct):
    charges: Annotated[list[_Charge], Meta(max_length=100)]


class _Refund(Struct):
    id: _RefundId
    charge_id: _ChargeId
    status: RefundStatus
    amount: Money
    created_at: Time


class _Cancel(Struct):
    id: _ChargeId
    status: Literal["canceled"]
    canceled_at: Time


# --- as the terminal holds them -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChargeAnswer:
    """A charge as the host tells it. ``amount`` is what was approved; ``emv`` goes to the card."""

    id: str
    status: ChargeStatus
    amount: Amount
    reference: str
    response_code: str
    created_at: datetime
    authorization_code: str = ""
    emv: bytes = b""
    message: str = ""
    gateway: Mapping[str, str] = field(default_factory=dict)

    def as_answer(self) -> Answer:
        """In the words of a payment's life."""
        return Answer(
            happened=_CHARGE_HAPPENED[self.status],
            charge_id=self.id,
            amount=self.amount,
            reference=self.reference,
            at=self.created_at,
            authorization_code=self.authorization_code,
            response_code=self.response_code,
            message=self.message,
            gateway=dict(self.gateway),
        )


_CHARGE_HAPPENED = {
    ChargeStatus.APPROVED: Happened.APPROVED,
    ChargeStatus.DECLINED: Happened.DECLINED,
    ChargeStatus.PENDING: Happened.PENDING,
    ChargeStatus.CANCELED: Happened.CANCELED,
    ChargeStatus.REFUNDED: Happened.REFUNDED,
    ChargeStatus.PARTIALLY_REFUNDED: Happened.REFUNDED_IN_PART,
}


@dataclass(frozen=True, slots=True)
class RefundAnswer:
    """A refund as the host tells it."""

    id: str
    charge_id: str
    status: RefundStatus
    amount: Amount
    created_at: datetime

    def as_answer(self) -> Answer:
        """In the words of a payment's life. A refund's answer bears no reference."""
        return Answer(
            happened=_REFUND_HAPPENED[self.status],
            charge_id=self.charge_id,
            amount=self.amount,
            reference=None,
            at=self.created_at,
            refund_id=self.id,
        )


_REFUND_HAPPENED = {
    RefundStatus.APPROVED: Happened.APPROVED,
    RefundStatus.DECLINED: Happened.DECLINED,
    RefundStatus.PENDING: Happened.PENDING,
    RefundStatus.FAILED: Happened.DECLINED,
}


@dataclass(frozen=True, slots=True)
class CancelAnswer:
    """A canceled charge."""

    id: str
    canceled_at: datetime

    def as_answer(self) -> Answer:
        """In the words of a payment's life: the cancel is granted."""
        return Answer(
            happened=Happened.APPROVED, charge_id=self.id, amount=None, reference=None, at=self.canceled_at
        )


def charge(call: str, body: bytes) -> ChargeAnswer:
    """A charge."""
    return _charge(call, "", decode(call, _Charge, body))


def charges(call: str, body: bytes) -> list[ChargeAnswer]:
    """The charges of a lookup."""
    told = decode(call, _Charges, body).charges
    return [_charge(call, f"charges[{n}].", one) for n, one in enumerate(told)]


def _charge(call: str, prefix: str, told: _Charge) -> ChargeAnswer:
    gateway = told.gateway or _Gateway()
    named = {"network": gateway.network, "rrn": gateway.rrn}
    return ChargeAnswer(
        id=told.id,
        status=told.status,
        amount=_amount(call, f"{prefix}amount", told.amount),
        reference=told.reference,
        response_code=told.response_code,
        created_at=utc(call, f"{prefix}created_at", told.created_at),
        authorization_code=told.authorization_code or "",
        emv=bytes.fromhex(told.emv or ""),
        message=printable(told.message or ""),
        gateway={name: printable(text) for name, text in named.items() if text is not None},
    )


def refund(call: str, body: bytes) -> RefundAnswer:
    """A refund."""
    told = decode(call, _Refund, body)
    return RefundAnswer(
        id=told.id,
        charge_id=told.charge_id,
        status=told.status,
        amount=_amount(call, "amount", told.amount),
        created_at=utc(call, "created_at", told.created_at),
    )


def cancel(call: str, body: bytes) -> CancelAnswer:
    """A canceled charge."""
    told = decode(call, _Cancel, body)
    return CancelAnswer(told.id, utc(call, "canceled_at", told.canceled_at))


def _amount(call: str, name: str, told: Money) -> Amount:
    try:
        return Amount(int(told.value), told.currency)
    except AmountError:
        refuse(call, f"{name}.currency", "it is not an ISO 4217 currency that one can pay in")
