"""The JSON that the VioPay POS API answers with: each shape once, read into typed objects.

An answer is read strictly where it decides something: money is a string of digits in an ISO 4217 currency, ids,
tokens and codes have bounded patterns, a status is one that we know, a time is RFC 3339 with its zone. A field
that we do not know is let through unread: a host adds fields within a version of its API, and a terminal in a
shop must not stop on the day that it does. Whatever is wrong is a HostAnswerInvalid that names the field and
quotes nothing of the answer. Nothing here does I/O or knows HTTP.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, NoReturn, TypeVar

import msgspec
from msgspec import Meta, Struct

from terminal.crypto.keystore import WrappedKey, WrappedKeySet
from terminal.crypto.policy import Role
from terminal.errors import AmountError, HostAnswerInvalid, HostRefused
from terminal.hosts.viopay_wire import CHARGE_ID, REFUND_ID, Money
from terminal.money import Amount

# --- as they are in JSON ------------------------------------------------------------------------------------

_HeaderSafe = Annotated[str, Meta(pattern=r"^[!-~]{1,128}\Z")]
"""An id that travels back in a header."""
_Token = Annotated[str, Meta(pattern=r"^[!-~]{1,16384}\Z")]
_Seconds = Annotated[int, Meta(ge=1, le=31_536_000)]
_Text = Annotated[str, Meta(max_length=512)]
_Time = Annotated[datetime, Meta(tz=True)]
_ChargeId = Annotated[str, Meta(pattern=CHARGE_ID)]
_RefundId = Annotated[str, Meta(pattern=REFUND_ID)]
_Code = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{0,16}\Z")]
_HexText = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2}){0,2048}\Z")]


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


class _Health(Struct):
    service: _Text


class _Bootstrap(Struct):
    status: Literal["ok"]
    server_time: _Time
    min_supported_version: Annotated[str, Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}\Z")]


class PairingCode(Struct, frozen=True):
    """The code that a merchant types to claim the device, and for how many seconds it holds."""

    pairing_code: Annotated[str, Meta(pattern=r"^[A-HJ-NP-Z2-9]{6}\Z")]
    expires_in_sec: _Seconds


class DeviceStatus(Struct, frozen=True):
    """Where the host thinks the device stands."""

    device_status: Literal["inactive", "claimed", "activated"]
    is_claimed: bool
    pairing_code_status: Literal["pending", "used", "expired", "none"]


class Attested(Struct, frozen=True):
    """A token for the rest of the activation, and for how many seconds it holds."""

    status: Literal["attested"]
    attestation_token: Annotated[str, Meta(pattern=r"^att_[A-Za-z0-9._~+/=-]{1,4096}\Z")]
    expires_in_sec: _Seconds

    def __repr__(self) -> str:
        return f"Attested(expires_in_sec={self.expires_in_sec})"


class AccessToken(Struct, frozen=True):
    """A merchant's token, and for how many seconds it holds."""

    access_token: _Token
    token_type: Literal["Bearer"]
    expires_in: _Seconds

    def __repr__(self) -> str:
        return f"AccessToken(expires_in={self.expires_in})"


class SessionInitiated(Struct, frozen=True):
    """A merchant's session stands."""

    status: Literal["ok"]
    channel: _Text = ""


class Claimed(Struct, frozen=True):
    """Which device a pairing code was of."""

    status: Literal["claimed"]
    device_id: Annotated[str, Meta(pattern=r"^POS-[0-9A-F]{8}\Z")]


class _KeySetFacts(Struct):
    key_set_id: _HeaderSafe
    issued_at: _Time
    expires_at: _Time


class _Transport(Struct):
    format: Literal["TR31"]
    encryption: Literal["AES-256"]


class _Key(Struct):
    key_id: _HeaderSafe
    key_block: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{1,16384}={0,2}\Z")]
    usage: _Text
    kcv: Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2}){3,5}\Z")]


class _Keys(Struct):
    tmk: _Key
    kek: _Key
    msk: _Key
    tpk: _Key
    tdk: _Key
    mac: _Key


class _KeySet(Struct):
    key_set: _KeySetFacts
    transport: _Transport
    keys: _Keys


