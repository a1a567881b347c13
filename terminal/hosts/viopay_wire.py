"""The JSON that we send to the VioPay POS API: each request's shape, once.

The vendor's field tables are not public, so these shapes are assumptions; those that come back are in
``viopay_answers`` and ``viopay_payments``. Nothing here does I/O or knows HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from hw.card import EntryMode
from terminal.clock import rfc3339
from terminal.errors import CardDataError, PaymentRefused
from terminal.money import Amount

PLAINTEXT_LIMIT = 2047
"""Bytes of request plaintext: a key service that decrypts takes 2,048 with the padding."""
REFERENCE_LIMIT = 64
"""Characters of a till's reference or of a refund's reason."""
CHARGE_ID = r"^ch_[A-Za-z0-9]{1,64}\Z"
REFUND_ID = r"^rf_[A-Za-z0-9]{1,64}\Z"


class Money(Struct, frozen=True):
    """``{"value": "1250", "currency": "EUR"}``: minor units as a string, so that no parser makes a float of it."""

    value: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,11}\Z")]
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]


class Card(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The card of a charge. Exactly one of ``track2``, ``pan`` and ``encrypted_card``.

    ``masked_pan``: first six and last four digits at most; ``expiry``: YYMM, which only a reader that encrypts may
    keep to itself; ``sequence``: the PAN sequence
    number, two digits. ``track2`` (the bytes of EMV tag 57) and ``pan`` (ASCII digits) are envelopes under TDK, as
    ``Keystore.seal_card`` makes them. ``encrypted_card`` is passed through from a reader that encrypts by itself:
    ``{"scheme": "dukpt-aes" or "dukpt-tdes", "ksn", "data"}``.
    """

    masked_pan: str
    expiry: str | UnsetType = UNSET
    sequence: str | UnsetType = UNSET
    track2: Mapping[str, str] | UnsetType = UNSET
    pan: Mapping[str, str] | UnsetType = UNSET
    encrypted_card: Mapping[str, str] | UnsetType = UNSET

    def check(self) -> None:
        """Raise CardDataError, quoting no digit, unless each field is what it should be."""
        if not re.match(r"^[0-9]{0,6}\*{2,}[0-9]{0,4}\Z", self.masked_pan):
            raise CardDataError("the masked card number shows more than its first six and last four digits")
        unsaid = self.expiry is UNSET and self.encrypted_card is not UNSET
        if not unsaid and not re.match(r"^[0-9]{2}(0[1-9]|1[0-2])\Z", self.expiry or ""):
            raise CardDataError("the card's expiry date is not YYMM")
        if self.sequence is not UNSET and not re.match(r"^[0-9]{2}\Z", self.sequence):
            raise CardDataError("the card's sequence number is not two digits")
        if sum(part is not UNSET for part in (self.track2, self.pan, self.encrypted_card)) != 1:
            raise CardDataError("a charge carries one of track 2, the card number and a reader's own encryption")


class _Offline(Struct, frozen=True):
    approved_at: str


class _ChargeRequest(Struct, frozen=True, omit_defaults=True, kw_only=True):
    amount: Money
    entry_mode: EntryMode
    reference: str
    card: Card
    fallback: bool | UnsetType = UNSET
    pin: Mapping[str, str] | UnsetType = UNSET
    tip: Money | UnsetType = UNSET
    offline: _Offline | UnsetType = UNSET


class _RefundRequest(Struct, frozen=True):
    amount: Money
    reason: str


class _ActivateRequest(Struct, frozen=True):
    emv_ready: bool
    keys_installed: bool
    network_ok: bool


class _HeartbeatRequest(Struct, frozen=True):
    uptime_sec: int
    pending: int
    version: str


class _SessionRequest(Struct, frozen=True):
    client_id: str
    client_secret: str
    grant_type: str = "client_credentials"


class _InitiateRequest(Struct, frozen=True):
    host: str


class _ClaimRequest(Struct, frozen=True):
    pairing_code: str


def charge_request(
    amount: Amount,
    entry_mode: EntryMode,
    reference: str,
    card: Card,
    *,
    fallback: bool = False,
    pin: Mapping[str, str] | None = None,
    tip: Amount | None = None,
    offline_approved_at: datetime | None = None,
) -> bytes:
    """The plaintext of a charge, to be sealed under MSK.

    ``pin`` is a PIN block as ``Keystore.pin_block`` makes it; ``fallback`` says that a stripe was read after a
    failed chip. Raises CardDataError for a card that cannot be one, PaymentRefused for what does not fit.
    """
    card.check()
    if fallback and entry_mode is not EntryMode.SWIPE:
        raise PaymentRefused(f"a charge by {entry_mode} cannot be a fallback to the stripe")
    if tip is not None and tip.currency != amount.currency:
        raise PaymentRefused(f"a tip in {tip.currency} for a charge in {amount.currency}")
    request = _ChargeRequest(
        amount=_money(amount),
        entry_mode=entry_mode,
        reference=_text("reference", reference),
        card=card,
        fallback=fallback,
        pin=pin if pin is not None else UNSET,
        tip=_money(tip) if tip is not None else UNSET,
        offline=_Offline(rfc3339(offline_approved_at)) if offline_approved_at is not None else UNSET,
    )
    return _encode("charge", request)


def refund_request(amount: Amount, reason: str) -> bytes:
    """The plaintext of a refund; raises PaymentRefused when the reason does not fit."""
    return _encode("refund", _RefundRequest(_money(amount), _text("reason", reason)))


def activate_request(*, emv_ready: bool, keys_installed: bool, network_ok: bool) -> bytes:
    """The plaintext of the last step of an activation."""
    return _encode("activate", _ActivateRequest(emv_ready, keys_installed, network_ok))


def heartbeat_request(*, uptime_sec: int, pending: int, version: str) -> bytes:
    """The plaintext of a heartbeat: seconds since the start, payments not yet settled, our version."""
    return _encode("heartbeat", _HeartbeatRequest(uptime_sec, pending, version))


def session_request(client_id: str, client_secret: str) -> bytes:
    """The body of ``POST /client/session``. It holds a secret."""
    return msgspec.json.encode(_SessionRequest(client_id, client_secret))


def initiate_request(host: str) -> bytes:
    """The body of ``POST /session/initiate``."""
    return msgspec.json.encode(_InitiateRequest(host))


def claim_request(pairing_code: str) -> bytes:
    """The body of ``POST /pos/claim``."""
    return msgspec.json.encode(_ClaimRequest(pairing_code))


def _money(amount: Amount) -> Money:
    return Money(str(amount.minor), amount.currency)


def _text(name: str, value: str) -> str:
    if not (0 < len(value) <= REFERENCE_LIMIT and value.isprintable()):
        raise PaymentRefused(f"a {name} has 1 to {REFERENCE_LIMIT} printable characters")
    return value


def _encode(name: str, request: Struct) -> bytes:
    plaintext = msgspec.json.encode(request)
    if len(plaintext) > PLAINTEXT_LIMIT:
        raise PaymentRefused(f"this {name} is {len(plaintext)} bytes long; a host takes {PLAINTEXT_LIMIT}")
    return plaintext
