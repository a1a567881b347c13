"""What a terminal may say inside its envelopes: the shapes, and the rules that a shape cannot say.

A wrong shape is refused with 400 and names the field; a broken rule with 422. Unknown fields are ignored.
"""

from __future__ import annotations

import re
from binascii import a2b_hex
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sim.host.hsm import LiveKeys
from sim.host.outcomes import network
from sim.host.refusals import ENVELOPE_DOES_NOT_OPEN, Refusal, Why
from terminal.crypto import envelope
from terminal.crypto.pinblock import iso4_pin
from terminal.errors import AmountError, CardDataError, CryptoError, EnvelopeError
from terminal.money import Amount

_MAX_CARD_DATA = 256  # bytes inside a sealed card field
_TRACK2 = re.compile(r"(\d{12,19})d(\d{4})\d*f?")
_PAN = re.compile(r"\d{12,19}")
_MAX_TLV_DEPTH = 8

TRACK_DATA_TAGS = frozenset({0x56, 0x57, 0x5A, 0x5F20, 0x9F1F, 0x9F20, 0x9F6B})
"""EMV tags that hold track data, the PAN or the cardholder's name: never in ``emv``."""

Text = Annotated[str, Meta(max_length=256)]
Reference = Annotated[str, Meta(min_length=1, max_length=256)]
Hex = Annotated[str, Meta(pattern="^(?:[0-9A-Fa-f]{2})*$", max_length=4096)]


class MoneyShape(Struct):
    """``{"value": "1250", "currency": "EUR"}``."""

    value: Annotated[str, Meta(pattern=r"^-?[0-9]{1,20}$")]
    currency: str


class EncryptedCard(Struct):
    """What a reader that encrypts by itself gives: passed through unopened."""

    scheme: Literal["dukpt-aes", "dukpt-tdes"]
    ksn: Hex
    data: Hex


class Card(Struct):
    """Exactly one of ``track2``, ``pan`` and ``encrypted_card``."""

    masked_pan: Annotated[str, Meta(pattern=r"^[0-9]{0,8}\*{2,}[0-9]{0,4}$", max_length=19)]
    expiry: Annotated[str, Meta(pattern="^[0-9]{4}$")] | None = None
    sequence: Annotated[str, Meta(pattern="^[0-9]{1,3}$")] | None = None
    track2: dict[str, Any] | None = None
    pan: dict[str, Any] | None = None
    encrypted_card: EncryptedCard | None = None


class Pin(Struct):
    """A PIN block of ISO 9564-1 format 4 under the TPK."""

    format: Literal["ISO-4"]
    block: Annotated[str, Meta(pattern="^[0-9A-Fa-f]{32}$")]
    key_kcv: Annotated[str, Meta(pattern="^(?:[0-9A-Fa-f]{2}){3,5}$")] | None = None


class Offline(Struct):
    """Approved by the card, without the host."""

    approved_at: Text


class ChargeRequest(Struct):
    """``POST /pos/charge``."""

    amount: MoneyShape
    entry_mode: Literal["chip", "swipe", "contactless", "manual"]
    reference: Reference
    card: Card
    emv: Hex | None = None
    fallback: bool = False
    pin: Pin | None = None
    tip: MoneyShape | None = None
    offline: Offline | None = None


class RefundRequest(Struct):
    """``POST /pos/charge/{id}/refund``."""

    amount: MoneyShape
    reason: Text


class ActivateRequest(Struct):
    """``POST /pos/activate``."""

    emv_ready: bool
    keys_installed: bool
    network_ok: bool


class HeartbeatRequest(Struct):
    """``POST /pos/heartbeat``."""

    uptime_sec: Annotated[int, Meta(ge=0)]
    pending: Annotated[int, Meta(ge=0)]
    version: Text


def asked(shape: MoneyShape) -> Amount:
    """The amount, above zero and in a currency that exists; Refusal 422."""
    try:
        return Amount(int(shape.value), shape.currency)
    except AmountError as error:
        raise Refusal(Why.RULE, f"amount: {error}.") from None