class _Activated(Struct):
    status: Literal["activated"]
    activated_at: _Time


class _Gateway(Struct):
    network: _Text | None = None
    rrn: _Text | None = None


class _Charge(Struct):
    id: _ChargeId
    status: ChargeStatus
    amount: Money
    reference: Annotated[str, Meta(max_length=256)]
    response_code: _Code
    created_at: _Time
    authorization_code: _Code | None = None
    emv: _HexText | None = None
    message: _Text | None = None
    gateway: _Gateway | None = None


class _Charges(Struct):
    charges: Annotated[list[_Charge], Meta(max_length=100)]


class _Refund(Struct):
    id: _RefundId
    charge_id: _ChargeId
    status: RefundStatus
    amount: Money
    created_at: _Time


class _Cancel(Struct):
    id: _ChargeId
    status: Literal["canceled"]
    canceled_at: _Time


class _Heartbeat(Struct):
    server_time: _Time
    actions: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=32)]


class _ErrorBody(Struct):
    code: Annotated[str, Meta(pattern=r"^[0-9A-Za-z_.-]{1,32}\Z")]
    message: str = ""
    trace_id: str | None = None


class _Error(Struct):
    error: _ErrorBody


# --- as the terminal holds them -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The host's time of day (aware, UTC) and the oldest client version that it still serves."""

    server_time: datetime
    min_supported_version: str


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


@dataclass(frozen=True, slots=True)
class RefundAnswer:
    """A refund as the host tells it."""

    id: str
    charge_id: str
    status: RefundStatus
    amount: Amount
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CancelAnswer:
    """A canceled charge."""

    id: str
    canceled_at: datetime


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What the host would like done; an action that we do not know is dropped."""

    server_time: datetime
    actions: frozenset[str]


ACTIONS = frozenset({"rotate_keys", "refresh_config", "refresh_parameters", "update"})

T = TypeVar("T")


def decode(call: str, kind: type[T], body: bytes) -> T:
    """The JSON of an answer as a ``kind``; raises HostAnswerInvalid naming the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        where, problem = _said(str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        where, problem = "body", "it is not JSON"
    raise HostAnswerInvalid(call, where, problem)


def _said(message: str) -> tuple[str, str]:
    """Field and problem from msgspec's words, without the value that some of them quote."""
    problem, _, path = message.partition(" - at `$")
    where = path.removesuffix("`").lstrip(".")
    if missing := re.match(r"Object missing required field `(\w+)`\Z", problem):
        where, problem = ".".join(filter(None, (where, missing[1]))), "it is missing"
    elif problem.startswith("Invalid enum value"):
        problem = "it is none of the known values"
    return where or "body", problem.replace("`", "")


def bootstrap(call: str, body: bytes) -> Bootstrap:
    """The answer to a bootstrap."""
    told = decode(call, _Bootstrap, body)
    return Bootstrap(_utc(call, "server_time", told.server_time), told.min_supported_version)


def health(call: str, body: bytes) -> str:
    """The name of the service that answers."""
    return decode(call, _Health, body).service


def key_set(call: str, body: bytes) -> WrappedKeySet:
    """The answer to a call for keys, still wrapped: what is in the blocks is the keystore's to judge."""
    told = decode(call, _KeySet, body)
    issued = _utc(call, "key_set.issued_at", told.key_set.issued_at)
    expires = _utc(call, "key_set.expires_at", told.key_set.expires_at)
    if expires <= issued:
        _refuse(call, "key_set.expires_at", "it is not after issued_at")
    return WrappedKeySet(
        key_set_id=told.key_set.key_set_id,
        issued_at=issued,
        expires_at=expires,
        keys={role: _wrapped(call, role, getattr(told.keys, role)) for role in _ROLES},
    )


_ROLES = (Role.TMK, Role.KEK, Role.MSK, Role.TPK, Role.TDK, Role.MAC)


def _wrapped(call: str, role: Role, told: _Key) -> WrappedKey:
    try:
        block = base64.b64decode(told.key_block, validate=True).decode("ascii")
    except ValueError:  # and so UnicodeDecodeError
        _refuse(call, f"keys.{role}.key_block", "it is not the base64 of a TR-31 key block")
    return WrappedKey(key_id=told.key_id, key_block=block, kcv=told.kcv, usage=told.usage)


def activated(call: str, body: bytes) -> datetime:
    """When the host set the device active (the opened envelope's JSON)."""
    return _utc(call, "activated_at", decode(call, _Activated, body).activated_at)


def charge(call: str, body: bytes) -> ChargeAnswer:
    """A charge (the opened envelope's JSON)."""
    return _charge(call, "", decode(call, _Charge, body))


def charges(call: str, body: bytes) -> list[ChargeAnswer]:
    """The charges of a lookup (the opened envelope's JSON)."""
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
        created_at=_utc(call, f"{prefix}created_at", told.created_at),
        authorization_code=told.authorization_code or "",
        emv=bytes.fromhex(told.emv or ""),
        message=_printable(told.message or ""),
        gateway={name: _printable(text) for name, text in named.items() if text is not None},
    )


