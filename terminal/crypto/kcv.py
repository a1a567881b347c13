"""Key check values: a few bytes by which two sides see that they hold the same key.

A check value has 3 to 5 bytes and is written in upper-case hex (ANSI X9.24-1, annex A). How it is made depends
on what the key does, because it is shown to everybody:

    AES keys    the first bytes of CMAC over sixteen zero bytes       ``aes_kcv``
    HMAC keys   the first bytes of HMAC-SHA-256 of the empty message  ``hmac_kcv``
    legacy      the first bytes of a block of zeros under ECB         ``ecb_kcv``

The last is sound for triple DES alone. For an AES key it is the head of the very block from which CMAC takes its
subkeys (NIST SP 800-38B, 6.1), so it is never made for a key that computes a CMAC or protects key blocks:
``policy.kcv_methods`` says where it is tolerated at all.
"""

from __future__ import annotations

import hmac
from typing import Final, Literal

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.cmac import CMAC

from terminal.crypto.tdes import triple_des

MIN_LENGTH: Final = 3
"""Bytes: fewer would match too often by chance."""

MAX_LENGTH: Final = 5
"""Bytes: more would say too much about the key."""


def aes_kcv(key: bytes, length: int = 3) -> str:
    """The check value of an AES key of 16, 24 or 32 bytes: `length` bytes of CMAC over sixteen zero bytes."""
    cmac = CMAC(AES(key))
    cmac.update(bytes(16))
    return _head(cmac.finalize(), length)


def hmac_kcv(key: bytes, length: int = 3) -> str:
    """The check value of an HMAC key of any length: `length` bytes of HMAC-SHA-256 of the empty message."""
    return _head(hmac.digest(key, b"", "sha256"), length)


def ecb_kcv(key: bytes, length: int = 3, *, algorithm: Literal["A", "T"] = "A") -> str:
    """The legacy check value: `length` bytes of a block of zeros in ECB mode.

    `algorithm` is as in ANSI X9.143 table 3: A for AES, T for triple DES. See above before using it with A.
    """
    cipher = Cipher(AES(key) if algorithm == "A" else triple_des(key), ECB())  # noqa: S305 - one block, by definition
    return _head(cipher.encryptor().update(bytes(16)), length)


def kcv_matches(expected: str, actual_full: str) -> bool:
    """Whether `expected`, as a stranger wrote it, is the head of `actual_full`, the longest value we can make.

    `expected` has 6, 8 or 10 hex digits of either case; anything else does not match. Constant in time.
    """
    if not expected.isascii() or len(expected) not in (6, 8, 10) or len(expected) > len(actual_full):
        return False
    return hmac.compare_digest(expected.upper(), actual_full[: len(expected)].upper())


def _head(value: bytes, length: int) -> str:
    if not MIN_LENGTH <= length <= MAX_LENGTH:
        raise ValueError(f"a key check value has {MIN_LENGTH} to {MAX_LENGTH} bytes, not {length}")
    return value[:length].hex().upper()
