"""The JSON that the VioPay POS API answers with: each shape once, read into typed objects.

What it says of charges, refunds and cancels is in ``viopay_payments``.

An answer is read strictly where it decides something: money is a string of digits in an ISO 4217 currency, ids,
tokens and codes have bounded patterns, a status is one that we know, a time is RFC 3339 with its zone. A field
that we do not know is let through unread: a host adds fields within a version of its API, and a terminal in a
shop must not stop on the day that it does. Whatever is wrong is a HostAnswerInvalid that names the field and
quotes nothing of the answer. Nothing here does I/O or knows HTTP.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from terminal.crypto.keystore import WrappedKey, WrappedKeySet
from terminal.crypto.policy import Role
from terminal.hosts.answer import Text, Time, decode, refuse, utc

# --- as they are in JSON ------------------------------------------------------------------------------------

_HeaderSafe = Annotated[str, Meta(pattern=r"^[!-~]{1,128}\Z")]
"""An id that travels back in a header."""
_Token = Annotated[str, Meta(pattern=r"^[!-~]{1,16384}\Z")]
_Seconds = Annotated[int, Meta(ge=1, le=31_536_000)]


class _Health(Struct):
    service: Text


class _Bootstrap(Struct):
    status: Literal["ok"]
    server_time: Time
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
    channel: Text = ""


class Claimed(Struct, frozen=True):
    """Which device a pairing code was of."""

    status: Literal["claimed"]
    device_id: Annotated[str, Meta(pattern=r"^POS-[0-9A-F]{8}\Z")]


class _KeySetFacts(Struct):
    key_set_id: _HeaderSafe
    issued_at: Time
    expires_at: Time


class _Transport(Struct):
    format: Literal["TR31"]
    encryption: Literal["AES-256"]


class _Key(Struct):
    key_id: _HeaderSafe
    key_block: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{1,16384}={0,2}\Z")]
    usage: Text
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
    activated_at: Time


class _Heartbeat(Struct):
    server_time: Time
    actions: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=32)]


# --- as the terminal holds them -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The host's time of day (aware, UTC) and the oldest client version that it still serves."""

    server_time: datetime
    min_supported_version: str


@dataclass(frozen=True, slots=True)
class Activated:
    """When the host set the device active."""

    activated_at: datetime


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """What the host would like done; an action that we do not know is dropped."""

    server_time: datetime
    actions: frozenset[str]


ACTIONS = frozenset({"rotate_keys", "refresh_config", "refresh_parameters", "update"})


def bootstrap(call: str, body: bytes) -> Bootstrap:
    """The answer to a bootstrap."""
    told = decode(call, _Bootstrap, body)
    return Bootstrap(utc(call, "server_time", told.server_time), told.min_supported_version)


def health(call: str, body: bytes) -> str:
    """The name of the service that answers."""
    return decode(call, _Health, body).service


def key_set(call: str, body: bytes) -> WrappedKeySet:
    """The answer to a call for keys, still wrapped: what is in the blocks is the keystore's to judge."""
    told = decode(call, _KeySet, body)
    issued = utc(call, "key_set.issued_at", told.key_set.issued_at)
    expires = utc(call, "key_set.expires_at", told.key_set.expires_at)
    if expires <= issued:
        refuse(call, "key_set.expires_at", "it is not after issued_at")
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
        refuse(call, f"keys.{role}.key_block", "it is not the base64 of a TR-31 key block")
    return WrappedKey(key_id=told.key_id, key_block=block, kcv=told.kcv, usage=told.usage)


def activated(call: str, body: bytes) -> Activated:
    """The end of an activation (the opened envelope's JSON)."""
    return Activated(utc(call, "activated_at", decode(call, _Activated, body).activated_at))


def heartbeat(call: str, body: bytes) -> HeartbeatAnswer:
    """What the host wants done (the opened envelope's JSON)."""
    told = decode(call, _Heartbeat, body)
    return HeartbeatAnswer(utc(call, "server_time", told.server_time), ACTIONS.intersection(told.actions))