def refund(call: str, body: bytes) -> RefundAnswer:
    """A refund (the opened envelope's JSON)."""
    told = decode(call, _Refund, body)
    return RefundAnswer(
        id=told.id,
        charge_id=told.charge_id,
        status=told.status,
        amount=_amount(call, "amount", told.amount),
        created_at=_utc(call, "created_at", told.created_at),
    )


def cancel(call: str, body: bytes) -> CancelAnswer:
    """A canceled charge (the opened envelope's JSON)."""
    told = decode(call, _Cancel, body)
    return CancelAnswer(told.id, _utc(call, "canceled_at", told.canceled_at))


def heartbeat(call: str, body: bytes) -> HeartbeatAnswer:
    """What the host wants done (the opened envelope's JSON)."""
    told = decode(call, _Heartbeat, body)
    return HeartbeatAnswer(_utc(call, "server_time", told.server_time), ACTIONS.intersection(told.actions))


def _amount(call: str, name: str, told: Money) -> Amount:
    try:
        return Amount(int(told.value), told.currency)
    except AmountError:
        _refuse(call, f"{name}.currency", "it is not an ISO 4217 currency that one can pay in")


def _utc(call: str, name: str, told: datetime) -> datetime:
    try:
        return told.astimezone(UTC)
    except OverflowError:  # the year 1 or 9999, at the edge of a zone
        _refuse(call, name, "it is out of the calendar's range")


def _refuse(call: str, name: str, problem: str) -> NoReturn:
    raise HostAnswerInvalid(call, name, problem) from None


def _printable(text: str) -> str:
    """For a screen, a receipt or a log: no control characters."""
    return "".join(char if char.isprintable() else " " for char in text)


# --- refusals -----------------------------------------------------------------------------------------------

ADVICE = {
    "4010": "Check the device's clock and `till keys`; a token that expired is replaced by `till activate`.",
    "4011": "The key set is superseded: run `till activate` to take new keys.",
    "4030": "The device belongs to another merchant: claim it with that merchant's account.",
    "4031": "The device was revoked or is no longer claimed: run `till activate`.",
    "4260": "This version is too old for the host: update, or set host.client_version.",
    "4290": "Wait before the next try.",
}
"""What to do about a refusal, by its code."""

_SECRET = re.compile(r"[A-Za-z0-9+/=_.~*-]{20,}|(?:[0-9][ -]?){11,18}[0-9]")
"""Anything long enough to be a token, a key, a MAC or a card number that a host may echo."""


def refusal(call: str, status: int, body: bytes, retry_after: float | None) -> HostRefused | None:
    """The host's error body as an error; None when the body is no such thing.

    The host's message is a stranger's text: it is cut to 200 characters, and what looks like a secret is taken out.
    """
    try:
        told = decode(call, _Error, body).error
    except HostAnswerInvalid:
        return None
    return HostRefused(
        call,
        status,
        told.code,
        _SECRET.sub("[removed]", _printable(told.message[:1000]))[:200],
        trace_id=told.trace_id if told.trace_id and re.match(r"^[A-Za-z0-9-]{1,64}\Z", told.trace_id) else "",
        retry_after=retry_after,
        advice=ADVICE.get(told.code, ""),
    )
