"""Triple DES as the payments world keys it: of double or triple length.

Kept for what is older than AES: version B key blocks and their check values. Nothing new is sealed with it.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES

KEY_SIZES: Final = (16, 24)
"""Bytes of a double-length (K1 K2) and a triple-length (K1 K2 K3) key, parity bits and all."""


def triple_des(key: bytes) -> TripleDES:
    """The cipher for a key of 16 or 24 bytes; ValueError for any other length.

    A double-length key is K1 K2 K1 (NIST SP 800-67, keying option 2).
    """
    if len(key) not in KEY_SIZES:
        raise ValueError(f"a triple DES key has 16 or 24 bytes, and this one has {len(key)}")
    return TripleDES(key if len(key) == 24 else key + key[:8])
