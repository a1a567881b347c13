"""What is signed, and the headers that carry it (VioPay POS API, "POS Headers").

Attestation signs ``device_id\\nkey_id\\ntimestamp\\nnonce`` with the device's identity secret. The string that a
charge signs is not published: ``request_message`` is the one place that assumes it, by one of two schemes. Neither
binds the method, the path, the charge id or the idempotency key; that is what TLS, the nonce and the envelope are
for.
"""

from __future__ import annotations

import hmac
from base64 import b32encode, b64decode, b64encode
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from terminal.clock import Random

Sign = Callable[[bytes], bytes]
"""``sign(message)`` gives the 32 bytes of an HMAC-SHA256; whoever hands it in keeps the key."""

MAC_LENGTH: Final = 32
NONCE_LENGTH: Final = 24
_VERSION: Final = "v1="


class Scheme(StrEnum):
    """The string that a charge, a refund, a cancel or a lookup signs. Which one a host uses is an assumption."""

    PREFIXED = "prefixed"
    """``terminal_id\\nkey_id\\ntimestamp\\nnonce\\n`` and the raw body, by analogy with attestation."""
    BODY = "body"
    """The raw body alone: two requests without a body have the same signature."""


def nonce(random: Random) -> str:
    """24 characters of A-Z and 2-7 that hold 120 random bits: base32, and so without bias."""
    return b32encode(random(NONCE_LENGTH * 5 // 8)).decode()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104), 32 bytes."""
    return hmac.digest(key, message, "sha256")


def attestation_message(device_id: str, key_id: str, timestamp: str, nonce: str) -> bytes:
    """What ``POST /pos/attest`` signs. ValueError where a field is empty or holds a line end."""
    return "\n".join(_lines(device_id, key_id, timestamp, nonce)).encode()


def request_message(
    scheme: Scheme, terminal_id: str, key_id: str, timestamp: str, nonce: str, body: bytes
) -> bytes:
    """What a payment call signs, by assumption. ``body`` is the raw bytes as sent, empty where there are none.

    ValueError where a field is empty or holds a line end.
    """
    fields = _lines(terminal_id, key_id, timestamp, nonce)
    match scheme:
        case Scheme.PREFIXED:
            return "\n".join((*fields, "")).encode() + body
        case Scheme.BODY:
            return body


def header_value(mac: bytes) -> str:
    """``v1=<base64>``."""
    return _VERSION + b64encode(mac).decode()


def parse_header_value(text: str) -> bytes:
    """The 32 bytes of an ``X-Signature``; ValueError where it is anything but ``v1=`` and their base64."""
    if not text.startswith(_VERSION):
        raise ValueError("the signature has another version than v1")
    mac = b64decode(text.removeprefix(_VERSION), validate=True)
    # A second spelling of the same bytes is refused as well: base64 leaves two bits over.
    if len(mac) != MAC_LENGTH or header_value(mac) != text:
        raise ValueError("the signature is not the base64 of 32 bytes")
    return mac


def attestation_headers(sign: Sign, *, device_id: str, key_id: str, timestamp: str, nonce: str) -> dict[str, str]:
    """The signed headers of ``POST /pos/attest``; User-Agent and X-Client-Type are the client's."""
    mac = sign(attestation_message(device_id, key_id, timestamp, nonce))
    return {"X-Device-Id": device_id, **_signed(key_id, timestamp, nonce, mac)}


def request_headers(
    sign: Sign, *, scheme: Scheme, terminal_id: str, key_id: str, timestamp: str, nonce: str, body: bytes
) -> dict[str, str]:
    """The signed headers of a payment call; User-Agent and X-Client-Type are the client's."""
    mac = sign(request_message(scheme, terminal_id, key_id, timestamp, nonce, body))
    return {"X-Terminal-Id": terminal_id, **_signed(key_id, timestamp, nonce, mac)}


def _signed(key_id: str, timestamp: str, nonce: str, mac: bytes) -> dict[str, str]:
    return {"X-Key-Id": key_id, "X-Timestamp": timestamp, "X-Nonce": nonce, "X-Signature": header_value(mac)}


def _lines(*fields: str) -> tuple[str, ...]:
    """The fields, each known to be one line: a line end inside would let two requests share a signature."""
    if not all(field and field.isascii() and field.isprintable() for field in fields):
        raise ValueError("a signed field is empty, or is not one line of printable ASCII")
    return fields
