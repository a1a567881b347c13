"""Terminal parameters of realistic size: about 200 KB of JSON that gzips to about 17 KB.

The structure is the field's (EMV books 3 and 4, the schemes' contactless kernels): AIDs with their terminal action
codes, CA public keys, acquirers with their limits by currency and card product. RIDs and AIDs are the schemes'
registered ones; the CA keys are *not*: their moduli are random numbers of the right size, so that nobody takes this
for a source of real keys.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Any

from terminal.clock import Random

VERSION = "2025.12.1"

# RID, scheme, kernel, key indices and modulus bits as the schemes publish them
_CA_KEYS: tuple[tuple[str, str, tuple[tuple[str, int], ...]], ...] = (
    ("A000000003", "03", (("07", 1152), ("08", 1408), ("09", 1984), ("92", 1408), ("94", 1984), ("99", 1024))),
    ("A000000004", "03", (("04", 1152), ("05", 1408), ("06", 1984), ("F1", 1408), ("EF", 1984), ("FA", 1152))),
    ("A000000025", "03", (("0E", 1152), ("0F", 1408), ("10", 1984), ("C9", 1408))),
    ("A000000065", "03", (("10", 1152), ("12", 1408), ("14", 1984))),
    ("A000000152", "03", (("5A", 1152), ("5B", 1408), ("5C", 1152), ("5D", 1984))),
    ("A000000333", "03", (("02", 1152), ("03", 1408), ("04", 1984))),
)

_AIDS: tuple[tuple[str, str, str], ...] = (
    ("A0000000031010", "visa", "0096"),
    ("A0000000032010", "visa", "0096"),
    ("A0000000033010", "visa", "0096"),
    ("A0000000038010", "visa", "0096"),
    ("A0000000041010", "mastercard", "0002"),
    ("A0000000042203", "mastercard", "0002"),
    ("A0000000043060", "mastercard", "0002"),
    ("A00000002501", "amex", "0001"),
    ("A0000000651010", "jcb", "0200"),
    ("A0000001523010", "discover", "0001"),
    ("A0000001524010", "discover", "0001"),
    ("A000000333010101", "unionpay", "0020"),
    ("A000000333010102", "unionpay", "0020"),
)

_ONLINE_ONLY = frozenset({"A0000000032010", "A0000000043060"})  # Electron and Maestro: debit
_FLOOR_LIMIT = "2500"

# terminal action codes: default, denial, online
_ACTION_CODES = {
    "visa": ("DC4000A800", "0010000000", "DC4004F800"),
    "mastercard": ("FC50B8A000", "0000000000", "FC50B8F800"),
    "amex": ("DC50FC9800", "0010000000", "DE00FC9800"),
    "jcb": ("FC6024A800", "0010000000", "FC60ACF800"),
    "discover": ("DC00002000", "0010000000", "FCE09CF800"),
    "unionpay": ("D84000A800", "0010000000", "D84004F800"),
}

_CURRENCIES = ("EUR", "USD", "GBP", "CHF", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF")
_PRODUCTS = ("credit", "debit", "prepaid", "commercial", "fleet")
_ACQUIRERS = ("Hellas Acquiring", "Aegean Payments", "Attica Merchant Services")
_SERVICES = ("purchase", "refund", "preauthorisation")


def generate(random: Random) -> dict[str, Any]:
    """The parameters that a host gives to all of its terminals; the same for the same ``random``."""
    return {
        "version": VERSION,
        "acquirers": [_acquirer(random, number, name) for number, name in enumerate(_ACQUIRERS, 1)],
        "aids": [_aid(*aid) for aid in _AIDS],
        "capks": [
            _ca_key(random, rid, exponent, index, bits) for rid, exponent, keys in _CA_KEYS for index, bits in keys
        ],
        "contact": {
            "terminal_type": "22",
            "terminal_capabilities": "E0F8C8",
            "additional_capabilities": "F000F0A001",
            "cvms": ["offline_enciphered_pin", "offline_plaintext_pin", "online_pin", "signature", "none"],
            "pse_selection": True,
            "cardholder_confirmation": True,
            "pin_bypass": False,
            "languages": ["el", "en", "de", "fr"],
            "voice_referral": False,
            "timeouts_ms": {"card_insert": 60000, "apdu": 5000, "pin_first_digit": 30000},
        },
        "contactless": {scheme: _contactless(scheme) for scheme in _ACTION_CODES},
        "receipts": {"merchant_copy": False, "cardholder_copy": "ask", "truncate_pan": True, "width": 32},
    }


def _aid(aid: str, scheme: str, application_version: str) -> dict[str, Any]:
    default, denial, online = _ACTION_CODES[scheme]
    return {
        "aid": aid,
        "partial_selection": True,
        "application_version": application_version,
        "tac_default": default,
        "tac_denial": denial,
        "tac_online": online,
        "floor_limit": "0" if aid in _ONLINE_ONLY else _FLOOR_LIMIT,
        "default_ddol": "9F3704",
        "default_tdol": "9F02065F2A029A039C0195059F3704",
        "random_selection": {"threshold": "0", "target_percent": 20, "max_target_percent": 50},
    }


def _ca_key(random: Random, rid: str, exponent: str, index: str, bits: int) -> dict[str, str]:
    """A CA public key's entry: the hash is SHA-1 over RID, index, modulus and exponent (EMV book 2, table 23)."""
    modulus = bytearray(random(bits // 8))
    modulus[0] |= 0x80
    modulus[-1] |= 0x01
    digest = sha1(bytes.fromhex(rid + index) + modulus + bytes.fromhex(exponent), usedforsecurity=False)
    return {
        "rid": rid,
        "index": index,
        "modulus": modulus.hex().upper(),
        "exponent": exponent,
        "hash": digest.hexdigest().upper(),
        "expiry": "2031-12-31",
    }


def _acquirer(random: Random, number: int, name: str) -> dict[str, Any]:
    merchant_number = str(int.from_bytes(random(6)) % 10**12).rjust(15, "0")
    return {
        "id": f"{number:06}",
        "name": name,
        "merchant_number": merchant_number,
        "priority": number,
        "services": list(_SERVICES),
        "limits": [
            {
                "scheme": scheme,
                "product": product,
                "currency": currency,
                "service": _SERVICES[0],
                "min_amount": "1",
                "max_amount": str(_limit(number, scheme, product, currency)),
                "contactless_max_amount": str(_limit(number, scheme, product, currency) // 20),
                "cvm_required_above": "2500",
                "offline_allowed": product in ("credit", "debit"),
            }
            for scheme in _ACTION_CODES
            for product in _PRODUCTS
            for currency in _CURRENCIES
        ],
    }


def _limit(number: int, scheme: str, product: str, currency: str) -> int:
    """A round limit in minor units that differs from entry to entry, as real ones do."""
    spread = sha1(f"{number}{scheme}{product}{currency}".encode(), usedforsecurity=False).digest()
    return 5000 * (20 + spread[0])


def _contactless(scheme: str) -> dict[str, Any]:
    default, denial, online = _ACTION_CODES[scheme]
    return {
        "enabled": True,
        "ttq": "36004000",
        "tac_default": default,
        "tac_denial": denial,
        "tac_online": online,
        "floor_limit": "0",
        "cvm_limit": "2500",
        "transaction_limit": "5000",
        "transaction_limit_on_device_cvm": "999999",
        "msd_mode": False,
        "status_check": False,
        "zero_amount_check": "online",
        "relay_resistance": scheme == "mastercard",
    }