def check_charge(request: ChargeRequest, keys: LiveKeys) -> tuple[Amount, str]:
    """Hold a charge to the rules; give back its amount and the card's network.

    Refusal 400 where a sealed field does not open, 422 where a rule is broken.
    """
    amount = asked(request.amount)
    card = request.card
    if sum(given is not None for given in (card.track2, card.pan, card.encrypted_card)) != 1:
        raise Refusal(Why.MALFORMED, "card: exactly one of track2, pan and encrypted_card is wanted.")
    if (card.pan is not None) != (request.entry_mode == "manual"):
        raise Refusal(Why.RULE, "card: pan is for entry_mode manual, and only for that.")
    if request.fallback and request.entry_mode != "swipe":
        raise Refusal(Why.RULE, "fallback: only a swipe can be one.")
    if request.tip is not None and (
        request.tip.currency != amount.currency or not 0 <= int(request.tip.value) < amount.minor
    ):
        raise Refusal(Why.RULE, "tip: it is part of the amount, and in its currency.")
    if request.emv:
        _check_emv(request.emv, request.entry_mode)
    pan = _pan(card, keys)
    if request.pin is not None:
        _check_pin(request.pin, pan, keys)
    return amount, network(pan or card.masked_pan)


def _pan(card: Card, keys: LiveKeys) -> str | None:
    """The card number under the TDK, or None where the reader encrypted it by itself."""
    sealed = card.track2 if card.track2 is not None else card.pan
    if sealed is None:
        return None
    try:
        data = envelope.open_envelope(keys.tdk, sealed, limit=_MAX_CARD_DATA, kcv=keys.tdk_kcv)
    except EnvelopeError:
        raise Refusal(Why.MALFORMED, ENVELOPE_DOES_NOT_OPEN) from None
    if card.track2 is not None:
        found = _TRACK2.fullmatch(data.hex())
        if found:
            return found[1]
        raise Refusal(Why.MALFORMED, "card.track2: not the bytes of tag 57.")
    digits = data.decode("latin-1")
    if digits.isascii() and _PAN.fullmatch(digits):
        return digits
    raise Refusal(Why.MALFORMED, "card.pan: not the digits of a card number.")


def _check_pin(pin: Pin, pan: str | None, keys: LiveKeys) -> None:
    if pin.key_kcv is not None and not keys.tpk_kcv.startswith(pin.key_kcv.upper()):
        raise Refusal(Why.MALFORMED, "pin.key_kcv: another key.")
    if pan is None:
        return
    try:
        iso4_pin(keys.tpk, a2b_hex(pin.block), pan)
    except (CryptoError, CardDataError):
        raise Refusal(Why.MALFORMED, "pin.block: it does not open.") from None


def _check_emv(emv: str, entry_mode: str) -> None:
    if entry_mode not in ("chip", "contactless"):
        raise Refusal(Why.RULE, "emv: for chip and contactless only.")
    try:
        tags = set(tlv_tags(a2b_hex(emv)))
    except ValueError:
        raise Refusal(Why.MALFORMED, "emv: not a sequence of BER-TLV objects.") from None
    if tags & TRACK_DATA_TAGS:
        raise Refusal(Why.RULE, "emv: it holds track data in disguise.")


def harmless_emv(emv: str) -> bool:
    """Whether the hex is EMV data without track data."""
    try:
        return not TRACK_DATA_TAGS & set(tlv_tags(a2b_hex(emv)))
    except ValueError:
        return False


def tlv_tags(data: bytes, depth: int = 0) -> Iterator[int]:
    """Every tag in a sequence of BER-TLV objects, templates looked into (EMV 4.3 book 3 annex B); ValueError."""
    if depth > _MAX_TLV_DEPTH:
        raise ValueError("templates are nested too deep")
    at = 0
    while at < len(data):
        first = data[at]
        tag = first
        at += 1
        if first & 0x1F == 0x1F:
            while True:
                if at >= len(data) or tag > 0xFFFF:
                    raise ValueError("a tag is cut short or too long")
                tag = tag << 8 | data[at]
                at += 1
                if not tag & 0x80:
                    break
        if at >= len(data):
            raise ValueError("a length is missing")
        length = data[at]
        at += 1
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 2 or at + size > len(data):
                raise ValueError("a length is malformed")
            length = int.from_bytes(data[at : at + size])
            at += size
        if at + length > len(data):
            raise ValueError("a value is cut short")
        yield tag
        if first & 0x20:
            yield from tlv_tags(data[at : at + length], depth + 1)
        at += length


def open_request(keys: LiveKeys, body: bytes, limit: int) -> Any:
    """The JSON inside a request's envelope.

    Refusal 400 with one message, whatever the reason; 422 where it is longer than ``limit`` bytes.
    """
    try:
        plaintext = envelope.open_envelope(keys.msk, body, limit=len(body), kcv=keys.msk_kcv)
        opened = msgspec.json.decode(plaintext)
    except (EnvelopeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(Why.MALFORMED, ENVELOPE_DOES_NOT_OPEN) from None
    if len(plaintext) > limit:
        raise Refusal(Why.RULE, f"The request is longer than {limit} bytes.")
    return opened
